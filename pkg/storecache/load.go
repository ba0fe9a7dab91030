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
			all[i], _, errs[i] = LoadLast(ctx, from, key, ref)
			return nil
		})
	}
	_ = g.Wait()
	ix := newIndex(shelfOf(from, key.Seal), Everything(), nil)
	for _, one := range all {
		ix.Add(one.Packs...)
	}
	return ix, errors.Join(errs...)
}

// Settled returns the index without the paths that need a pack which it does not have. The error is the end of
// the context.
func (ix *Index) Settled(ctx context.Context) (*Index, error) { return ix.settle(ctx, ix.absent()) }

// LoadLast reads the newest index of a ref, and returns it with its key. Without one the index and the key are
// empty, and with an error the index is.
func LoadLast(ctx context.Context, from cache.Cache, key IndexKey, ref string) (ix *Index, last string, err error) {
	start := key.start(indexVersion, ref)
	blob, err := from.Open(ctx, start, start, key.start(oldIndexVersion, ref))
	if err == nil {
		last = blob.Key()
	}
	if !errors.Is(err, cache.ErrMiss) {
		ix, err = read(ctx, from, blob, err, key.Seal)
	} else {
		err = nil
	}
	if ix == nil {
		ix = newIndex(shelfOf(from, key.Seal), Everything(), nil)
	}
	return ix, last, err
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

// Save saves the index as that of a ref, after the one whose key LoadLast has returned. The error is
// [cache.ErrExists] if another job has saved one after that, or is about to, or was ended before it had: with
// the number of another try, the index is saved all the same.
func (ix *Index) Save(ctx context.Context, to cache.Cache, key IndexKey, ref, last string, try int) error {
	data, err := ix.Marshal(key.Seal)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s%x.%d", key.start(indexVersion, ref), sha256.Sum256([]byte(last)), try)
	if err := to.Save(ctx, name, bytes.NewReader(data), int64(len(data))); err != nil {
		return fmt.Errorf("cannot save the index of packs: %w", err)
	}
	return nil
}
