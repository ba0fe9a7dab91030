// Package available answers which store paths need no building, where they are, and why they are
// trusted there: in the store of this machine, in packs of the store cache, at a binary cache or
// at a substituter.
package available

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// A Finder asks substituters. One that does not answer is asked once. The caller closes it.
type Finder struct {
	Nix          func() Asker    // as it is set now
	Substituters func() []string // addresses of all that Nix fetches from
	Log          Log

	mute    map[string]bool // substituters that do not answer
	inquiry Inquiry         // the last one, still open
	of      string          // the substituters that it asks
}

// An Asker asks substituters about store paths.
type Asker interface {
	Inquire(ctx context.Context, substituters ...string) (Inquiry, error)
	TrustedPaths(ctx context.Context, paths []string, substituter string) (map[string]bool, error)
	SubstitutableClosures(ctx context.Context, paths []string, substituters ...string) (map[string]bool, error)
	Delivers(ctx context.Context, substituter, path string) (bool, error)
}

// An Inquiry asks the same substituters several times, as [nix.Inquiry] does.
type Inquiry interface {
	Substitutable(paths []string) (map[string]bool, error)
	Close()
}

// With returns an Asker for a Nix.
func With(n *nix.Nix) Asker { return asker{n} }

type asker struct{ *nix.Nix }

func (a asker) Inquire(ctx context.Context, substituters ...string) (Inquiry, error) {
	return a.Nix.Inquire(ctx, substituters...)
}

// Log is where a person sees which substituters cannot be asked.
type Log interface {
	Warn(title string, err error)
}

// A Place is where store paths may be already.
type Place struct {
	Name string
	Has  map[string]bool // store paths

	from map[string]string // substituters, by the path that one has
}

// From returns the address of the substituter or binary cache that has a path, empty if there is none.
func (p *Place) From(path string) string { return p.from[path] }

// NewPlace returns a place without paths.
func NewPlace(name string) *Place {
	return &Place{Name: name, Has: map[string]bool{}, from: map[string]string{}}
}

// Destination returns which of the paths a binary cache that is pushed to has: signed by a trusted
// key if signed is true. A cache without an address, or one that cannot be asked, has none.
func (f *Finder) Destination(ctx context.Context, name, address string, signed bool, paths []string) *Place {
	p := NewPlace("at " + name)
	if address == "" {
		return p
	}
	err := f.ask(ctx, p, paths, address, signed)
	if err == nil {
		err = f.complete(ctx, p)
	}
	if err != nil && ctx.Err() == nil {
		clear(p.Has)
		f.Log.Warn("Cannot ask "+name+" for store paths, so everything is built", err)
	}
	return p
}

// Substituted returns which of the paths substituters have, signed by a trusted key and with their
// whole closures.
func (f *Finder) Substituted(ctx context.Context, paths []string) *Place {
	p := NewPlace("offered by a substituter")
	for _, substituter := range f.answering() {
		missing := slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return p.Has[path] })
		if err := f.ask(ctx, p, missing, substituter, true); err != nil && ctx.Err() == nil {
			f.Log.Warn("Cannot ask "+nix.Redact(substituter)+" for store paths", err)
		}
	}
	if err := f.complete(ctx, p); err != nil && ctx.Err() == nil {
		clear(p.Has)
		f.Log.Warn("Cannot ask substituters for whole closures, so everything is built", err)
	}
	return p
}

// answering returns the substituters that have answered all questions so far.
func (f *Finder) answering() []string {
	return slices.DeleteFunc(f.Substituters(), func(substituter string) bool { return f.mute[substituter] })
}

// silent reports whether an error says that substituters did not answer, and notes them, so that
// they are not asked again.
func (f *Finder) silent(err error) bool {
	var mute *nix.NoAnswerError
	if !errors.As(err, &mute) {
		return false
	}
	if f.mute == nil {
		f.mute = map[string]bool{}
	}
	for _, substituter := range mute.Substituters {
		f.mute[substituter] = true
	}
	return true
}

// substitutable returns which of the paths, and of those that Nix would fetch with them, substituters
// have. The connection for that stays open for the next question.
func (f *Finder) substitutable(ctx context.Context, paths []string, substituters ...string) (map[string]bool, error) {
	of := strings.Join(substituters, " ")
	if f.inquiry == nil || f.of != of {
		f.Close()
		inquiry, err := f.Nix().Inquire(ctx, substituters...)
		if err != nil {
			return nil, err
		}
		f.inquiry, f.of = inquiry, of
	}
	offered, err := f.inquiry.Substitutable(paths)
	if err != nil { // the connection may have ended
		f.Close()
	}
	return offered, err
}

// Close ends the connection to the substituters, if one is open. The Finder can be used again.
func (f *Finder) Close() {
	if f.inquiry != nil {
		f.inquiry.Close()
		f.inquiry = nil
	}
}

// ask adds to a place the paths that a substituter has, and has with a trusted signature if signed
// is true.
func (f *Finder) ask(ctx context.Context, p *Place, paths []string, substituter string, signed bool) error {
	if len(paths) == 0 || f.mute[substituter] {
		return nil
	}
	offered, err := f.substitutable(ctx, paths, substituter)
	if err != nil {
		f.silent(err)
		return err
	}
	paths = slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return !offered[path] })
	if signed && len(paths) > 0 {
		if offered, err = f.Nix().TrustedPaths(ctx, paths, substituter); err != nil {
			return err
		}
	}
	for _, path := range paths {
		if offered[path] {
			p.Has[path], p.from[path] = true, substituter
		}
	}
	return nil
}

// complete removes from a place the paths that refer to a path which no substituter has, as in a
// binary cache after a garbage collection, and those whose contents are lost.
func (f *Finder) complete(ctx context.Context, p *Place) error {
	has := slices.Sorted(maps.Keys(p.Has))
	if len(has) == 0 {
		return nil
	}
	from := slices.Concat(slices.Collect(maps.Values(p.from)), f.answering())
	slices.Sort(from)
	whole, err := f.Nix().SubstitutableClosures(ctx, has, slices.Compact(from)...)
	if f.silent(err) {
		f.Log.Warn("Not all substituters can be asked", err)
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
			delete(p.Has, path)
		}
	}
	if len(partial) > 0 {
		f.Log.Warn("A binary cache is not complete", fmt.Errorf("no substituter has the whole closure of these paths, so they are built again: %s", text.Some(partial, 20)))
	}
	for _, substituter := range slices.Sorted(maps.Keys(bySource)) {
		if err := f.delivered(ctx, p, bySource[substituter], substituter); err != nil && ctx.Err() == nil {
			f.Log.Warn("Cannot check that "+nix.Redact(substituter)+" delivers its paths", err)
		}
	}
	return nil
}

// The limits of a check that paths are delivered, because each path takes a request and a program.
const (
	maxDelivered  = 300
	deliveredTime = 30 * time.Second
)

// delivered removes from a place the paths of which a binary cache has the name alone, and has lost
// the contents, most likely to a garbage collector. Only the first few paths are checked.
func (f *Finder) delivered(ctx context.Context, p *Place, paths []string, substituter string) error {
	if !nix.IsBinaryCache(substituter) {
		return nil
	}
	lost, err := f.Undelivered(ctx, paths, substituter)
	for _, path := range lost {
		delete(p.Has, path)
	}
	if len(lost) > 0 {
		f.Log.Warn(nix.Redact(substituter)+" has lost contents", fmt.Errorf("it says that it has these paths, and does not deliver them, so they are built again: %s", text.Some(lost, 20)))
	}
	return err
}

// Undelivered returns those of the paths that a binary cache says it has and does not deliver.
// It asks for the first few only, and for half a minute.
func (f *Finder) Undelivered(ctx context.Context, paths []string, substituter string) ([]string, error) {
	const atATime = 8
	paths = paths[:min(len(paths), maxDelivered)]
	limited, cancel := context.WithTimeout(ctx, deliveredTime)
	defer cancel()
	lost := make([]bool, len(paths))
	var g errgroup.Group
	g.SetLimit(atATime)
	for i, path := range paths {
		g.Go(func() error {
			if limited.Err() != nil {
				return context.Cause(limited)
			}
			delivers, err := f.Nix().Delivers(limited, substituter, path)
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
	if limited.Err() != nil && ctx.Err() == nil {
		err = nil // the cache is believed for the others
	}
	return all, err
}

// Offered returns which of the paths substituters have, signed or not. A substituter that does not
// answer has none.
func (f *Finder) Offered(ctx context.Context, paths []string) (map[string]bool, error) {
	from := f.answering()
	if len(paths) == 0 || len(from) == 0 {
		return nil, nil
	}
	offered, err := f.substitutable(ctx, paths, from...)
	if f.silent(err) {
		f.Log.Warn("Not all substituters can be asked", err)
		err = nil
	}
	return offered, err
}

// Sources are all places where a build may find a path.
type Sources struct {
	Finder *Finder // nil where no substituter is asked
	Store  Store   // whose valid paths count; nil for none
	Saved  []Saved // packs of the store cache
	// Own are outputs of the targets, of which only those in Signed count at a substituter: a target
	// is green by them. The signatures of all other paths are checked when they are fetched.
	Own    []string
	Signed map[string]bool
}

// Store returns which paths are valid in a store.
type Store interface {
	Valid(ctx context.Context, paths ...string) (map[string]bool, error)
}

// Saved is an index of store packs.
type Saved interface {
	Has(path string) bool
}

// Offered returns which of the paths need no building. With an error of the substituters, it also
// returns the paths of the other places.
func (s *Sources) Offered(ctx context.Context, paths []string) (map[string]bool, error) {
	has := map[string]bool{}
	if s.Store != nil {
		valid, err := s.Store.Valid(ctx, paths...)
		if err != nil {
			return nil, err
		}
		maps.Copy(has, valid)
	}
	for _, path := range paths {
		has[path] = has[path] || slices.ContainsFunc(s.Saved, func(ix Saved) bool { return ix.Has(path) })
	}
	own := map[string]bool{}
	for _, path := range s.Own {
		own[path] = true
		has[path] = has[path] || s.Signed[path]
	}
	if s.Finder == nil {
		return has, nil
	}
	ask := slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return has[path] || own[path] })
	offered, err := s.Finder.Offered(ctx, ask)
	for path := range offered {
		has[path] = has[path] || !own[path]
	}
	return has, err
}
