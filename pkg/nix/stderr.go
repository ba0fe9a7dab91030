package nix

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/org/nix-matrix/internal/child"
)

// A pipe reads everything that a program writes to a stream. Package exec closes its pipes some
// time after the program has ended if another process has them open or the reader is slow, and
// loses the rest.
type pipe struct {
	read, write *os.File
	to          io.Writer
	finished    chan struct{}
}

// pipeTo makes a stream of a program that has not started a pipe.
func pipeTo(stream *io.Writer, to io.Writer) (*pipe, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	*stream = write
	return &pipe{read, write, to, make(chan struct{})}, nil
}

// startPiped starts a program whose streams are pipes.
func startPiped(cmd *child.Cmd, pipes ...*pipe) error {
	err := cmd.Start()
	for _, p := range pipes {
		p.started(err)
	}
	return err
}

func (p *pipe) started(err error) {
	_ = p.write.Close() // the program has its own
	if err != nil {
		_ = p.read.Close() // nothing was written
		return
	}
	go func() {
		defer close(p.finished)
		_, err := io.Copy(p.to, p.read)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.drain()
		}
	}()
}

// finish waits, after the program has ended, until its whole output was read.
func (p *pipe) finish() {
	_ = p.read.SetReadDeadline(time.Now()) // else the reader waits for other processes
	<-p.finished
	_ = p.read.Close() // everything was read
}

// drain reads the rest of the pipe after the program has ended, but no more than a pipe can
// hold, because other processes may go on writing.
func (p *pipe) drain() {
	const most = 1 << 20
	_ = p.read.SetReadDeadline(time.Time{}) // a pipe supports it
	conn, err := p.read.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 64<<10)
	for total := 0; total < most; {
		var n int
		var err error
		if conn.Read(func(fd uintptr) bool {
			n, err = syscall.Read(int(fd), buf)
			return true // so that it does not wait if the pipe is empty
		}) != nil || err != nil || n <= 0 {
			return
		}
		total += n
		_, _ = p.to.Write(buf[:n]) // never fails
	}
}

// A line of more than maxLine bytes keeps headOfLine bytes of its beginning and at least
// maxLine of its end, because another program may have continued the line.
const (
	maxLine    = 1 << 20
	headOfLine = 16 << 10
)

// lineWriter calls line with each whole line. If a line is longer than maxLine, a NUL may stand
// for its middle, so that it is not parsed as JSON.
type lineWriter struct {
	line   func(string)
	partly []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		w.partly = append(w.partly, line...)
		if surplus := len(w.partly) - headOfLine - maxLine; surplus > maxLine || ended && surplus > 0 {
			w.partly = slices.Delete(w.partly, headOfLine, headOfLine+surplus)
			w.partly[headOfLine] = 0
		}
		if !ended {
			break
		}
		w.line(string(w.partly))
		w.partly = w.partly[:0]
		rest = after
	}
	return len(p), nil
}
