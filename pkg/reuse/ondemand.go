package reuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/storecache"
)

// ErrNoCache says that there is no cache to serve paths of.
var ErrNoCache = errors.New("there is no cache to fetch store paths from")

// OnDemand returns the store paths of the index for a build that asks for them one by one. What it finds lost
// goes into the file for Save. The caller must close it.
func (u *UserBuild) OnDemand(ctx context.Context) (*storecache.OnDemand, error) {
	if u.Docs.Cache == nil {
		return nil, ErrNoCache
	}
	if err := u.keepBefore(ctx, nil); err != nil {
		u.Log.Warn("Cannot keep the list of store paths, so save takes all of them as new", err)
	}
	u.Log.Doing("looking for saved store paths")
	defer u.Log.Doing("")
	ix := u.restorableIndex(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return storecache.NewOnDemand(ctx, storecache.OnDemandOptions{
		Cache: u.Docs.Cache, Index: ix, Lost: u.lose, Reload: u.restorableIndex,
		Present: func(path string) bool {
			_, err := os.Lstat(filepath.Join("/", u.Root, path))
			return err == nil
		},
	})
}

// KeepBefore writes for Save which paths are valid now, as Restore does.
func (u *UserBuild) KeepBefore(ctx context.Context) error { return u.keepBefore(ctx, nil) }

// AcceptsUnsigned reports whether the paths of OnDemand may be taken without a signature.
func (u *UserBuild) AcceptsUnsigned() bool { return u.Docs.Trust.AcceptsUnsigned() }

// lose adds packs that are lost to the file for Save, which saves their paths again.
func (u *UserBuild) lose(keys ...string) {
	for _, key := range keys {
		u.warn("Some store paths are built again", fmt.Errorf("%s is damaged or gone: %w", key, cache.ErrMiss))
	}
	known, err := u.readBefore()
	if err == nil {
		known.Store = u.Root
		known.Lost = slices.Compact(slices.Sorted(slices.Values(slices.Concat(known.Lost, keys))))
		err = u.writeBefore(known)
	}
	if err != nil {
		u.Log.Warn("Cannot keep the list of lost packs, so save does not save their paths again", err)
	}
}
