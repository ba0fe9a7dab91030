// Package collect removes from a cache the entries that no later run looks for.
package collect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/gc"
	"github.com/org/nix-matrix/pkg/storecache"
)

// A Cache is a cache that entries can be removed from.
type Cache interface {
	list(ctx context.Context, prefix string) ([]action.CacheEntry, error)
	remove(ctx context.Context, e action.CacheEntry) error
	// defaultRef returns the ref of the default branch, empty where there are no refs.
	defaultRef(ctx context.Context) (string, error)
	// slow reports whether there has to be a pause between two removals.
	slow() bool
}

// Actions returns the Actions cache of a repository, as GitHub's API shows it.
func Actions(api *action.GitHub) Cache { return actionsCache{api} }

type actionsCache struct{ api *action.GitHub }

func (c actionsCache) list(ctx context.Context, prefix string) ([]action.CacheEntry, error) {
	return c.api.Caches(ctx, prefix)
}

func (c actionsCache) remove(ctx context.Context, e action.CacheEntry) error {
	return c.api.RemoveCache(ctx, e)
}

func (c actionsCache) defaultRef(ctx context.Context) (string, error) {
	r, err := c.api.Repository(ctx)
	return "refs/heads/" + r.DefaultBranch, err
}

func (actionsCache) slow() bool { return true }

// Directory returns a cache in a directory.
func Directory(files cache.Collectable) Cache { return directory{files} }

type directory struct{ files cache.Collectable }

func (d directory) list(ctx context.Context, prefix string) ([]action.CacheEntry, error) {
	found, err := d.files.List(ctx, prefix)
	entries := make([]action.CacheEntry, len(found))
	for i, f := range found {
		entries[i] = action.CacheEntry{Key: f.Key, Size: f.Size, Created: f.Saved, Used: f.Saved}
	}
	return entries, err
}

func (d directory) remove(ctx context.Context, e action.CacheEntry) error {
	return d.files.Remove(ctx, e.Key)
}

func (directory) defaultRef(context.Context) (string, error) { return "", nil }

func (directory) slow() bool { return false }

// A Collector removes entries by rules.
type Collector struct {
	Docs *documents.Store
	// Open opens the cache to read the indexes that name packs. It may return nil, if it is not
	// available.
	Open   func() (cache.Cache, error)
	From   Cache
	Rules  gc.Rules // Named and DefaultRef are found out
	DryRun bool
	Pause  time.Duration // between two removals from a slow cache
	Log    Log
}

// Log is where a person sees what happens.
type Log interface {
	Doing(format string, args ...any)
	Warn(title string, err error)
}

// Run decides what becomes of each entry, and removes what is to go unless it is a dry run.
func (c *Collector) Run(ctx context.Context) (*Outcome, error) {
	c.Log.Doing("listing the cache")
	entries, err := c.From.list(ctx, c.Rules.ID+"-")
	if err != nil {
		return nil, err
	}
	if c.Rules.Budget > 0 {
		if c.Rules.DefaultRef, err = c.From.defaultRef(ctx); err != nil {
			return nil, err
		}
	}
	c.Rules.Named = c.named(ctx, entries)
	o := Outcome{DryRun: c.DryRun}
	for _, d := range gc.Decide(entries, c.Rules) {
		o.Entries = append(o.Entries, Entry{Decision: d})
	}
	if !c.DryRun {
		o.Failed = c.remove(ctx, o.Entries)
	}
	return &o, nil
}

// named returns the packs that the newest indexes name, and when they were last needed, for each ref whose
// indexes this job may and can read.
func (c *Collector) named(ctx context.Context, entries []action.CacheEntry) map[string]map[string]time.Time {
	indexes := gc.Indexes(entries, c.Rules.ID)
	if len(indexes) == 0 {
		return nil
	}
	open, err := c.opener()
	if err != nil || open == nil {
		return nil
	}
	named := map[string]map[string]time.Time{}
	unread := map[string]bool{}
	for _, e := range indexes {
		from := open(e.Ref)
		if from == nil {
			continue
		}
		ix, err := storecache.Read(ctx, from, e.Key, c.Docs.Seal)
		if err != nil {
			c.Log.Warn("Packs stay, because it is not known whether an index names them", err)
			unread[e.Ref] = true
			continue
		}
		if named[e.Ref] == nil {
			named[e.Ref] = map[string]time.Time{}
		}
		for key, needed := range ix.Needed() {
			if needed.After(e.Created) {
				needed = e.Created // what is later, the index cannot know
			}
			if !needed.Before(named[e.Ref][key]) {
				named[e.Ref][key] = needed
			}
		}
	}
	maps.DeleteFunc(named, func(ref string, _ map[string]time.Time) bool { return unread[ref] })
	return named
}

// opener returns what opens the cache of a ref, or returns nil if this job may not read it. It is nil
// if no cache is available.
func (c *Collector) opener() (open func(ref string) cache.Cache, err error) {
	if b, ok := c.From.(bucket); ok {
		return func(scope string) cache.Cache { return b.scopes.InScope(scope) }, nil
	}
	from, err := c.Open()
	if err != nil || from == nil {
		return nil, err
	}
	return func(ref string) cache.Cache {
		if ref != "" && !slices.Contains(c.Docs.Trust.Refs(), ref) {
			return nil
		}
		return from
	}, nil
}

// remove removes what is to go, and reports whether some of it could not be.
func (c *Collector) remove(ctx context.Context, all []Entry) (failed bool) {
	total := 0
	for i := range all {
		if all[i].Why != "" {
			total++
		}
	}
	done := 0
	for i := range all {
		e := &all[i]
		if e.Why == "" {
			continue
		}
		if c.From.slow() && done > 0 && !pause(ctx, c.Pause) || ctx.Err() != nil {
			return failed
		}
		done++
		c.Log.Doing("removing %d of %d", done, total)
		e.Err = c.From.remove(ctx, e.CacheEntry)
		e.Removed = e.Err == nil
		switch left := total - done; {
		case e.Removed || ctx.Err() != nil:
		case left > 0 && (errors.Is(e.Err, action.ErrForbidden) || errors.Is(e.Err, action.ErrLimited)):
			c.Log.Warn("Cannot remove all entries", fmt.Errorf("%w (%d more are left for the same reason)", e.Err, left))
			return true
		default:
			failed = true
			c.Log.Warn("Cannot remove all entries", e.Err)
		}
	}
	return failed
}

// pause reports whether it waited to the end.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
