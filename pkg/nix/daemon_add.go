package nix

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/nix-community/go-nix/pkg/wire"
	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

// unproven matches the server's message about a path with neither a signature by a trusted
// key nor a content address; the second form is that of Nix 2.8.
var unproven = lazyregexp.New(`lacks a (signature by a trusted key|valid signature)`)

// AddMultiple adds paths to the store with signatures and content addresses. The references of
// a path come before it, or are valid. A store that does not trust this user accepts only paths
// that one of them proves; else the error is [ErrUntrusted]. The hashes must be base16. Valid
// paths stay as they are.
//
// open is called for each path, in order and after the previous NAR was read. It returns a
// reader of NarSize bytes, which the store checks against the hash. The store reports damage
// only after the last byte, so a reader that checks the bytes itself reports it first. The
// returned error wraps those of the reader and of open. Neither may use the connection.
//
// After an error some of the paths may be valid, each of them whole, and the connection is
// closed. If a refusal is known beforehand, no path is added.
func (d *Daemon) AddMultiple(infos []PathInfo, open func(PathInfo) (io.Reader, error)) error {
	for i := range infos {
		if err := d.mayAdd(&infos[i]); err != nil {
			return fmt.Errorf("cannot add to the store: %w", errors.Join(err, d.Close()))
		}
	}
	i := 0
	return d.AddStream(func() (PathInfo, io.Reader, error) {
		if i == len(infos) {
			return PathInfo{}, nil, io.EOF
		}
		info := infos[i]
		i++
		nar, err := open(info)
		return info, nar, err
	}, func(PathInfo) {})
}

// mayAdd returns an error if it is known beforehand that the path can't be added.
func (d *Daemon) mayAdd(info *PathInfo) error {
	if err := info.check(); err != nil {
		return err
	}
	return d.refuses(info)
}

// unanswered is how many paths may be written before the store has answered the first.
const unanswered = 256

// An addition is an operation that the server is to answer.
type addition struct {
	info     PathInfo
	answered chan struct{} // closed when the server has answered, or will not
}

// AddStream adds paths like [Daemon.AddMultiple], as next returns them, until its error is [io.EOF]. It
// does not wait for the store's answers in between. added is called for each path that the store has, in
// order and side by side with next. The returned error wraps that of next.
func (d *Daemon) AddStream(next func() (PathInfo, io.Reader, error), added func(PathInfo)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	// The server may send messages at any time. If nobody read them, both sides would wait for
	// each other.
	begun := make(chan addition, unanswered)
	var g errgroup.Group
	g.Go(func() (err error) {
		for a := range begun {
			if err == nil { // else only the writer is not to wait
				err = d.messages()
				if err == nil {
					added(a.info)
				} else {
					_ = d.in.Close() // so that the writer does not wait for a reader that has ended
				}
			}
			close(a.answered)
		}
		return err
	})
	last, written := d.writeAll(next, begun)
	close(begun)
	if written != nil {
		_ = d.w.Flush()
		if last != nil {
			<-last // the server may drop all that it has not answered
		}
		_ = d.in.Close() // it drops a path without its end
	}
	answered := g.Wait()

	var source *sourceError
	var refusal *serverError
	switch {
	case written == nil && answered == nil:
		return nil
	case errors.As(written, &source):
		return source
	case !errors.As(answered, &refusal):
		return fmt.Errorf("cannot add to the store: %w", d.explain(errors.Join(written, answered, d.Close())))
	case unproven().MatchString(refusal.text):
		return fmt.Errorf("%w: cannot add to the store: %w", errUntrusted, refusal)
	default:
		return fmt.Errorf("cannot add to the store: %w", refusal)
	}
}

// A sourceError is an error of a NAR that is added, not of the store.
type sourceError struct {
	path string
	err  error
}

func (e *sourceError) Error() string {
	if e.path == "" { // which is not known
		return e.err.Error()
	}
	return fmt.Sprintf("cannot read the NAR of %s: %v", e.path, e.err)
}

func (e *sourceError) Unwrap() error { return e.err }

// writeAll sends one operation per path, without waiting for the answers. With several paths in
// one operation, Nix 2.8 would parse the NAR of a path that has become valid meanwhile as the
// next path, and all versions would report an error only at the end. It tells of each path before it
// writes it, and returns what is closed when the last whole one is answered.
func (d *Daemon) writeAll(next func() (PathInfo, io.Reader, error), begun chan<- addition) (last <-chan struct{}, err error) {
	out := bufio.NewWriterSize(frames{d.w}, 64<<10)
	for {
		info, nar, err := next()
		if errors.Is(err, io.EOF) {
			return last, d.w.Flush()
		}
		if err != nil {
			return last, &sourceError{info.Path, err}
		}
		if err := d.mayAdd(&info); err != nil {
			return last, err
		}
		a := addition{info, make(chan struct{})}
		select {
		case begun <- a:
		default: // the store may wait for what is still here
			if err := d.w.Flush(); err != nil {
				return last, err
			}
			begun <- a
		}
		if err := d.write(out, &info, nar); err != nil {
			return last, err
		}
		last = a.answered
	}
}

// write sends the operation that adds a path. out writes frames.
func (d *Daemon) write(out *bufio.Writer, info *PathInfo, nar io.Reader) error {
	// The numbers are to repair (no) and not to check signatures (yes). A server that does
	// not trust us checks them all the same.
	var q request
	q.numbers(opAddMultipleToStore, 0, 1)
	if _, err := q.WriteTo(d.w); err != nil {
		return err
	}
	q.numbers(1) // path
	q.texts(info.Path, info.Deriver, info.NarHash)
	q.list(info.References)
	q.numbers(0, uint64(info.NarSize), 0) //nolint:gosec // a size; before it the time of registration, after it whether it was built here
	q.list(info.Signatures)
	q.texts(info.CA)
	if _, err := q.WriteTo(out); err != nil {
		return err
	}
	from := &narSource{r: nar, left: info.NarSize}
	_, err := io.Copy(out, from)
	if from.err != nil {
		return &sourceError{info.Path, from.err}
	}
	if err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return wire.WriteUint64(d.w, 0) // no more frames
}

// narSource reads exactly left bytes and remembers the error if it can't.
type narSource struct {
	r    io.Reader
	left int64
	err  error
}

func (s *narSource) Read(p []byte) (int, error) {
	switch {
	case s.err != nil:
		return 0, s.err
	case s.left == 0:
		return 0, io.EOF
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && s.left > 0:
		s.err = io.ErrUnexpectedEOF
	case err != nil && !errors.Is(err, io.EOF):
		s.err = err
	}
	return n, s.err
}

// frames writes each piece after its length.
type frames struct{ w io.Writer }

func (f frames) Write(p []byte) (int, error) {
	if err := wire.WriteUint64(f.w, uint64(len(p))); err != nil {
		return 0, err
	}
	return f.w.Write(p)
}
