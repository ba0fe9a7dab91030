package storecache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

// A Restorer restores paths from packs into a store.
type Restorer struct {
	Nix    RestoreNix
	Engine engine.Engine
	Cache  cache.Cache
	Index  *Index
	// Once has the engine begin only once. Otherwise it begins again for paths that a lost pack and another
	// have.
	Once bool
	// Progress is called when a path was added or fetched from a substituter, if it is not nil.
	Progress func(Restored)
}

// RestoreNix has the methods of *nix.Nix that restoring needs, apart from an engine's.
type RestoreNix interface {
	Valid(ctx context.Context, paths ...string) (map[string]bool, error)
	AddTempRoots(ctx context.Context, paths ...string) (nix.Roots, error)
	// Substitute fetches as many of the paths as substituters have, and calls counted with the
	// changes of what was fetched.
	Substitute(ctx context.Context, counted func(nix.Traffic), paths ...string) error
}

// Restore makes the paths in these paths' closures valid that the packs have, and fetches
// others from substituters where they are needed. If a pack is unreadable or corrupt, only the
// paths in it and their referrers are lost; the error then wraps [ErrSource] and is returned
// with the result. Any other error is that of the store. Valid paths stay as they are.
func (r *Restorer) Restore(ctx context.Context, paths ...string) (Restored, error) {
	var all Restored
	var errs []error
	from := r.Index
	if from.from == nil {
		from = from.In(r.Cache, nil)
	}
	for {
		got, err := r.restore(ctx, from, paths)
		all.add(&got)
		errs = append(errs, err)
		if len(got.Lost) == 0 || r.Once || ctx.Err() != nil || err != nil && !errors.Is(err, ErrSource) {
			return all, errors.Join(errs...)
		}
		if from, err = from.Without(ctx, got.Lost...); err != nil { // other packs may have the same paths
			return all, errors.Join(append(errs, err)...)
		}
	}
}

// add adds the counts of another restore.
func (r *Restored) add(more *Restored) {
	r.Paths, r.Size, r.Bytes = r.Paths+more.Paths, r.Size+more.Size, r.Bytes+more.Bytes
	r.Packs = slices.Compact(slices.Sorted(slices.Values(slices.Concat(r.Packs, more.Packs))))
	r.Lost = slices.Concat(r.Lost, more.Lost) // each round is without those of the one before
	r.Fetched.Add(more.Fetched)
	r.Valid = more.Valid
}

func (r *Restorer) restore(ctx context.Context, index *Index, paths []string) (Restored, error) {
	packed, outside, err := index.Closure(ctx, paths...)
	if err != nil {
		return Restored{}, err
	}
	lost, unread := index.Unread()
	if len(packed) == 0 {
		return Restored{Lost: lost}, unread
	}
	roots, err := r.Nix.AddTempRoots(ctx, packed...)
	if err != nil {
		return Restored{}, fmt.Errorf("cannot restore: %w", err)
	}
	defer roots.Close()
	valid, err := roots.Valid(slices.Concat(packed, outside)...)
	if err != nil {
		return Restored{}, fmt.Errorf("cannot restore: %w", err)
	}
	wanted := map[string]location{}
	for _, path := range packed {
		if !valid[path] {
			wanted[path], _ = index.find(path)
		}
	}
	refused, err := r.dropUnproven(ctx, wanted)
	if err != nil {
		return Restored{}, fmt.Errorf("cannot restore: %w", err)
	}
	fetched, err := r.complete(ctx, wanted, valid)
	if err != nil {
		return Restored{Fetched: fetched}, err
	}
	if err := index.loadTables(ctx, wanted); err != nil {
		return Restored{Fetched: fetched}, err
	}
	transfer := newTransfer(r.Engine, r.open, r.Progress)
	transfer.index = index
	restored, err := transfer.run(ctx, wanted)
	restored.Fetched = fetched
	restored.Lost = slices.Compact(slices.Sorted(slices.Values(slices.Concat(restored.Lost, lost))))
	if err = errors.Join(refused, unread, err); err != nil {
		return restored, fmt.Errorf("cannot restore: %w", err)
	}
	if restored.Paths == len(wanted) {
		for path := range wanted {
			valid[path] = true
		}
		restored.Valid = valid
	}
	return restored, nil
}

// loadTables loads what reading the wanted paths needs. The error is the end of the context.
func (ix *Index) loadTables(ctx context.Context, wanted map[string]location) error {
	needed := map[*Pack]bool{}
	for _, at := range wanted {
		index := at.pack.Index
		if !index.Chunked() {
			continue
		}
		needed[at.pack] = true
		for _, source := range index.Sources(at.record) {
			if source == 0 {
				continue
			}
			if p := ix.bySum[index.Leans()[source-1]]; p != nil {
				needed[p] = true
			}
		}
	}
	return ix.load(ctx, slices.Collect(maps.Keys(needed)), true)
}

// Unread returns the error of the packs whose indexes could not be loaded, and the keys of those that are
// gone for good.
func (ix *Index) Unread() (lost []string, unread error) {
	var errs []error
	for p, err := range ix.failed {
		errs = append(errs, fmt.Errorf("%w: %w", ErrSource, err))
		if isGone(err) {
			lost = append(lost, p.Key)
		}
	}
	return lost, errors.Join(errs...)
}

func (r *Restorer) open(ctx context.Context, p *Pack) (pack.Source, error) {
	return r.Cache.Open(ctx, p.Key)
}

// dropUnproven removes the wanted paths that a store that does not trust us would refuse, so
// that they are not read. refused says that there were some.
func (r *Restorer) dropUnproven(ctx context.Context, wanted map[string]location) (refused, err error) {
	var unproven []string
	for path, at := range wanted {
		if info := pathInfo(at.info()); !info.Proven() {
			unproven = append(unproven, path)
		}
	}
	if len(unproven) == 0 || r.Engine.Distrusts == nil {
		return nil, nil
	}
	err = r.Engine.Distrusts(ctx)
	if !errors.Is(err, nix.ErrUntrusted) {
		return nil, err
	}
	for _, path := range unproven {
		delete(wanted, path)
	}
	return fmt.Errorf("%w: %d store paths are not restored, because they have neither a signature nor a content address, such as %s", err, len(unproven), slices.Min(unproven)), nil
}

// complete makes all references of wanted paths wanted or valid: it fetches the others from
// substituters, and removes the referrers of those that substituters lack.
func (r *Restorer) complete(ctx context.Context, wanted map[string]location, valid map[string]bool) (fetched nix.Traffic, err error) {
	missing := map[string]bool{}
	referrers := map[string][]string{}
	for path, at := range wanted {
		for _, ref := range at.references() {
			referrers[ref] = append(referrers[ref], path)
			if _, ok := wanted[ref]; !ok && !valid[ref] {
				missing[ref] = true
			}
		}
	}
	if len(missing) == 0 {
		return fetched, nil
	}
	outside := slices.Sorted(maps.Keys(missing))
	counted := func(more nix.Traffic) {
		fetched.Add(more)
		if r.Progress != nil {
			r.Progress(Restored{Fetched: fetched})
		}
	}
	if err := r.Nix.Substitute(ctx, counted, outside...); err != nil && ctx.Err() != nil {
		return fetched, fmt.Errorf("cannot restore: %w", context.Cause(ctx))
	}
	now, err := r.Nix.Valid(ctx, outside...)
	if err != nil {
		return fetched, fmt.Errorf("cannot restore: %w", err)
	}
	var lost []string
	for _, path := range outside {
		if !now[path] {
			lost = append(lost, referrers[path]...)
		}
	}
	for len(lost) > 0 {
		path := lost[len(lost)-1]
		lost = lost[:len(lost)-1]
		if _, ok := wanted[path]; ok {
			delete(wanted, path)
			lost = append(lost, referrers[path]...)
		}
	}
	return fetched, nil
}
