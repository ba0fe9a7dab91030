package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/org/nix-matrix/pkg/cache"
)

const (
	// maxListed is the most objects of one prefix that are looked at.
	maxListed = 1_000_000
	// listTime is the longest time of one listing, which a server can make endless.
	listTime = 5 * time.Minute
	// listings is how often a prefix is listed whose newest objects vanish meanwhile.
	listings = 3
)

func (c *scoped) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	if err := cache.CheckOpen(key, prefixes); err != nil {
		return nil, err
	}
	if err := c.denied.Load(); err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("cannot open %s: %w", key, *err)
	}
	for _, dir := range c.dirs {
		blob, err := c.find(ctx, dir, key, prefixes)
		if err == nil {
			return blob, nil
		}
		if !errors.Is(err, cache.ErrMiss) {
			err = c.named(err)
			if c.config.Credentials.Anonymous() && errors.Is(err, cache.ErrReadOnly) {
				c.denied.Store(&err) // the next request would not be answered otherwise
			}
			return nil, fmt.Errorf("cannot open %s: %w", key, err)
		}
	}
	return nil, fmt.Errorf("cannot open %s: %w", key, cache.ErrMiss)
}

// find finds a blob in one scope.
func (b *Bucket) find(ctx context.Context, dir, key string, prefixes []string) (cache.Blob, error) {
	found, err := b.get(ctx, dir, key)
	if err == nil {
		return found, nil
	}
	if !errors.Is(err, cache.ErrMiss) {
		return nil, err
	}
	for _, prefix := range prefixes {
		found, err := b.newest(ctx, dir, prefix)
		if err == nil {
			return found, nil
		}
		if !errors.Is(err, cache.ErrMiss) {
			return nil, err
		}
	}
	return nil, cache.ErrMiss
}

// get opens the object of a key, with its first bytes.
func (b *Bucket) get(ctx context.Context, dir, key string) (*blob, error) {
	found := &blob{bucket: b, name: dir + objectName(key), key: key, size: -1}
	err := found.measure(ctx)
	switch {
	case err == nil:
		return found, nil
	case isMissing(err), isStatus(err, http.StatusRequestedRangeNotSatisfiable): // an empty object is no blob
		return nil, cache.ErrMiss
	case isStatus(err, http.StatusForbidden) && answer(err).Code != codeNoBucket:
		// Without the permission to list, an object that does not exist is forbidden, too.
		return nil, b.whyForbidden(ctx, found.name, err)
	}
	return nil, err
}

// whyForbidden returns [cache.ErrMiss] if a listing shows that there is no object of a name, which was
// forbidden to read, or else the error.
func (b *Bucket) whyForbidden(ctx context.Context, name string, forbidden error) error {
	there := false
	err := b.list(ctx, name, func(o *minio.ObjectInfo) bool {
		there = o.Key == name
		return false
	})
	if err == nil && !there {
		return cache.ErrMiss
	}
	return forbidden
}

// newest opens the object of a scope that was modified last of those whose keys start with prefix.
func (b *Bucket) newest(ctx context.Context, dir, prefix string) (*blob, error) {
	for range listings {
		var all []cache.Stored
		err := b.stored(ctx, dir, prefix, func(s cache.Stored) { all = append(all, s) })
		if err != nil {
			return nil, err
		}
		slices.SortStableFunc(all, func(x, y cache.Stored) int {
			return cmp.Or(y.Saved.Compare(x.Saved), cmp.Compare(y.Key, x.Key))
		})
		const next = 4 // of those that are gone when they are opened
		for _, s := range all[:min(next, len(all))] {
			found, err := b.get(ctx, dir, s.Key)
			if !errors.Is(err, cache.ErrMiss) {
				return found, err
			}
		}
		if len(all) == 0 {
			break
		}
	}
	return nil, cache.ErrMiss
}

// stored calls a function for each blob of a scope whose key starts with prefix.
func (b *Bucket) stored(ctx context.Context, dir, prefix string, found func(cache.Stored)) error {
	return b.list(ctx, dir+objectName(prefix), func(o *minio.ObjectInfo) bool {
		key, ok := "", strings.HasPrefix(o.Key, dir)
		if ok {
			key, ok = keyOf(o.Key[len(dir):])
		}
		if ok && strings.HasPrefix(key, prefix) && cache.CheckKey(key) == nil && o.Size > 0 {
			found(cache.Stored{Key: key, Size: o.Size, Saved: o.LastModified})
		}
		return true
	})
}

// list calls a function for each object whose name starts with prefix, in the order of names, until
// it returns false.
func (b *Bucket) list(ctx context.Context, prefix string, found func(*minio.ObjectInfo) bool) error {
	last, count := "", 0
	ctx, cancel := context.WithTimeout(ctx, listTime) // also ends a listing that is not read to its end
	defer cancel()
	return b.retry(ctx, "list", func(int) error {
		for o := range b.client.ListObjectsIter(ctx, b.config.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, StartAfter: last}) {
			if o.Err != nil {
				return o.Err
			}
			if count++; count > maxListed {
				return fmt.Errorf("there are more than %d objects that begin with %s. Remove some with nix-matrix gc", maxListed, prefix)
			}
			if o.Key <= last {
				continue // a listing that begins again: not all servers know start-after
			}
			last = o.Key
			if !found(&o) {
				return nil
			}
		}
		return ctx.Err()
	})
}

// List is of [cache.Collectable].
func (c *scoped) List(ctx context.Context, prefix string) ([]cache.Stored, error) {
	var all []cache.Stored
	if err := c.stored(ctx, c.dirs[0], prefix, func(s cache.Stored) { all = append(all, s) }); err != nil {
		return nil, fmt.Errorf("cannot list %s: %w", c.config.Address, c.named(err))
	}
	return all, nil
}

// Remove is of [cache.Collectable].
func (c *scoped) Remove(ctx context.Context, key string) error {
	if err := cache.CheckKey(key); err != nil {
		return err
	}
	return c.remove(ctx, c.dirs[0]+objectName(key))
}

// remove removes an object, if there is one.
func (b *Bucket) remove(ctx context.Context, name string) error {
	err := b.retry(ctx, "remove", func(int) error {
		return b.client.RemoveObject(ctx, b.config.Bucket, name, minio.RemoveObjectOptions{})
	})
	if err != nil && !isMissing(err) {
		return fmt.Errorf("cannot remove %s: %w", name, b.named(err))
	}
	return nil
}
