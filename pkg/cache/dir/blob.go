package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/org/nix-matrix/pkg/cache"
)

type blob struct {
	root *os.Root
	key  string
	size int64
}

func (b *blob) Key() string { return b.key }
func (b *blob) Size() int64 { return b.size }

func (b *blob) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	if err := cache.CheckRange(offset, length, b.size); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", b.key, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", b.key, err)
	}
	file, err := b.root.Open(fileName(b.key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read %s: it was removed: %w", b.key, cache.ErrMiss)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", b.key, err)
	}
	return &rangeReader{reader{ctx, io.NewSectionReader(file, offset, length), length}, file}, nil
}

type rangeReader struct {
	reader
	io.Closer
}

// reader reads left bytes of source. It fails with the context's error once that
// has ended, and with io.ErrUnexpectedEOF when source ends too early.
type reader struct {
	ctx    context.Context
	source io.Reader
	left   int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.source.Read(p)
	r.left -= int64(n)
	if errors.Is(err, io.EOF) && r.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
