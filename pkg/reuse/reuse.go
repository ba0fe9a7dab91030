// Package reuse keeps store paths from one run to the next in a cache, for our builds and for a user's own:
// it restores those of earlier runs, and saves those of this one. It decides which paths a job may restore, and where it may save. Errors of
// the cache cost time and nothing else.
package reuse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/httpcall"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/storecache"
	"github.com/org/nix-matrix/pkg/text"
)

// A Cache has the store paths of earlier runs.
type Cache struct {
	Docs *documents.Store // with the cache, the sealing key and the trust of the job
	Log  Log
}

// Log is where a person sees what happens.
type Log interface {
	Doing(format string, args ...any)
	Printf(format string, args ...any)
	Warn(title string, err error)
}

// Accepts returns which store paths of the cache this job restores.
func (c *Cache) Accepts(n *nix.Nix, keys []string) storecache.Acceptance {
	if c.Docs.Trust.AcceptsUnsigned() {
		return storecache.Everything()
	}
	return storecache.Proven(slices.Concat(keys, n.Setting("trusted-public-keys"))...)
}

// OnlyProven is the reason why a path is not restored, and the remedy.
const OnlyProven = "a proposal restores nothing else on a runner that GitHub does not host, because its author can write to the cache; set encryption_key to seal the cache"

// restorable returns the part of an index that is accepted.
func (c *Cache) restorable(ctx context.Context, ix *storecache.Index, accepts storecache.Acceptance) *storecache.Index {
	ix, refused, err := ix.Accepting(ctx, accepts)
	if err != nil { // the context has ended, which the caller finds out
		return ix
	}
	if refused > 0 {
		c.Log.Printf("left out %s of the cache with neither a content address nor a signature by a trusted key: %s",
			text.Plural(refused, "store path"), OnlyProven)
	}
	return ix
}

// indexKey returns the key of the indexes of a system.
func (c *Cache) indexKey(system string) storecache.IndexKey {
	return storecache.IndexKey{ID: c.Docs.ID, System: system, Seal: c.Docs.Seal}
}

// load returns the newest indexes of the refs that this job reads. An index that cannot be read costs time
// and nothing else.
func (c *Cache) load(ctx context.Context, system string) *storecache.Index {
	ix, err := storecache.Load(ctx, c.Docs.Cache, c.indexKey(system), c.Docs.Trust.Refs()...)
	if err != nil && ctx.Err() == nil {
		c.warn("Cannot read all indexes of saved packs", err)
	}
	return ix
}

// Saved returns the index of the packs whose paths this job restores.
func (c *Cache) Saved(ctx context.Context, system string, accept storecache.Acceptance) *storecache.Index {
	return c.restorable(ctx, c.load(ctx, system), accept)
}

// index returns the index of this ref, which updateIndex replaces, together with those of the refs that this one
// merges into. Each ref has an index of its own: none names the packs of another
// ref, so none can evict them. An index that cannot be read for a passing reason is an error, because its
// replacement would hide its packs for good.
func (c *Cache) index(ctx context.Context, system string) (*storecache.Index, error) {
	own, _, err := c.lastIndex(ctx, system)
	if err != nil {
		return nil, err
	}
	base, err := storecache.LoadAll(ctx, c.Docs.Cache, c.indexKey(system), c.Docs.Trust.Refs()[1:]...)
	if err := hides(err); err != nil {
		return nil, err
	}
	return own.Join(base.Packs...).Settled(ctx) // own is as it was stored: its packs lean on those of the base
}

// lastIndex returns the index of this ref, and its key.
func (c *Cache) lastIndex(ctx context.Context, system string) (own *storecache.Index, key string, err error) {
	own, key, err = storecache.LoadLast(ctx, c.Docs.Cache, c.indexKey(system), c.Docs.Trust.Refs()[0])
	return own, key, hides(err)
}

// hides returns an error if there may be an index that could not be read.
func hides(err error) error {
	if err == nil || errors.Is(err, pack.ErrCorrupt) || errors.Is(err, pack.ErrSeal) || errors.Is(err, cache.ErrReadOnly) {
		return nil
	}
	return fmt.Errorf("cannot read the index of earlier runs, so nothing is saved that could hide their packs: %w", err)
}

const (
	// updateTries is how often an index is updated that other jobs replace at the same time.
	updateTries = 30
	updatePause = 200 * time.Millisecond
	// patience is how often the index after another is looked for until its key counts as lost, because the job
	// that was about to save it was ended.
	patience = 5
)

// updateIndex updates the index of this ref, if that is worth it. Of jobs that do so at the same time, one after
// the other succeeds, and each adds to what the one before has saved.
func (c *Cache) updateIndex(ctx context.Context, system string, u storecache.Update) error {
	var before string
	same := 0 // how often the newest index was the same
	for range updateTries {
		newest, last, err := c.lastIndex(ctx, system)
		if err != nil {
			return err
		}
		if same++; last != before {
			before, same = last, 0
		}
		updated, changed, err := newest.Update(ctx, u)
		if err != nil || !changed {
			return err
		}
		err = updated.Save(ctx, c.Docs.Cache, c.indexKey(system), c.Docs.Trust.Refs()[0], last, same/patience)
		if !errors.Is(err, cache.ErrExists) {
			return err
		}
		if err := httpcall.Sleep(ctx, updatePause); err != nil {
			return err
		}
	}
	return errors.New("cannot save the index of packs, because other jobs replace it all the time")
}

// WarnCache warns of an error of the cache. A job that may not use it, as one of a pull request from a
// fork, gets a line in the log and no warning on the run's page.
func WarnCache(log Log, title string, err error) {
	if errors.Is(err, cache.ErrReadOnly) {
		log.Printf("%s: this job may not use the cache this way, which is so for a pull request from a fork", title)
		return
	}
	log.Warn(title, err)
}

func (c *Cache) warn(title string, err error) { WarnCache(c.Log, title, err) }

// restore restores paths that an index has, and logs how many.
func (c *Cache) restore(ctx context.Context, n *nix.Nix, by engine.Engine, ix *storecache.Index, paths []string) (storecache.Restored, error) {
	return c.restoreFrom(ctx, c.Docs.Cache, n, by, ix, paths)
}

// restoreFrom is restore from the packs of another cache.
func (c *Cache) restoreFrom(ctx context.Context, packs cache.Cache, n *nix.Nix, by engine.Engine, ix *storecache.Index, paths []string) (storecache.Restored, error) {
	start := time.Now()
	from := &storecache.Restorer{Nix: n, Engine: by, Cache: packs, Index: ix, Progress: c.restoring}
	got, err := from.Restore(ctx, paths...)
	if got.Fetched.Paths > 0 {
		c.Log.Printf("fetched %s (%s) from substituters", text.Plural(got.Fetched.Paths, "store path"), text.Size(got.Fetched.Bytes))
	}
	if got.Paths > 0 {
		c.Log.Printf("restored %s (%s) from %s, %s read, in %s", text.Plural(got.Paths, "store path"), text.Size(got.Size),
			text.Plural(len(got.Packs), "pack"), text.Size(got.Bytes), text.Duration(time.Since(start)))
	}
	return got, err
}

// restoring shows the progress of a restore.
func (c *Cache) restoring(done storecache.Restored) {
	if done.Paths == 0 {
		c.Log.Doing("fetching from substituters: %d paths, %s", done.Fetched.Paths, text.Size(done.Fetched.Bytes))
		return
	}
	c.Log.Doing("restoring: %d paths, %s", done.Paths, text.Size(done.Size))
}

// Saved counts the store paths that were saved.
type Saved struct {
	Paths int      `json:"paths"`
	Size  int64    `json:"size"` // bytes of packs
	Packs []string `json:"packs"`
}

func (s *Saved) add(p *storecache.Pack) {
	s.Paths += p.Paths()
	s.Size += p.Size
	s.Packs = append(s.Packs, p.Key)
}

// saving shows the progress of a save.
func (c *Cache) saving(done *Saved, of int) {
	c.Log.Doing("saving: %d of %d store paths, %s", done.Paths, of, text.Size(done.Size))
}

// saved logs the result of a save.
func (c *Cache) saved(done *Saved, took time.Duration) {
	if done.Paths > 0 {
		c.Log.Printf("saved %s (%s) in %s, in %s", text.Plural(done.Paths, "store path"), text.Size(done.Size),
			text.Plural(len(done.Packs), "pack"), text.Duration(took))
	}
}

// save saves store paths as packs and counts them, without contents that the packs of base have. each gets the
// packs one by one.
func (c *Cache) save(ctx context.Context, n *nix.Nix, fresh []nix.PathInfo, base *storecache.Index, each func(*storecache.Pack)) ([]*storecache.Pack, *Saved, error) {
	done := &Saved{Packs: []string{}}
	var lost lostPaths
	to := &storecache.Saver{Nix: n, Cache: c.Docs.Cache, ID: c.Docs.ID, Seal: c.Docs.Seal, Base: base, Lost: lost.add, Progress: func(p *storecache.Pack) {
		done.add(p)
		each(p)
		c.saving(done, len(fresh))
	}}
	packs, err := to.Save(ctx, fresh)
	c.warnLost(lost)
	return packs, done, err
}

// lostPaths are the store paths that a save leaves out, each with its cause.
type lostPaths []string

func (l *lostPaths) add(path string, why error) { *l = append(*l, fmt.Sprintf("%s: %v", path, why)) }

func (c *Cache) warnLost(lost lostPaths) {
	const most = 5
	if len(lost) == 0 {
		return
	}
	text := strings.Join(lost[:min(len(lost), most)], "; ")
	if more := len(lost) - most; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	c.Log.Warn("Some store paths are not saved", errors.New(text))
}
