package storecache

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	// Progress is called when a path was added or fetched from a substituter, if it is not nil.
	Progress func(Restored)
}

// RestoreNix has the methods of *nix.Nix that restoring needs, apart from an engine's.
type RestoreNix interface {
	Valid(ctx context.Context, paths ...string) (map[string]bool, error)
	AddTempRoots(ctx context.Context, paths ...string) (io.Closer, error)
	// Substitute fetches as many of the paths as substituters have, and calls counted with the
	// changes of what was fetched.
	Substitute(ctx context.Context, counted func(nix.Traffic), paths ...string) error
}

// Restore makes the paths in these paths' closures valid that the packs have, and fetches
// others from substituters where they are needed. If a pack is unreadable or corrupt, only the
// paths in it and their referrers are lost; the error then wraps [ErrSource] and is returned
// with the result. Any other error is that of the store. Valid paths stay as they are.
func (r *Restorer) Restore(ctx context.Context, paths ...string) (Restored, error) {
	packed, outside := r.Index.Closure(paths...)
	if len(packed) == 0 {
		return Restored{}, nil
	}
	roots, err := r.Nix.AddTempRoots(ctx, packed...)
	if err != nil {
		return Restored{}, fmt.Errorf("cannot restore: %w", err)
	}
	defer roots.Close()
	valid, err := r.Nix.Valid(ctx, slices.Concat(packed, outside)...)
	if err != nil {
		return Restored{}, fmt.Errorf("cannot restore: %w", err)
	}
	wanted := map[string]location{}
	for _, path := range packed {
		if !valid[path] {
			wanted[path] = r.Index.paths[path]
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
	restored, err := newTransfer(r.Engine, r.open, r.Progress).run(ctx, wanted)
	restored.Fetched = fetched
	if err = errors.Join(refused, err); err != nil {
		return restored, fmt.Errorf("cannot restore: %w", err)
	}
	return restored, nil
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
