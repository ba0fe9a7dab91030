package main

import (
	"bytes"
	"context"
	"errors"

	"github.com/org/nix-matrix/pkg/cache"
)

// newest reads the newest of the documents that were kept under keys which begin with
// prefix.
func (a *app) newest(ctx context.Context, c cache.Cache, document, prefix string, limit int64) ([]byte, error) {
	blob, err := c.Open(ctx, prefix, prefix)
	if err != nil {
		return nil, err
	}
	data, err := cache.ReadAll(ctx, blob, limit)
	if err != nil {
		return nil, err
	}
	return a.seal.Open(document+" "+prefix, data)
}

// keep keeps a document for others, under a key that begins with prefix. Sealed, it only
// opens as what it is. That there is one already is no error.
func (a *app) keep(ctx context.Context, c cache.Cache, document, prefix, suffix string, data []byte) error {
	data = a.seal.Seal(document+" "+prefix, data)
	err := c.Save(ctx, prefix+suffix, bytes.NewReader(data), int64(len(data)))
	if errors.Is(err, cache.ErrExists) {
		return nil
	}
	return err
}
