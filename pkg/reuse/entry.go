package reuse

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/available"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/realise"
	"github.com/org/nix-matrix/pkg/storecache"
)

// An EntryCache restores the store paths that the build of one entry needs, and saves its outputs.
type EntryCache struct {
	Plan   *job.Plan
	Accept storecache.Acceptance // of store paths

	cache     *Cache
	choice    EngineChoice
	policy    storecache.Policy
	entry     *job.Entry
	loading   errgroup.Group
	index     *storecache.Index
	available []string        // paths that the build needs and that need no building
	came      map[string]bool // outputs of targets that were restored
	opened    *engine.Engine  // for hand-overs; nil until it is needed
	given     []job.Pack      // saved for the other jobs of the run
	exchanged []*storecache.Pack
	small     map[string]bool // paths that this job gave inside of documents, and saves at its end
	others    map[string]bool // paths that it took from inside of documents, which others save
}

// Entry begins to load the index of earlier runs for an entry. The caller sets Plan and Accept before it
// restores.
func (c *Cache) Entry(ctx context.Context, entry *job.Entry, policy storecache.Policy, engine EngineChoice) *EntryCache {
	e := &EntryCache{cache: c, choice: engine, policy: policy, entry: entry, small: map[string]bool{}, others: map[string]bool{}}
	e.loading.Go(func() error {
		e.index = c.load(ctx, entry.System)
		return nil
	})
	return e
}

// Restore restores the paths that the build of the targets needs and the packs have. The only error is the
// end of the context.
func (e *EntryCache) Restore(ctx context.Context, n *nix.Nix, finder *available.Finder, targets []realise.Target, result *job.Result) error {
	err := e.bring(ctx, n, finder, targets, result)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		e.cache.warn("Cannot restore all store paths", err)
	}
	return nil
}

func (e *EntryCache) bring(ctx context.Context, n *nix.Nix, finder *available.Finder, targets []realise.Target, result *job.Result) error {
	ctx, done := context.WithCancel(ctx) // ends an engine that is not used
	defer done()
	defer finder.Close()
	_ = e.loading.Wait()
	e.index = e.cache.restorable(ctx, e.index, e.Accept)
	if len(e.index.Packs) == 0 && e.policy != storecache.All { // that policy saves what the build needs, too
		return nil
	}
	e.cache.Log.Doing("looking for saved store paths")
	wanted := make([]job.Target, len(targets))
	var own []string
	for i := range targets {
		wanted[i] = targets[i].Target
		own = slices.AppendSeq(own, maps.Values(targets[i].OutPaths))
	}
	before, err := n.Valid(ctx, own...)
	if err != nil {
		return err
	}
	missing, err := plan.FindMissing(ctx, wanted, plan.Source{
		Derivations: n.Derivations,
		Offered:     e.offered(n, finder),
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		e.cache.Log.Warn("Cannot find all needed store paths, so fewer are restored", err)
	}
	if missing == nil {
		return nil
	}
	e.available = missing.Available
	if len(e.index.Packs) == 0 {
		return nil
	}
	engine, err := e.choice.Open(ctx, n, e.cache.Log)
	if err != nil {
		return err
	}
	saved := slices.DeleteFunc(slices.Clone(missing.Available), func(path string) bool { return !e.index.Has(path) })
	got, restoring := e.cache.restore(ctx, n, engine, e.index, saved)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	count(got, result)
	after, err := n.Valid(ctx, own...)
	maps.DeleteFunc(after, func(path string, _ bool) bool { return before[path] })
	e.came = after
	return errors.Join(restoring, err)
}

// offered returns the function that returns which paths need no building. After an error of the
// substituters, it asks the store and the packs only.
func (e *EntryCache) offered(n *nix.Nix, finder *available.Finder) func(context.Context, []string) (map[string]bool, error) {
	sources := &available.Sources{Finder: finder, Store: n, Saved: []available.Saved{e.index}}
	return func(ctx context.Context, paths []string) (map[string]bool, error) {
		has, err := sources.Offered(ctx, paths)
		if err == nil || has == nil || ctx.Err() != nil {
			return has, err
		}
		sources.Finder = nil
		e.cache.Log.Warn("Cannot ask substituters for store paths, so more may be restored than needed", err)
		return has, nil
	}
}

// MarkFetched marks the targets that came from a pack as fetched, since they were not in the store before.
func (e *EntryCache) MarkFetched(result *job.Result) {
	for i := range result.Targets {
		t := &result.Targets[i]
		if t.Outcome == job.OutcomePresent && slices.ContainsFunc(t.Outputs, func(o job.Output) bool { return e.came[o.Path] }) {
			t.Outcome = job.OutcomeFetched
		}
	}
}

// Save saves the outputs of the entry's builds in the cache, and with the policy all their closures too,
// without the outputs that another entry has built as well and saves.
func (e *EntryCache) Save(ctx context.Context, n *nix.Nix, result *job.Result) error {
	_ = e.loading.Wait()
	if !e.cache.Docs.Keeps() {
		return nil
	}
	e.cache.Log.Doing("looking for store paths to save")
	var own, others []string
	for _, b := range result.Builds {
		saver := e.Plan.Savers[b.DrvPath]
		switch {
		case b.Failed:
		case saver == "" || saver == e.entry.ID:
			own = append(own, b.DrvPath)
		default:
			others = append(others, b.DrvPath)
		}
	}
	paths, err := builtOutputs(ctx, n, own)
	if err != nil {
		return err
	}
	except, err := builtOutputs(ctx, n, others)
	if err != nil {
		return err
	}
	paths = slices.AppendSeq(paths, maps.Keys(e.small))
	except = slices.AppendSeq(slices.DeleteFunc(except, func(path string) bool { return e.small[path] }), maps.Keys(e.others))
	if e.policy == storecache.All {
		all := slices.Clone(e.available)
		for _, t := range result.Targets {
			for _, o := range t.Outputs {
				all = append(all, o.Path)
			}
		}
		valid, err := n.Valid(ctx, all...)
		if err != nil {
			return err
		}
		all, err = n.Requisites(ctx, slices.Collect(maps.Keys(valid))...)
		if err != nil {
			return err
		}
		paths = append(paths, all...)
	}
	var lost []string
	if result.Restored != nil {
		lost = result.Restored.Lost
	}
	result.Saved = append(result.Saved, e.given...)
	known, err := e.known(ctx, lost...)
	if err != nil {
		return err
	}
	found, err := storecache.New(ctx, n, known, e.policy, paths, except...)
	if err != nil || len(found.Fresh) == 0 {
		return err
	}
	start := time.Now()
	_, done, err := e.cache.save(ctx, n, found.Fresh, known, func(p *storecache.Pack) {
		result.Saved = append(result.Saved, job.Pack{Key: p.Key, Size: p.Size, Paths: p.Paths()})
	})
	e.cache.saved(done, time.Since(start))
	return err
}

// builtOutputs returns the valid outputs of derivations.
func builtOutputs(ctx context.Context, n *nix.Nix, drvs []string) ([]string, error) {
	outputs, err := n.ValidOutputs(ctx, drvs...)
	var paths []string
	for _, valid := range outputs {
		paths = append(paths, valid.Paths...)
	}
	slices.Sort(paths)
	return paths, err
}

// Warn warns of an error of the cache.
func (e *EntryCache) Warn(title string, err error) { e.cache.warn(title, err) }
