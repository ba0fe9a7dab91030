package s3

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/org/nix-matrix/pkg/cache"
)

// A bodyError is the error of a body that is to be saved. No further try helps.
type bodyError struct{ cause error }

func (e *bodyError) Error() string { return e.cause.Error() }
func (e *bodyError) Unwrap() error { return e.cause }

// A source is a body that is sent, in whatever parts and tries. It remembers its own error, which
// the client would take for one of the connection.
type source struct {
	cache.Growing
	failed atomic.Pointer[error]
}

// part returns a reader of a part.
func (s *source) part(offset, length int64) io.ReadSeeker {
	return io.NewSectionReader(s, offset, length)
}

// ReadAt is of [io.ReaderAt]. A body that ends too early is io.ErrUnexpectedEOF.
func (s *source) ReadAt(p []byte, offset int64) (int, error) {
	n, err := s.Growing.ReadAt(p, offset)
	if n == len(p) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	s.failed.CompareAndSwap(nil, &err)
	return n, err
}
