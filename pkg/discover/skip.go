package discover

import (
	"context"
	"maps"
	"slices"

	"github.com/org/nix-matrix/pkg/available"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/push"
)

// skip skips the targets whose outputs are available, and returns the places that were asked.
func (d *Discovery) skip(ctx context.Context, targets []job.Target) ([]*available.Place, error) {
	var paths []string
	for _, t := range targets {
		if t.State == job.StateBuild {
			paths = slices.AppendSeq(paths, maps.Values(t.OutPaths))
		}
	}
	if len(paths) == 0 {
		return nil, nil
	}
	var places []*available.Place
	switch {
	case len(d.Env.Destinations) > 0:
		for i := range d.Env.Destinations {
			places = append(places, d.destination(ctx, &d.Env.Destinations[i], paths))
		}
	case d.Local:
	default:
		places = append(places, d.finder.Substituted(ctx, paths))
	}
	if d.Local {
		valid, err := d.Env.Store.Valid(ctx, paths...)
		if err != nil {
			return nil, err
		}
		places = append(places, &available.Place{Name: "in the store", Has: valid})
	}
	for i := range targets {
		t := &targets[i]
		if t.State == job.StateBuild && everywhere(t, places) {
			t.State, t.Available = job.StateSkip, true
			t.Reason = places[0].Name
		}
	}
	return places, nil
}

// destination asks a binary cache that is pushed to. Without known public keys, signatures do not count.
func (d *Discovery) destination(ctx context.Context, to *push.Destination, paths []string) *available.Place {
	address := to.Substituter
	if to.Missing() { // Open has warned of it
		address = ""
	}
	return d.finder.Destination(ctx, to.Name, address, len(to.PublicKeys) > 0, paths)
}

// everywhere reports whether each place has all outputs of a target. A target without known paths is
// nowhere.
func everywhere(t *job.Target, places []*available.Place) bool {
	if !t.HasPaths() || len(places) == 0 {
		return false
	}
	for _, output := range t.Outputs {
		for _, p := range places {
			if !p.Has[t.OutPaths[output]] {
				return false
			}
		}
	}
	return true
}
