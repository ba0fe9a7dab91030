package nix

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/nix-community/go-nix/pkg/wire"
	"golang.org/x/sync/errgroup"
)

// unproven is what the server says of a path with neither a signature by a trusted
// key nor a content address: Nix 2.8 in the second way.
var unproven = regexp.MustCompile(`lacks a (signature by a trusted key|valid signature)`)

// AddMultiple adds paths to the store, references before what refers to them, with
// signatures and content addresses. A store that does not trust this user takes
// only what is proven by one of them; else the error is [ErrUntrusted]. The hashes
// must be base16. What is valid already stays as it is.
//
// open is called for each path, in order and after the NAR before it was read. It
// gives a reader of NarSize bytes, which the store checks against the hash. What is
// wrong with the bytes the store tells only after the last of them, so a reader that
// checks them is the first to tell. Its errors and those of open are wrapped by what
// is returned. Neither may use the connection.
//
// After an error some of the paths may be there, each of them whole, and the
// connection is closed. None is there if it is known before that one is refused.
func (d *Daemon) AddMultiple(infos []PathInfo, open func(PathInfo) (io.Reader, error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range infos {
		err := infos[i].check()
		if err == nil {
			err = d.refuses(&infos[i])
		}
		if err != nil {
			return fmt.Errorf("add to the store: %w", errors.Join(err, d.Close()))
		}
	}

	// The server may have something to say at any time. Unread, it would end up
	// waiting for us while we wait for it.
	var g errgroup.Group
	g.Go(func() error {
		for range infos {
			if err := d.messages(); err != nil {
				_ = d.in.Close() // so that nothing waits to be read by who has ended
				return err
			}
		}
		return nil
	})
	written := d.writeAll(infos, open)
	if written != nil {
		_ = d.in.Close() // without its end, the server drops the path that it is at
	}
	answered := g.Wait()

	var source *sourceError
	var told *serverError
	switch {
	case written == nil && answered == nil:
		return nil
	case errors.As(written, &source):
		return source
	case !errors.As(answered, &told):
		return fmt.Errorf("add to the store: %w", d.explain(errors.Join(written, answered, d.Close())))
	case unproven.MatchString(told.text):
		return fmt.Errorf("%w: add to the store: %w", errUntrusted, told)
	default:
		return fmt.Errorf("add to the store: %w", told)
	}
}

// A sourceError is one of what is added, not of the store.
type sourceError struct {
	path string
	err  error
}

func (e *sourceError) Error() string { return fmt.Sprintf("read the NAR of %s: %v", e.path, e.err) }

func (e *sourceError) Unwrap() error { return e.err }

// writeAll asks for an operation per path, without waiting for the answers. With
// more paths in one, Nix 2.8 would take the NAR of a path that has become valid for
// what comes after it, and all versions would tell an error only at the end of all.
func (d *Daemon) writeAll(infos []PathInfo, open func(PathInfo) (io.Reader, error)) error {
	out := bufio.NewWriterSize(frames{d.w}, 64<<10)
	for _, info := range infos {
		nar, err := open(info)
		if err != nil {
			return &sourceError{info.Path, err}
		}
		// Nothing is to be repaired, nor signatures to be checked, which a server
		// that does not trust us does nevertheless.
		var q request
		q.numbers(opAddMultipleToStore, 0, 1)
		if _, err := q.WriteTo(d.w); err != nil {
			return err
		}
		q.numbers(1) // path
		q.texts(info.Path, info.Deriver, info.NarHash)
		q.list(info.References)
		q.numbers(0, uint64(info.NarSize), 0) //nolint:gosec // a size; registered now, not built here
		q.list(info.Signatures)
		q.texts(info.CA)
		if _, err := q.WriteTo(out); err != nil {
			return err
		}
		from := &narSource{r: nar, left: info.NarSize}
		_, err = io.Copy(out, from)
		if from.err != nil {
			return &sourceError{info.Path, from.err}
		}
		if err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
		if err := wire.WriteUint64(d.w, 0); err != nil { // no more frames
			return err
		}
	}
	return d.w.Flush()
}

// narSource reads exactly so many bytes, and remembers why it could not.
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

// frames writes each piece with its length before it.
type frames struct{ w io.Writer }

func (f frames) Write(p []byte) (int, error) {
	if err := wire.WriteUint64(f.w, uint64(len(p))); err != nil {
		return 0, err
	}
	return f.w.Write(p)
}
