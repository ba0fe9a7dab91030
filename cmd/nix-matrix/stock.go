package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/realise"
	"github.com/org/nix-matrix/pkg/store"
)

// A stock is what the store cache has for an entry, and gets of it. Whatever is wrong with
// it costs time, no more.
type stock struct {
	app    *app
	cache  cache.Cache
	how    packing
	policy store.Policy
	accept store.Acceptance
	plan   *job.Plan
	entry  *job.Entry

	loading   errgroup.Group
	index     *store.Index
	available []string // what a build takes, or wants, that need not be built
	came      map[string]bool
	alone     bool // substituters don't answer
}

// defaultPolicy is what is saved of a build: at home, a store stays as it is.
func (a *app) defaultPolicy() store.Policy {
	if a.action.Running() {
		return store.Built
	}
	return store.Off
}

// stock begins to look for what was saved; nil where nothing is to go through the cache.
func (b *builder) stock(ctx context.Context, c cache.Cache, e *job.Entry) (*stock, error) {
	policy, err := store.ParsePolicy(b.packing.policy)
	if err != nil {
		return nil, usagef("--store-cache: %w", err)
	}
	if err := b.packing.checkEngine(); err != nil {
		return nil, err
	}
	if c == nil || policy == store.Off || b.surroundings.store != "" {
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	s := &stock{app: b.app, cache: c, how: b.packing, policy: policy, entry: e}
	s.loading.Go(func() error {
		s.index = b.app.loadIndex(ctx, c, e.System)
		return nil
	})
	return s, nil
}

// restore brings what the build of the targets takes and the packs have. The error is
// the end of ctx.
func (s *stock) restore(ctx context.Context, at *site, targets []realise.Target, result *job.Result) error {
	err := s.bring(ctx, at, targets, result)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		s.app.spare("Not all was restored", err)
	}
	return nil
}

func (s *stock) bring(ctx context.Context, at *site, targets []realise.Target, result *job.Result) error {
	ctx, done := context.WithCancel(ctx) // an engine that is not used ends with it
	defer done()
	_ = s.loading.Wait()
	s.index = s.app.restorable(s.index, s.accept)
	if len(s.index.Packs) == 0 && s.policy != store.All { // which saves what the build takes, too
		return nil
	}
	s.app.show.Doing("asking what was saved of what is needed")
	wanted := make([]job.Target, len(targets))
	var own []string
	for i := range targets {
		wanted[i] = targets[i].Target
		own = slices.AppendSeq(own, maps.Values(targets[i].OutPaths))
	}
	before, err := at.nix.Valid(ctx, own...)
	if err != nil {
		return err
	}
	missing, err := plan.FindMissing(ctx, wanted, plan.Source{
		Derivations: at.nix.Derivations,
		Offered:     func(ctx context.Context, paths []string) (map[string]bool, error) { return s.offered(ctx, at, paths) },
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		s.app.warn("What is needed is not known well, so less of it is restored", err)
	}
	if missing == nil {
		return nil
	}
	s.available = missing.Available
	if len(s.index.Packs) == 0 {
		return nil
	}
	engine, err := s.how.choose(ctx, s.app, at.nix)
	if err != nil {
		return err
	}
	start := time.Now()
	from := &store.Restorer{Nix: at.nix, Engine: engine, Cache: s.cache, Index: s.index, Progress: s.app.restoring}
	got, restoring := from.Restore(ctx, slices.DeleteFunc(slices.Clone(missing.Available), func(path string) bool { return !s.index.Has(path) })...)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.app.restored(got, time.Since(start))
	result.Restored = &job.Restored{Paths: got.Paths, Size: got.Size, Read: got.Bytes, Packs: got.Packs, Lost: got.Lost}
	after, err := at.nix.Valid(ctx, own...)
	maps.DeleteFunc(after, func(path string, _ bool) bool { return before[path] })
	s.came = after
	return errors.Join(restoring, err)
}

// offered says which paths need no building: those in the store, those in packs and
// those that a substituter has.
func (s *stock) offered(ctx context.Context, at *site, paths []string) (map[string]bool, error) {
	has, err := at.nix.Valid(ctx, paths...)
	if err != nil {
		return nil, err
	}
	var ask []string
	for _, path := range paths {
		switch {
		case has[path]:
		case s.index.Has(path):
			has[path] = true
		default:
			ask = append(ask, path)
		}
	}
	if len(ask) == 0 || s.alone {
		return has, nil
	}
	offered, err := at.offered(ctx, ask)
	maps.Copy(has, offered)
	if err != nil && ctx.Err() == nil { // what the packs have is known nevertheless
		s.alone = true
		s.app.warn("What substituters have is not known, so more may be restored than needed", err)
		return has, nil
	}
	return has, err
}

// fetched tells targets that came from a pack from those that were there before.
func (s *stock) fetched(result *job.Result) {
	for i := range result.Targets {
		t := &result.Targets[i]
		if t.Outcome == job.OutcomePresent && slices.ContainsFunc(t.Outputs, func(o job.Output) bool { return s.came[o.Path] }) {
			t.Outcome = job.OutcomeFetched
		}
	}
}

// save puts what was built into the cache, and with the policy all what that took too:
// but for what another entry has built as well, and saves.
func (s *stock) save(ctx context.Context, at *site, result *job.Result) error {
	_ = s.loading.Wait()
	if !s.app.keeps() {
		return nil
	}
	s.app.show.Doing("looking for what is to be saved")
	var own, others []string
	for _, b := range result.Builds {
		saver := s.plan.Savers[b.DrvPath]
		switch {
		case b.Failed:
		case saver == "" || saver == s.entry.ID:
			own = append(own, b.DrvPath)
		default:
			others = append(others, b.DrvPath)
		}
	}
	paths, err := builtOutputs(ctx, at.nix, own)
	if err != nil {
		return err
	}
	except, err := builtOutputs(ctx, at.nix, others)
	if err != nil {
		return err
	}
	if s.policy == store.All {
		all := slices.Clone(s.available)
		for _, t := range result.Targets {
			for _, o := range t.Outputs {
				all = append(all, o.Path)
			}
		}
		valid, err := at.nix.Valid(ctx, all...)
		if err != nil {
			return err
		}
		all, err = at.nix.Requisites(ctx, slices.Collect(maps.Keys(valid))...)
		if err != nil {
			return err
		}
		paths = append(paths, all...)
	}
	var lost []string
	if result.Restored != nil {
		lost = result.Restored.Lost
	}
	fresh, err := store.New(ctx, at.nix, s.index.Without(lost...), s.policy, paths, except...)
	if err != nil || len(fresh) == 0 {
		return err
	}
	var done saved
	start := time.Now()
	var without lostPaths
	to := &store.Saver{Nix: at.nix, Cache: s.cache, ID: s.app.id, Seal: s.app.seal, Lost: without.add, Progress: func(p *store.Pack) {
		result.Saved = append(result.Saved, job.Pack{Key: p.Key, Size: p.Size, Paths: len(p.Index.Records)})
		done.add(p)
		s.app.saving(done, len(fresh))
	}}
	_, err = to.Save(ctx, fresh)
	s.app.warnLost(without)
	s.app.told(done, time.Since(start))
	return err
}

// builtOutputs are the outputs of derivations that are in the store.
func builtOutputs(ctx context.Context, n *nix.Nix, drvs []string) ([]string, error) {
	outputs, err := n.Outputs(ctx, drvs...)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, byName := range outputs {
		for _, path := range byName {
			if path != "" {
				paths = append(paths, path)
			}
		}
	}
	valid, err := n.Valid(ctx, paths...)
	return slices.Sorted(maps.Keys(valid)), err
}

// stock brings the indexes up to date with what the entries have saved, restored and
// not found.
func (r *reporter) stock(ctx context.Context, limit int64, p *job.Plan, results []*job.Result) {
	a := r.app
	if p == nil || a.cache == "" && !a.action.Running() {
		return
	}
	bySystem := map[string][]*job.Result{}
	for _, result := range results {
		entry, ok := p.EntryByID(result.Entry)
		if ok && (result.Restored != nil || len(result.Saved) > 0) {
			bySystem[entry.System] = append(bySystem[entry.System], result)
		}
	}
	if len(bySystem) == 0 || !a.keeps() {
		return
	}
	c, err := a.openCache()
	for _, system := range slices.Sorted(maps.Keys(bySystem)) {
		if c != nil && err == nil {
			err = a.mergeIndex(ctx, c, system, bySystem[system], limit)
		}
	}
	if err != nil && ctx.Err() == nil {
		a.spare("The next run won't find all that this one has saved", err)
	}
}

// unused is how old the time of use of a pack in an index may be before that is a
// reason for a new one.
const unused = 24 * time.Hour

// forgotten is after what time a pack of which nothing was needed leaves the index of
// the Actions cache, which removes it then: else the index would grow with every run that
// saves little.
const forgotten = 7 * 24 * time.Hour

func (a *app) mergeIndex(ctx context.Context, c cache.Cache, system string, results []*job.Result, limit int64) error {
	a.show.Doing("bringing the index of packs up to date")
	defer a.show.Doing("")
	ix, _, err := a.ownIndex(ctx, c, system)
	if err != nil {
		return err
	}
	var lost []string
	var saved []job.Pack
	used := map[string]bool{}
	for _, r := range results {
		saved = append(saved, r.Saved...)
		if r.Restored != nil {
			lost = append(lost, r.Restored.Lost...)
			for _, key := range r.Restored.Packs {
				used[key] = true
			}
		}
	}
	now := time.Now().UTC().Truncate(time.Second)
	changed := len(saved) > 0
	for _, p := range ix.Packs {
		changed = changed || slices.Contains(lost, p.Key)
		if used[p.Key] {
			changed = changed || now.Sub(p.Used) > unused
			p.Used = now
		}
	}
	if !changed {
		return nil
	}
	packs := make([]*store.Pack, len(saved))
	errs := make([]error, len(saved))
	var g errgroup.Group
	const atOnce = 8
	g.SetLimit(atOnce)
	for i, p := range saved {
		g.Go(func() error {
			packs[i], errs[i] = store.FindPack(ctx, c, p.Key, a.seal)
			return nil
		})
	}
	_ = g.Wait()
	packs = slices.DeleteFunc(packs, func(p *store.Pack) bool { return p == nil })
	needed := ix.Without(lost...)
	if a.inActions() {
		needed = needed.Since(now.Add(-forgotten))
	}
	merged := store.NewIndex(append(packs, needed.Packs...)...).Within(limit)
	errs = append(errs, a.keepIndex(ctx, c, system, merged))
	return errors.Join(errs...)
}
