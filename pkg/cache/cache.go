// Package cache is the contract for a cache of immutable blobs with names:
// the GitHub Actions cache service (package actions), a directory (package
// dir), and every cache that passes the suite in package cachetest.
//
// A key is written once and never again. A blob may be evicted at any time. A
// blob that is found is complete, but it comes from outside and its bytes
// deserve a checksum. A cache may look a key up in several places (the service
// looks in the scopes of the ref and of its base in turn) and may show a saved
// blob late: both look like a miss. No key should be a prefix of another one
// that is looked up exactly, because the service then may answer with the
// longer one of a nearer scope, which is a miss here.
package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

var (
	// ErrMiss says that no blob is stored under the key, or no longer.
	ErrMiss = errors.New("not in the cache")
	// ErrExists says that the key is taken: a blob is stored under it, or
	// another job has reserved it and may or may not be still at work.
	ErrExists = errors.New("the key is taken")
	// ErrReadOnly says that this cache may not be written, or not be read.
	ErrReadOnly = errors.New("the cache may not be used this way")
)

// Cache stores blobs under keys. Its methods are safe for concurrent use, and
// return soon after the context ends, with an error that wraps the context's.
// Keys and prefixes obey [CheckKey], at most [MaxPrefixes] prefixes are given.
type Cache interface {
	// Open finds the blob stored under key, else the newest whose key starts
	// with one of the prefixes, which are tried in order. Whether a key that
	// equals a prefix goes before newer ones that only start with it is up to
	// the cache. If there is none, the error is [ErrMiss].
	Open(ctx context.Context, key string, prefixes ...string) (Blob, error)

	// Save stores size bytes of body, at least one, under key. It fails with
	// [ErrExists] when the key is taken. Nothing can be opened under the key
	// before Save has returned or when it fails, but a failure may leave the key
	// taken for good: the caller tries another one.
	Save(ctx context.Context, key string, body io.ReaderAt, size int64) error
}

// LastWins reports whether several concurrent saves under one key may succeed, because the server
// does not reserve keys. Then the blob of the last one is found.
func LastWins(c Cache) bool {
	l, ok := c.(interface{ LastWins() bool })
	return ok && l.LastWins()
}

// OpenTail opens the blob of size bytes that is stored under key, of which the caller reads the last
// tail bytes first. It may take fewer requests than Open and Range. If the blob has another
// size, the error is [ErrMiss].
func OpenTail(ctx context.Context, c Cache, key string, size, tail int64) (Blob, error) {
	if t, ok := c.(tailOpener); ok {
		return t.OpenTail(ctx, key, size, tail)
	}
	blob, err := c.Open(ctx, key)
	if err == nil && blob.Size() != size {
		return nil, WrongSize(key, blob.Size(), size)
	}
	return blob, err
}

type tailOpener interface {
	OpenTail(ctx context.Context, key string, size, tail int64) (Blob, error)
}

// WrongSize returns the error about a blob of another size than expected.
func WrongSize(key string, has, want int64) error {
	return fmt.Errorf("cannot open %s: it has %d bytes instead of %d: %w", key, has, want, ErrMiss)
}

// Blob is one stored sequence of bytes. It needs no closing,
// and its methods are safe for concurrent use.
type Blob interface {
	// Key returns the key that the blob is stored under.
	Key() string

	// Size returns the number of its bytes, at least one.
	Size() int64

	// Range returns exactly length bytes from offset on. If the blob does not
	// have them, or they don't arrive, the error of Range or of the reader wraps
	// [io.ErrUnexpectedEOF]; if the blob was evicted meanwhile, it wraps
	// [ErrMiss]. The context covers the reading too.
	Range(ctx context.Context, offset, length int64) (io.ReadCloser, error)
}

// Collectable is a Cache that can list and remove its blobs, which not every
// cache can.
type Collectable interface {
	Cache
	// List returns all blobs whose keys start with prefix, in no order.
	List(ctx context.Context, prefix string) ([]Stored, error)
	// Remove removes the blob stored under key. If there is none, that is no error.
	Remove(ctx context.Context, key string) error
}

// Stored has the facts about a blob that are known without opening it.
type Stored struct {
	Key   string
	Size  int64     // bytes
	Saved time.Time // when it was
}

// ReadAll returns the whole blob. A blob of more than limit bytes is
// an error, and is not read.
func ReadAll(ctx context.Context, blob Blob, limit int64) ([]byte, error) {
	size := blob.Size()
	if size > limit {
		return nil, fmt.Errorf("cannot read %s: it has %d bytes, more than the %d allowed", blob.Key(), size, limit)
	}
	data, err := ReadRange(ctx, blob, 0, size)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", blob.Key(), err)
	}
	return data, nil
}

// ReadRange returns length bytes of a blob, which the caller has bounded, from offset on. After an error
// it returns the bytes that have arrived.
func ReadRange(ctx context.Context, from interface {
	Range(ctx context.Context, offset, length int64) (io.ReadCloser, error)
}, offset, length int64) ([]byte, error) {
	body, err := from.Range(ctx, offset, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data := make([]byte, length)
	n, err := io.ReadFull(body, data)
	return data[:n], err
}

// CheckRange returns an error unless a blob of size bytes has length bytes at offset. For
// bytes past its end the error wraps [io.ErrUnexpectedEOF].
func CheckRange(offset, length, size int64) error {
	switch {
	case offset < 0 || length < 0:
		return fmt.Errorf("range of %d bytes at %d: negative", length, offset)
	case offset > size || length > size-offset:
		return fmt.Errorf("range of %d bytes at %d in a blob of %d: %w", length, offset, size, io.ErrUnexpectedEOF)
	}
	return nil
}
