package main

import (
	"context"
	"maps"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push"
)

// skip marks the targets that there is nothing to do for. It gives the places that
// were asked.
func (d *discovery) skip(ctx context.Context, at *site, targets []job.Target) ([]place, error) {
	var paths []string
	for _, t := range targets {
		if t.State == job.Build {
			paths = slices.AppendSeq(paths, maps.Values(t.OutPaths))
		}
	}
	if len(paths) == 0 {
		return nil, nil
	}
	var places []place
	switch {
	case len(at.to) > 0:
		for i := range at.to {
			places = append(places, d.destination(ctx, at, &at.to[i], paths))
		}
	case d.local:
	default:
		places = append(places, d.substituters(ctx, at, paths))
	}
	if d.local {
		valid, err := at.store.Valid(ctx, paths...)
		if err != nil {
			return nil, err
		}
		places = append(places, place{"in the store", valid})
	}
	for i := range targets {
		t := &targets[i]
		if t.State == job.Build && everywhere(t, places) {
			t.State, t.Available = job.Skip, true
			t.Reason = places[0].name
		}
	}
	return places, nil
}

// A place is where paths may be already.
type place struct {
	name string
	has  map[string]bool
}

// destination asks a destination what it has. That it can't be asked only costs
// time.
func (d *discovery) destination(ctx context.Context, at *site, to *push.Destination, paths []string) place {
	p := place{"at " + to.Name, map[string]bool{}}
	if to.Substituter == "" || to.Missing() { // of the first it has been told why
		return p
	}
	// Where nobody has said which key is to be there, none is looked for.
	if err := p.add(ctx, at.nix, paths, to.Substituter, len(to.PublicKeys) > 0); err != nil && ctx.Err() == nil {
		at.app.warn("What is at "+to.Name+" already is not known, so all is built", err)
	}
	return p
}

// substituters asks all that Nix fetches from. What one of them has nobody needs to
// build.
func (d *discovery) substituters(ctx context.Context, at *site, paths []string) place {
	p := place{"offered by a substituter", map[string]bool{}}
	for _, substituter := range at.substituters() {
		missing := slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return p.has[path] })
		if err := p.add(ctx, at.nix, missing, substituter, true); err != nil && ctx.Err() == nil {
			at.app.warn("What "+nix.Redact(substituter)+" has is not known", err)
		}
	}
	return p
}

// add notes what a substituter has, signed by a trusted key if it is to be.
func (p *place) add(ctx context.Context, n *nix.Nix, paths []string, substituter string, signed bool) error {
	if len(paths) == 0 {
		return nil
	}
	has, err := n.Offered(ctx, paths, substituter)
	if err == nil && signed && len(has) > 0 {
		has, err = n.Trusted(ctx, slices.Sorted(maps.Keys(has)), substituter)
	}
	if err != nil {
		return err
	}
	maps.Copy(p.has, has)
	return nil
}

// everywhere reports whether a target wants an output, and each place has all that it
// wants. Of nothing, nobody has anything.
func everywhere(t *job.Target, places []place) bool {
	if !t.HasPaths() || len(places) == 0 {
		return false
	}
	for _, output := range t.Outputs {
		for _, p := range places {
			if !p.has[t.OutPaths[output]] {
				return false
			}
		}
	}
	return true
}
