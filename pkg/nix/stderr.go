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

// A pipe reads all that a program writes to a stream. A pipe of package exec
// is closed some time after the program has ended, when another process still has it
// open or its reader is slow, and what was in it then is lost.
type pipe struct {
	read, write *os.File
	to          io.Writer
	finished    chan struct{}
}

// pipeTo makes a pipe of a stream of a program that is yet to be started.
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
		_ = p.read.Close() // of which nothing was read
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

// finish waits, after the program has ended, until all that it wrote was read.
func (p *pipe) finish() {
	_ = p.read.SetReadDeadline(time.Now()) // else the reader waits for other processes
	<-p.finished
	_ = p.read.Close() // of which all was read
}

// drain reads what is in the pipe. That is all that a program wrote that has ended, and
// no more than a pipe can hold, since others may go on.
func (p *pipe) drain() {
	const most = 1 << 20
	_ = p.read.SetReadDeadline(time.Time{}) // which a pipe has
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
			return true // so that it does not wait where there is nothing
		}) != nil || err != nil || n <= 0 {
			return
		}
		total += n
		_, _ = p.to.Write(buf[:n]) // which takes everything
	}
}

// maxLine is how many bytes of a line are kept at least, and headOfLine how many of its
// beginning. What ends a long line is kept, since a program may write after one that
// has left its line open.
const (
	maxLine    = 1 << 20
	headOfLine = 16 << 10
)

// lineWriter gives whole lines on. Of one that is longer than maxLine, the middle may be
// missing, which a NUL shows, so that nobody takes it for JSON.
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
