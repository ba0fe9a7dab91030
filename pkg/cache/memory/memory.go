// Package memory is a cache in the memory of one process, for documents that are small and few.
package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/org/nix-matrix/pkg/cache"
)

type memory struct {
	mu    sync.Mutex
	blobs map[string]*blob
	count int // of all that were saved
}

// New returns an empty cache. It grows with each Save, and ends with the last reference to it.
func New() cache.Cache { return &memory{blobs: map[string]*blob{}} }

// Open is of [cache.Cache].
func (m *memory) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	if err := cache.CheckOpen(key, prefixes); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if found := m.blobs[key]; found != nil {
		return found, nil
	}
	for _, prefix := range prefixes {
		if found := m.newest(prefix); found != nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("cannot open %s: %w", key, cache.ErrMiss)
}

// newest returns the last blob that was saved under a key with a prefix, nil if there is none.
func (m *memory) newest(prefix string) *blob {
	var newest *blob
	for key, b := range m.blobs {
		if strings.HasPrefix(key, prefix) && (newest == nil || b.number > newest.number) {
			newest = b
		}
	}
	return newest
}

// Save is of [cache.Cache].
func (m *memory) Save(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if err := cache.CheckSave(key, size); err != nil {
		return err
	}
	data, err := io.ReadAll(&reader{ctx, io.NewSectionReader(body, 0, size)})
	if err == nil && int64(len(data)) < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("cannot save %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blobs[key] != nil {
		return fmt.Errorf("cannot save %s: %w", key, cache.ErrExists)
	}
	m.count++
	m.blobs[key] = &blob{key: key, data: data, number: m.count}
	return nil
}

type blob struct {
	key    string
	data   []byte
	number int // greater if it was saved later
}

func (b *blob) Key() string { return b.key }
func (b *blob) Size() int64 { return int64(len(b.data)) }

func (b *blob) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	if err := errors.Join(cache.CheckRange(offset, length, b.Size()), ctx.Err()); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", b.key, err)
	}
	return io.NopCloser(&reader{ctx, bytes.NewReader(b.data[offset : offset+length])}), nil
}

// A reader fails with the context's error once that has ended.
type reader struct {
	ctx    context.Context
	source io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.source.Read(p)
}
