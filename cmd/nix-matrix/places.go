package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push"
)

// skip marks the targets that there is nothing to do for. It gives the places that
// were asked.
func (d *discovery) skip(ctx context.Context, at *site, targets []job.Target) ([]*place, error) {
	var paths []string
	for _, t := range targets {
		if t.State == job.StateBuild {
			paths = slices.AppendSeq(paths, maps.Values(t.OutPaths))
		}
	}
	if len(paths) == 0 {
		return nil, nil
	}
	var places []*place
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
		places = append(places, &place{name: "in the store", has: valid})
	}
	for i := range targets {
		t := &targets[i]
		if t.State == job.StateBuild && everywhere(t, places) {
			t.State, t.Available = job.StateSkip, true
			t.Reason = places[0].name
		}
	}
	return places, nil
}

// A place is where paths may be already.
type place struct {
	name string
	has  map[string]bool
	from map[string]string // the substituters that they were asked of
}

func newPlace(name string) *place { return &place{name, map[string]bool{}, map[string]string{}} }

// destination asks a destination what it has. That it can't be asked only costs
// time.
func (d *discovery) destination(ctx context.Context, at *site, to *push.Destination, paths []string) *place {
	p := newPlace("at " + to.Name)
	if to.Substituter == "" || to.Missing() { // of the first it has been told why
		return p
	}
	// Where nobody has said which key is to be there, none is looked for.
	err := d.ask(ctx, at, p, paths, to.Substituter, len(to.PublicKeys) > 0)
	if err == nil {
		err = d.complete(ctx, at, p)
	}
	if err != nil && ctx.Err() == nil {
		clear(p.has)
		at.app.warn("What is at "+to.Name+" already is not known, so all is built", err)
	}
	return p
}

// substituters asks all that Nix fetches from. What one of them has nobody needs to
// build.
func (d *discovery) substituters(ctx context.Context, at *site, paths []string) *place {
	p := newPlace("offered by a substituter")
	for _, substituter := range at.answering() {
		missing := slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return p.has[path] })
		if err := d.ask(ctx, at, p, missing, substituter, true); err != nil && ctx.Err() == nil {
			at.app.warn("What "+nix.Redact(substituter)+" has is not known", err)
		}
	}
	if err := d.complete(ctx, at, p); err != nil && ctx.Err() == nil {
		clear(p.has)
		at.app.warn("What substituters have is not known, so all is built", err)
	}
	return p
}

// answering are the substituters that have not been asked in vain.
func (s *site) answering() []string {
	return slices.DeleteFunc(s.substituters(), func(substituter string) bool { return s.mute[substituter] })
}

// silent reports whether substituters did not answer, which are not asked again then.
func (s *site) silent(err error) bool {
	var mute *nix.MuteError
	if !errors.As(err, &mute) {
		return false
	}
	if s.mute == nil {
		s.mute = map[string]bool{}
	}
	for _, substituter := range mute.Substituters {
		s.mute[substituter] = true
	}
	return true
}

// ask notes what a substituter has, signed by a trusted key if it is to be.
func (d *discovery) ask(ctx context.Context, at *site, p *place, paths []string, substituter string, signed bool) error {
	if len(paths) == 0 || at.mute[substituter] {
		return nil
	}
	offered, err := at.nix.Offered(ctx, paths, substituter)
	if at.silent(err) || err != nil {
		return err
	}
	paths = slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return !offered[path] })
	if signed && len(paths) > 0 {
		if offered, err = at.nix.Trusted(ctx, paths, substituter); err != nil {
			return err
		}
	}
	for _, path := range paths {
		if offered[path] {
			p.has[path], p.from[path] = true, substituter
		}
	}
	return nil
}

// complete takes back what was only promised: paths that refer to what nobody has, which
// happens where a binary cache is collected, and those without contents.
func (d *discovery) complete(ctx context.Context, at *site, p *place) error {
	has := slices.Sorted(maps.Keys(p.has))
	if len(has) == 0 {
		return nil
	}
	from := slices.Concat(slices.Collect(maps.Values(p.from)), at.answering())
	slices.Sort(from)
	whole, err := at.nix.Whole(ctx, has, slices.Compact(from)...)
	if at.silent(err) {
		at.app.warn("Not all substituters can be asked", err)
	} else if err != nil {
		return err
	}
	var partial []string
	bySource := map[string][]string{}
	for _, path := range has {
		if whole[path] {
			bySource[p.from[path]] = append(bySource[p.from[path]], path)
		} else {
			partial = append(partial, path)
			delete(p.has, path)
		}
	}
	if len(partial) > 0 {
		at.app.warn("A binary cache is not complete", fmt.Errorf("no substituter has all that these refer to, so they are built again: %s", some(partial)))
	}
	for _, substituter := range slices.Sorted(maps.Keys(bySource)) {
		if err := d.delivered(ctx, at, p, bySource[substituter], substituter); err != nil && ctx.Err() == nil {
			at.app.warn("Whether "+nix.Redact(substituter)+" delivers what it has is not known", err)
		}
	}
	return nil
}

// As many paths of a binary cache are looked for in it, for so long, as each takes a
// request and a program.
const (
	maxLooked  = 300
	lookedTime = 30 * time.Second
)

// delivered takes back what a binary cache has by name alone, of the first few paths. Such
// a one has lost the contents, most likely to a garbage collector.
func (d *discovery) delivered(ctx context.Context, at *site, p *place, paths []string, substituter string) error {
	if !push.IsBinaryCache(substituter) {
		return nil
	}
	paths = paths[:min(len(paths), maxLooked)]
	limited, cancel := context.WithTimeout(ctx, lookedTime)
	defer cancel()
	lost, err := at.undelivered(limited, paths, substituter)
	for _, path := range lost {
		delete(p.has, path)
	}
	if len(lost) > 0 {
		at.app.warn(nix.Redact(substituter)+" has lost contents", fmt.Errorf("it says that it has these, and does not deliver them, so they are built again: %s", some(lost)))
	}
	if limited.Err() != nil && ctx.Err() == nil {
		return nil // the others are believed
	}
	return err
}

// undelivered returns those of the paths that a binary cache says it has and does not
// deliver.
func (s *site) undelivered(ctx context.Context, paths []string, substituter string) ([]string, error) {
	const atATime = 8
	lost := make([]bool, len(paths))
	var g errgroup.Group
	g.SetLimit(atATime)
	for i, path := range paths {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			delivers, err := s.nix.Delivers(ctx, substituter, path)
			lost[i] = err == nil && !delivers
			return err
		})
	}
	err := g.Wait()
	var all []string
	for i, path := range paths {
		if lost[i] {
			all = append(all, path)
		}
	}
	return all, err
}

// everywhere reports whether a target wants an output, and each place has all that it
// wants. Of nothing, nobody has anything.
func everywhere(t *job.Target, places []*place) bool {
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
