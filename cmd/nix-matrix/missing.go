package main

import (
	"context"
	"maps"
	"slices"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/store"
	"github.com/org/nix-matrix/pkg/text"
)

// missing finds out which derivations the entries have to build. What can't be asked
// or read only makes the entries less even.
func (d *discovery) missing(ctx context.Context, at *site, how *planner, e *evaluation, p *job.Plan) (*plan.Missing, error) {
	targets := p.Targets
	var outputs []string // of the targets themselves
	build := false
	for i := range targets {
		if targets[i].State == job.StateBuild {
			build = true
			outputs = slices.AppendSeq(outputs, maps.Values(targets[i].OutPaths))
		}
	}
	if !build {
		return nil, nil //nolint:nilnil // nothing is missing
	}
	o := &offers{at: at, own: outputs, saved: d.saved(ctx, at, e.source.cache, targets)}
	switch {
	case d.local:
		o.store = at.store
		fallthrough
	case len(at.to) > 0: // which skip has asked instead
		o.signed = d.substituters(ctx, at, outputs).has
	case len(e.places) > 0:
		o.signed = e.places[0].has
	}
	missing, err := plan.FindMissing(ctx, targets, plan.Source{
		Derivations: func(ctx context.Context, drvs []string) ([]nix.Derivation, error) {
			return e.derivations(ctx, at, d.packFile, drvs)
		},
		Offered: o.offered,
	})
	if missing == nil {
		return nil, err
	}
	if err == nil {
		p.Missing = missing.Count()
	} else {
		at.app.warn("How much there is to build is not known well, so the entries may be less even than they could be", err)
	}
	if record := d.record(ctx, at.app, e.source.cache); record != nil {
		missing.Weigh(func(drv, system string) float64 {
			return record.Seconds[job.TimeKey(drv, system, how.options.Emulates(system))]
		})
	}
	count := missing.Count()
	at.app.show.Printf("  %s to build, as far as is known", text.Plural(count, "derivation"))
	return missing, nil
}

// offers are what need not be built.
type offers struct {
	at     *site
	store  *nix.Nix // whose paths are there for who builds, if not nil
	saved  []*store.Index
	own    []string // outputs of the targets, of which
	signed map[string]bool
}

// saved are the indexes of what runs before this one have saved, for who builds.
func (d *discovery) saved(ctx context.Context, at *site, c cache.Cache, targets []job.Target) []*store.Index {
	if c == nil || d.local || d.surroundings.store != "" {
		return nil
	}
	systems := map[string]bool{}
	for i := range targets {
		if targets[i].State == job.StateBuild {
			systems[targets[i].System] = true
		}
	}
	accept := at.app.accepts(at.nix, d.surroundings.publicKeys)
	var all []*store.Index
	for _, system := range slices.Sorted(maps.Keys(systems)) {
		all = append(all, at.app.restorable(at.app.loadIndex(ctx, c, system), accept))
	}
	return all
}

// offered says which of the paths substituters have. Those that don't answer have nothing.
func (s *site) offered(ctx context.Context, paths []string) (map[string]bool, error) {
	from := s.answering()
	if len(paths) == 0 || len(from) == 0 {
		return nil, nil
	}
	offered, err := s.nix.Offered(ctx, paths, from...)
	if s.silent(err) {
		s.app.warn("Not all substituters can be asked", err)
		err = nil
	}
	return offered, err
}

// offered says which paths are there for who builds. Only of the targets' own
// outputs is it known whether they are signed by a trusted key.
func (o *offers) offered(ctx context.Context, paths []string) (map[string]bool, error) {
	has := map[string]bool{}
	if o.store != nil {
		valid, err := o.store.Valid(ctx, paths...)
		if err != nil {
			return nil, err
		}
		has = valid
	}
	for _, path := range paths {
		has[path] = has[path] || slices.ContainsFunc(o.saved, func(ix *store.Index) bool { return ix.Has(path) })
	}
	own := map[string]bool{}
	for _, path := range o.own {
		own[path] = true
		has[path] = has[path] || o.signed[path]
	}
	ask := slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return has[path] || own[path] })
	fetched, err := o.at.offered(ctx, ask)
	for path := range fetched {
		has[path] = has[path] || !own[path]
	}
	return has, err
}
