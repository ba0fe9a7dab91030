package attic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// settledPerSecond is how many bytes of a NAR a slow server stores in a second once it has all
// of it: 64 chunks, say, with one insertion into a database each.
const settledPerSecond = 4 << 20

// upload is a NAR as the body of requests, one for each try.
type upload struct {
	path     *Path
	open     NAR
	preamble []byte // sent before the NAR

	mu   sync.Mutex
	last *narBody
}

func (u *upload) length() int64 { return int64(len(u.preamble)) + u.path.NarSize }

func (u *upload) again() (io.Reader, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = &narBody{upload: u, preamble: u.preamble}
	return u.last, nil
}

// failure returns the error of reading the NAR in the last try, or nil.
func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		return nil
	}
	u.last.mu.Lock()
	defer u.last.mu.Unlock()
	return u.last.err
}

// narError says that a NAR could not be read.
type narError struct{ err error }

func (e *narError) Error() string { return e.err.Error() }

func (e *narError) Unwrap() error { return e.err }

// narBody is the body of a try. It opens the NAR at the first Read, because a server
// that refuses it, or knows it, may not read it.
type narBody struct {
	upload   *upload
	preamble []byte // the unread part
	ctx      context.Context
	progress func(more time.Duration)
	read     int64 // bytes of the NAR

	mu     sync.Mutex
	nar    io.ReadCloser
	closed bool
	err    error
}

var errClosed = errors.New("the upload has ended")

// Start is of [httpcall.Body].
func (b *narBody) Start(ctx context.Context, progress func(more time.Duration)) {
	b.ctx, b.progress = ctx, progress
}

func (b *narBody) Read(p []byte) (int, error) {
	size := b.upload.path.NarSize
	if b.read == size {
		return 0, io.EOF
	}
	nar, err := b.source()
	if err != nil {
		return 0, err
	}
	b.progress(0)
	if len(b.preamble) > 0 {
		n := copy(p, b.preamble)
		b.preamble = b.preamble[n:]
		return n, nil
	}
	n, err := nar.Read(p)
	b.read += int64(n)
	if b.read == size && err == nil {
		// The end is read before the last bytes are sent, so that the server does not
		// accept a NAR that is longer, or whose reader fails at its end.
		b.progress(time.Duration(size/settledPerSecond) * time.Second)
		var more int
		more, err = io.ReadFull(nar, make([]byte, 1))
		b.read += int64(more)
	}
	end := errors.Is(err, io.EOF)
	switch {
	case b.read > size, end && b.read < size:
		return 0, b.fail(fmt.Errorf("the NAR is not the %d bytes that the store's database says. Run `nix-store --verify-path %s` to see whether the path is damaged", size, b.upload.path.StorePath))
	case err != nil && !end:
		return 0, b.fail(fmt.Errorf("cannot read the NAR: %w", err))
	}
	return n, err
}

func (b *narBody) source() (io.Reader, error) {
	b.mu.Lock()
	nar, closed := b.nar, b.closed
	b.mu.Unlock()
	switch {
	case closed:
		return nil, errClosed
	case nar != nil:
		return nar, nil
	}
	nar, err := b.upload.open(b.ctx, b.upload.path.StorePath)
	if err != nil {
		return nil, b.fail(fmt.Errorf("cannot open the NAR: %w", err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		_ = nar.Close()
		return nil, errClosed
	}
	b.nar = nar
	return nar, nil
}

// fail records an error of the source, unless the try has ended: then the error is a
// consequence.
func (b *narBody) fail(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed && b.ctx.Err() == nil {
		b.err = &narError{err}
	}
	return err
}

// Close ends the Read that is under way.
func (b *narBody) Close() error {
	b.mu.Lock()
	nar := b.nar
	b.nar, b.closed = nil, true
	b.mu.Unlock()
	if nar == nil {
		return nil
	}
	return nar.Close()
}
