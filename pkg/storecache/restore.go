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

// A Restorer brings paths from packs into a store.
type Restorer struct {
	Nix    RestoreNix
	Engine engine.Engine
	Cache  cache.Cache
	Index  *Index
	// Progress is told of what was added, if it is not nil.
	Progress func(Restored)
}

// RestoreNix is what restoring needs of Nix, besides an engine.
type RestoreNix interface {
	Valid(ctx context.Context, paths ...string) (map[string]bool, error)
	AddTempRoots(ctx context.Context, paths ...string) (io.Closer, error)
	// Substitute fetches paths as far as that goes.
	Substitute(ctx context.Context, paths ...string) error
}

// Restore makes valid what the packs have of the closures of these paths. What only
// substituters have of them, these bring. A pack that can't be read, or has not what the
// index says, costs only the paths in it and those that refer to them: why, is in the
// error, which then wraps [ErrSource], beside what was restored. Any other error is that
// of the store. What is valid already stays as it is.
func (r *Restorer) Restore(ctx context.Context, paths ...string) (Restored, error) {
	there, outside := r.Index.Closure(paths...)
	if len(there) == 0 {
		return Restored{}, nil
	}
	roots, err := r.Nix.AddTempRoots(ctx, there...)
	if err != nil {
		return Restored{}, fmt.Errorf("restore: %w", err)
	}
	defer roots.Close()
	valid, err := r.Nix.Valid(ctx, slices.Concat(there, outside)...)
	if err != nil {
		return Restored{}, fmt.Errorf("restore: %w", err)
	}
	wanted := map[string]place{}
	for _, path := range there {
		if !valid[path] {
			wanted[path] = r.Index.paths[path]
		}
	}
	refused, err := r.leaveUnproven(ctx, wanted)
	if err != nil {
		return Restored{}, fmt.Errorf("restore: %w", err)
	}
	if err := r.complete(ctx, wanted, valid); err != nil {
		return Restored{}, err
	}
	restored, err := newTransfer(r.Engine, r.open, r.Progress).run(ctx, wanted)
	if err = errors.Join(refused, err); err != nil {
		return restored, fmt.Errorf("restore: %w", err)
	}
	return restored, nil
}

func (r *Restorer) open(ctx context.Context, p *Pack) (pack.Source, error) {
	return r.Cache.Open(ctx, p.Key)
}

// leaveUnproven takes away from what is wanted that which a store that does not trust us
// would refuse, so that nobody reads it. The first error says that there was such.
func (r *Restorer) leaveUnproven(ctx context.Context, wanted map[string]place) (refused, err error) {
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
	return fmt.Errorf("%w: %d store paths are not restored, since they have neither a signature nor a content address, such as %s", err, len(unproven), slices.Min(unproven)), nil
}

// complete sees to it that all references of what is wanted are wanted or valid:
// substituters bring the others, and what they don't have takes those away that refer to
// it.
func (r *Restorer) complete(ctx context.Context, wanted map[string]place, valid map[string]bool) error {
	missing := map[string]bool{}
	users := map[string][]string{}
	for path, at := range wanted {
		for _, ref := range at.references() {
			users[ref] = append(users[ref], path)
			if _, ok := wanted[ref]; !ok && !valid[ref] {
				missing[ref] = true
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	outside := slices.Sorted(maps.Keys(missing))
	if err := r.Nix.Substitute(ctx, outside...); err != nil && ctx.Err() != nil {
		return fmt.Errorf("restore: %w", context.Cause(ctx))
	}
	now, err := r.Nix.Valid(ctx, outside...)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	var lost []string
	for _, path := range outside {
		if !now[path] {
			lost = append(lost, users[path]...)
		}
	}
	for len(lost) > 0 {
		path := lost[len(lost)-1]
		lost = lost[:len(lost)-1]
		if _, ok := wanted[path]; ok {
			delete(wanted, path)
			lost = append(lost, users[path]...)
		}
	}
	return nil
}
