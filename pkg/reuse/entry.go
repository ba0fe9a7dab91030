package reuse

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/available"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/realise"
	"github.com/org/nix-matrix/pkg/storecache"
)

// An EntryCache restores what the build of one entry takes, and saves what it has built.
type EntryCache struct {
	Plan   *job.Plan
	Accept storecache.Acceptance // of store paths

	cache     *Cache
	engine    EngineChoice
	policy    storecache.Policy
	entry     *job.Entry
	loading   errgroup.Group
	index     *storecache.Index
	available []string        // what a build takes, or wants, that need not be built
	came      map[string]bool // outputs of targets that were restored
}

// Entry begins to look for what earlier runs have saved for an entry. Plan and Accept are set before
// anything is restored.
func (c *Cache) Entry(ctx context.Context, entry *job.Entry, policy storecache.Policy, engine EngineChoice) *EntryCache {
	e := &EntryCache{cache: c, engine: engine, policy: policy, entry: entry}
	e.loading.Go(func() error {
		e.index = c.load(ctx, entry.System)
		return nil
	})
	return e
}

// Restore brings what the build of the targets takes and the packs have. The error is
// the end of ctx.
func (e *EntryCache) Restore(ctx context.Context, n *nix.Nix, finder *available.Finder, targets []realise.Target, result *job.Result) error {
	err := e.bring(ctx, n, finder, targets, result)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		e.cache.warn("Not all was restored", err)
	}
	return nil
}

func (e *EntryCache) bring(ctx context.Context, n *nix.Nix, finder *available.Finder, targets []realise.Target, result *job.Result) error {
	ctx, done := context.WithCancel(ctx) // an engine that is not used ends with it
	defer done()
	_ = e.loading.Wait()
	e.index = e.cache.restorable(e.index, e.Accept)
	if len(e.index.Packs) == 0 && e.policy != storecache.All { // which saves what the build takes, too
		return nil
	}
	e.cache.Log.Doing("asking what was saved of what is needed")
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
		e.cache.Log.Warn("What is needed is not known well, so less of it is restored", err)
	}
	if missing == nil {
		return nil
	}
	e.available = missing.Available
	if len(e.index.Packs) == 0 {
		return nil
	}
	engine, err := e.engine.Open(ctx, n, e.cache.Log)
	if err != nil {
		return err
	}
	start := time.Now()
	from := &storecache.Restorer{Nix: n, Engine: engine, Cache: e.cache.Docs.Cache, Index: e.index, Progress: e.cache.restoring}
	got, restoring := from.Restore(ctx, slices.DeleteFunc(slices.Clone(missing.Available), func(path string) bool { return !e.index.Has(path) })...)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e.cache.restored(got, time.Since(start))
	result.Restored = &job.Restored{Paths: got.Paths, Size: got.Size, Read: got.Bytes, Packs: got.Packs, Lost: got.Lost}
	after, err := n.Valid(ctx, own...)
	maps.DeleteFunc(after, func(path string, _ bool) bool { return before[path] })
	e.came = after
	return errors.Join(restoring, err)
}

// offered returns the function that tells which paths need no building. Once substituters cannot be
// asked, what the store and the packs have is all.
func (e *EntryCache) offered(n *nix.Nix, finder *available.Finder) func(context.Context, []string) (map[string]bool, error) {
	sources := &available.Sources{Finder: finder, Store: n, Saved: []available.Saved{e.index}}
	return func(ctx context.Context, paths []string) (map[string]bool, error) {
		has, err := sources.Offered(ctx, paths)
		if err == nil || has == nil || ctx.Err() != nil {
			return has, err
		}
		sources.Finder = nil
		e.cache.Log.Warn("What substituters have is not known, so more may be restored than needed", err)
		return has, nil
	}
}

// MarkFetched tells targets that came from a pack from those that were in the store before.
func (e *EntryCache) MarkFetched(result *job.Result) {
	for i := range result.Targets {
		t := &result.Targets[i]
		if t.Outcome == job.OutcomePresent && slices.ContainsFunc(t.Outputs, func(o job.Output) bool { return e.came[o.Path] }) {
			t.Outcome = job.OutcomeFetched
		}
	}
}

// Save puts what was built into the cache, and with the policy all what that took too:
// but for what another entry has built as well, and saves.
func (e *EntryCache) Save(ctx context.Context, n *nix.Nix, result *job.Result) error {
	_ = e.loading.Wait()
	if !e.cache.Docs.Keeps() {
		return nil
	}
	e.cache.Log.Doing("looking for what is to be saved")
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
	fresh, err := storecache.New(ctx, n, e.index.Without(lost...), e.policy, paths, except...)
	if err != nil || len(fresh) == 0 {
		return err
	}
	var done Saved
	start := time.Now()
	var without lostPaths
	to := &storecache.Saver{Nix: n, Cache: e.cache.Docs.Cache, ID: e.cache.Docs.ID, Seal: e.cache.Docs.Seal, Lost: without.add, Progress: func(p *storecache.Pack) {
		result.Saved = append(result.Saved, job.Pack{Key: p.Key, Size: p.Size, Paths: len(p.Index.Records)})
		done.add(p)
		e.cache.saving(&done, len(fresh))
	}}
	_, err = to.Save(ctx, fresh)
	e.cache.warnLost(without)
	e.cache.saved(&done, time.Since(start))
	return err
}

// builtOutputs returns the outputs of derivations that are in the store.
func builtOutputs(ctx context.Context, n *nix.Nix, drvs []string) ([]string, error) {
	outputs, err := n.ValidOutputs(ctx, drvs...)
	var paths []string
	for _, valid := range outputs {
		paths = append(paths, valid.Paths...)
	}
	slices.Sort(paths)
	return paths, err
}

// Warn tells what the cache has failed to do.
func (e *EntryCache) Warn(title string, err error) { e.cache.warn(title, err) }
