package discover

import (
	"context"
	"maps"
	"slices"

	"github.com/org/nix-matrix/pkg/available"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/reuse"
	"github.com/org/nix-matrix/pkg/text"
)

// missing returns which derivations the entries have to build. A path that cannot be asked for, or a
// derivation that cannot be read, only makes the entries less even.
func (d *Discovery) missing(ctx context.Context, e *evaluation, p *job.Plan) (*plan.Missing, error) {
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
	from := &available.Sources{Finder: d.finder, Own: outputs, Saved: d.saved(ctx, targets)}
	switch {
	case d.Local:
		from.Store = d.Env.Store
		fallthrough
	case len(d.Env.Destinations) > 0: // skip has asked them, and no substituter
		from.Signed = d.finder.Substituted(ctx, outputs).Has
	case len(e.places) > 0:
		from.Signed = e.places[0].Has
	}
	missing, err := plan.FindMissing(ctx, targets, plan.Source{
		Derivations: func(ctx context.Context, drvs []string) ([]nix.Derivation, error) { return e.derivations(ctx, d, drvs) },
		Offered:     from.Offered,
	})
	if missing == nil {
		return nil, err
	}
	if err == nil {
		p.Missing = missing.Count()
	} else {
		d.log.Warn("Cannot find all missing derivations, so the entries may take less equal times", err)
	}
	if record := d.record(ctx); record != nil {
		missing.Weigh(func(drv, system string) float64 {
			return record.Seconds[job.TimeKey(drv, system, d.Planning.Emulates(system))]
		})
	}
	count := missing.Count()
	d.log.Printf("  %s to build, as far as is known", text.Plural(count, "derivation"))
	return missing, nil
}

// saved returns the indexes of the packs of earlier runs that the entries can restore.
func (d *Discovery) saved(ctx context.Context, targets []job.Target) []available.Saved {
	if d.docs.Cache == nil || d.Local || d.Env.Remote != "" {
		return nil
	}
	systems := map[string]bool{}
	for i := range targets {
		if targets[i].State == job.StateBuild {
			systems[targets[i].System] = true
		}
	}
	from := &reuse.Cache{Docs: d.docs, Log: d.log}
	accept := from.Accepts(d.Env.Nix, d.Access.PublicKeys)
	var all []available.Saved
	for _, system := range slices.Sorted(maps.Keys(systems)) {
		all = append(all, from.Saved(ctx, system, accept))
	}
	return all
}
