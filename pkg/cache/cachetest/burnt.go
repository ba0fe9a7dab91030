package cachetest

import (
	"context"
	"io"

	"github.com/org/nix-matrix/pkg/cache"
)

// Burnt is a cache in which a job has reserved a key and died.
type Burnt struct {
	cache.Cache
	Key string
}

// Save refuses the key, because it is taken.
func (b Burnt) Save(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if key == b.Key {
		return cache.ErrExists
	}
	return b.Cache.Save(ctx, key, body, size)
}

// Open finds nothing under the key.
func (b Burnt) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	if key == b.Key {
		return nil, cache.ErrMiss
	}
	return b.Cache.Open(ctx, key, prefixes...)
}
