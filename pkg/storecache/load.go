package storecache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
)

// An IndexKey has the parts of an index's key that don't depend on the run.
type IndexKey struct {
	ID     string
	System string // of the paths, such as x86_64-linux
	Seal   *pack.Key
}

// start returns the prefix of the keys of a ref's indexes. A ref is such as refs/heads/main.
func (k IndexKey) start(version int, ref string) string {
	return fmt.Sprintf("%s%d+%s+%s+%s+", job.IndexPrefix(k.ID), version, k.Seal.Fingerprint(), cache.Escape(k.System), shortRef(ref))
}

// longRef is the most bytes of a ref in a key. A longer ref is replaced by its hash.
const longRef = 240

func shortRef(ref string) string {
	escaped := cache.Escape(ref)
	if len(escaped) > longRef {
		return fmt.Sprintf("%x", sha256.Sum256([]byte(ref)))
	}
	return escaped
}

// Load reads the newest index of each of the refs like LoadAll, and returns it settled.
func Load(ctx context.Context, from cache.Cache, key IndexKey, refs ...string) (*Index, error) {
	ix, err := LoadAll(ctx, from, key, refs...)
	settled, serr := ix.Settled(ctx)
	if serr != nil {
		return ix, errors.Join(err, serr)
	}
	return settled, err
}

// LoadAll reads the newest index of each of the refs, the nearest first, and returns all as
// one, which may be empty. The error, which is returned with it, has those that could not be
// read.
func LoadAll(ctx context.Context, from cache.Cache, key IndexKey, refs ...string) (*Index, error) {
	all := make([]*Index, len(refs))
	errs := make([]error, len(refs))
	var g errgroup.Group
	for i, ref := range refs {
		g.Go(func() error {
			all[i], errs[i] = load(ctx, from, key, ref)
			return nil
		})
	}
	_ = g.Wait()
	ix := newIndex(shelfOf(from, key.Seal), Everything(), nil)
	for _, one := range all {
		if one != nil {
			ix.Add(one.Packs...)
		}
	}
	return ix, errors.Join(errs...)
}

// Settled returns the index without the paths that need a pack which it does not have. The error is the end of
// the context.
func (ix *Index) Settled(ctx context.Context) (*Index, error) { return ix.settle(ctx, ix.absent()) }

func load(ctx context.Context, from cache.Cache, key IndexKey, ref string) (*Index, error) {
	start := key.start(indexVersion, ref)
	blob, err := from.Open(ctx, start, start, key.start(oldIndexVersion, ref))
	if errors.Is(err, cache.ErrMiss) {
		return nil, nil //nolint:nilnil // a cache miss is no error
	}
	return read(ctx, from, blob, err, key.Seal)
}

// Read reads the index with a key.
func Read(ctx context.Context, from cache.Cache, key string, seal *pack.Key) (*Index, error) {
	blob, err := from.Open(ctx, key)
	return read(ctx, from, blob, err, seal)
}

func read(ctx context.Context, from cache.Cache, blob cache.Blob, err error, seal *pack.Key) (*Index, error) {
	if err != nil {
		return nil, fmt.Errorf("cannot load the index of packs: %w", err)
	}
	data, err := cache.ReadAll(ctx, blob, maxStoredIndex)
	if err != nil {
		return nil, fmt.Errorf("cannot load the index of packs: %w", err)
	}
	ix, err := ParseIndex(data, from, seal)
	if err != nil {
		return nil, fmt.Errorf("cannot load the index of packs %s: %w", blob.Key(), err)
	}
	return ix, nil
}

// Save saves the index as that of a ref. run is a name that no other run has.
func (ix *Index) Save(ctx context.Context, to cache.Cache, key IndexKey, ref, run string) error {
	data, err := ix.Marshal(key.Seal)
	if err != nil {
		return err
	}
	_, err = cache.SaveOnce(ctx, to, func(try int) string {
		return fmt.Sprintf("%s%s.%d", key.start(indexVersion, ref), cache.Escape(run), try)
	}, bytes.NewReader(data), int64(len(data)), func(blob cache.Blob) bool {
		found, err := cache.ReadAll(ctx, blob, int64(len(data)))
		return err == nil && bytes.Equal(found, data)
	})
	if err != nil {
		return fmt.Errorf("cannot save the index of packs: %w", err)
	}
	return nil
}
