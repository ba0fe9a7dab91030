package child

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

// A pipe reads everything that a program writes to a stream. Package exec closes its pipes some
// time after the program has ended if another process has them open or the reader is slow, and
// loses the rest.
type pipe struct {
	read, write *os.File
	to          io.Writer
	finished    chan struct{}
	err         error // of to
}

// openPipes makes pipes of the streams of a program that go to a writer.
func (c *Cmd) openPipes() error {
	one := same(c.Stdout, c.Stderr)
	for _, stream := range []*io.Writer{&c.Stdout, &c.Stderr} {
		if _, isFile := (*stream).(*os.File); isFile || *stream == nil {
			continue
		}
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		c.pipes = append(c.pipes, &pipe{read: read, write: write, to: *stream, finished: make(chan struct{})})
		*stream = write
		if one {
			c.Stderr = write
			break
		}
	}
	return nil
}

// same reports whether two writers are the same.
func same(a, b io.Writer) bool {
	defer func() { _ = recover() }() // they may not be comparable
	return a == b
}

// started begins to read, after the program was started or failed to.
func (p *pipe) started(err error) {
	_ = p.write.Close() // the program has its own
	if err != nil {
		_ = p.read.Close() // nothing was written
		return
	}
	go func() {
		defer close(p.finished)
		_, p.err = io.Copy(p.to, p.read)
		if errors.Is(p.err, os.ErrDeadlineExceeded) {
			p.err = p.drain()
		}
		_ = p.read.Close() // after an error of the writer, the program does not wait for it
	}()
}

// finish waits, after the program has ended, until its whole output was read, and returns the error of the
// writer.
func (p *pipe) finish() error {
	_ = p.read.SetReadDeadline(time.Now()) // else the reader waits for other processes
	<-p.finished
	return p.err
}

// drain reads the rest of the pipe after the program has ended, but no more than a pipe can
// hold, because other processes may go on writing.
func (p *pipe) drain() error {
	const most = 1 << 20
	_ = p.read.SetReadDeadline(time.Time{}) // a pipe supports it
	conn, err := p.read.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for total := 0; total < most; {
		n := 0
		_ = conn.Read(func(fd uintptr) bool { // fails only after Close
			n, _ = syscall.Read(int(fd), buf)
			return true // so that it does not wait if the pipe is empty
		})
		if n <= 0 {
			return nil
		}
		total += n
		if _, err := p.to.Write(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}
