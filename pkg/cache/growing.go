package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// A Growing is a blob that is still written. Bytes that are there do not change.
type Growing interface {
	io.ReaderAt
	// Grown waits until the blob has at least so many bytes, or is complete, and returns how many it has.
	Grown(ctx context.Context, least int64) (size int64, complete bool, err error)
}

// Whole returns a blob all of whose bytes are there.
func Whole(body io.ReaderAt, size int64) Growing { return whole{body, size} }

type whole struct {
	io.ReaderAt
	size int64
}

func (w whole) Grown(context.Context, int64) (int64, bool, error) { return w.size, true, nil }

// SaveGrowing is the Save of a blob that is sent while it is written. If the cache can't do that, the error is
// [errors.ErrUnsupported], and nothing has happened.
func SaveGrowing(ctx context.Context, to Cache, key string, body Growing) error {
	if g, ok := to.(growingSaver); ok {
		return g.SaveGrowing(ctx, key, body)
	}
	return fmt.Errorf("cannot save %s before it is complete: %w", key, errors.ErrUnsupported)
}

type growingSaver interface {
	SaveGrowing(ctx context.Context, key string, body Growing) error
}
