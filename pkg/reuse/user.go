package reuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/git"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/storecache"
	"github.com/org/nix-matrix/pkg/text"
)

// A UserBuild is a user's own build, which runs between Restore and Save.
type UserBuild struct {
	*Cache
	Nix    *nix.Nix
	Root   string // of the store, empty for this machine's
	Before string // file in which Restore writes for Save which paths were valid
	// Lenient makes an error of the cache or of its content a warning.
	Lenient bool
}

// Tolerate returns an error of the cache or of its content, or warns of it and returns nil.
func (u *UserBuild) Tolerate(ctx context.Context, title string, err error) error {
	var wrong *usage.Error
	source := errors.Is(err, storecache.ErrSource) && !errors.Is(err, nix.ErrUntrusted)
	switch {
	case ctx.Err() != nil:
		return errors.Join(err, ctx.Err())
	case err == nil, errors.As(err, &wrong), !u.Lenient && !source:
		return err
	}
	u.warn(title, err)
	return nil
}

// Restore restores the closures of paths, or without paths all paths of the index.
func (u *UserBuild) Restore(ctx context.Context, choice EngineChoice, paths []string) (restored storecache.Restored, err error) {
	var ix *storecache.Index
	var loading sync.WaitGroup
	if u.Docs.Cache != nil {
		u.Log.Doing("looking for saved store paths")
		defer u.Log.Doing("")
		loading.Go(func() { ix = u.restorableIndex(ctx) })
	}
	engine, err := choice.Open(ctx, u.Nix, u.Log) // meanwhile, because both wait
	loading.Wait()
	if err != nil {
		return restored, err
	}
	restored, err = u.restore(ctx, engine, ix, paths)
	if err := u.Tolerate(ctx, "Cannot restore all store paths", err); err != nil {
		return restored, err
	}
	if err := u.keepBefore(ctx, restored.Lost); err != nil {
		u.Log.Warn("Cannot keep the list of store paths, so save takes all of them as new", err)
	}
	return restored, nil
}

// restore restores from an index, or nothing if there is none because there is no cache.
func (u *UserBuild) restore(ctx context.Context, engine engine.Engine, ix *storecache.Index, paths []string) (restored storecache.Restored, err error) {
	if ix == nil {
		return restored, nil
	}
	if len(ix.Packs) == 0 {
		u.Log.Printf("nothing was found that an earlier run has saved")
	}
	if len(paths) == 0 {
		ix = u.fitting(ix)
	}
	if paths, err = wanted(ctx, ix, paths); err != nil {
		return restored, err
	}
	return u.Cache.restore(ctx, u.Nix, engine, ix, paths)
}

// fitting returns an index of the paths that were saved last, as many as have room in half of the free disk, so
// that the build has room, too. An index may have many generations of paths, because those of one mostly have the
// contents of the one before.
func (u *UserBuild) fitting(ix *storecache.Index) *storecache.Index {
	free, err := u.Nix.FreeSpace()
	if err != nil {
		return ix // a restore fails with the same error
	}
	some := ix.Within(0, max(free/2, 1))
	if left := ix.Len() - some.Len(); left > 0 {
		u.Log.Printf("left %s of earlier saves in the cache, because half of the free disk, %s, has no room for more. Name the paths that the build needs, or take them on demand",
			text.Plural(left, "store path"), text.Size(free/2))
	}
	return some
}

// restorableIndex returns the index of what this build may restore.
func (u *UserBuild) restorableIndex(ctx context.Context) *storecache.Index {
	return u.Saved(ctx, u.Nix.System, u.Accepts(u.Nix, nil))
}

// wanted returns the paths, or without paths all of the index.
func wanted(ctx context.Context, ix *storecache.Index, paths []string) ([]string, error) {
	if len(paths) > 0 {
		return paths, nil
	}
	return ix.Paths(ctx)
}

// Export writes the stream that nix-store --import reads, of the closures of paths, or without paths of all
// paths of the index. It needs no Nix, only the name of the system. References that were never in the cache are
// not in the stream. What the cache has lost, and all that refers to it, is left out with a warning, or is
// an error if a closure of paths needs it.
func (u *UserBuild) Export(ctx context.Context, to io.Writer, paths []string) (restored storecache.Restored, err error) {
	u.Log.Doing("looking for saved store paths")
	defer u.Log.Doing("")
	named := len(paths) > 0
	ix := u.restorableIndex(ctx)
	if paths, err = wanted(ctx, ix, paths); err != nil {
		return restored, err
	}
	for _, path := range paths {
		if !ix.Has(path) {
			return restored, fmt.Errorf("cannot export %s: it is not in the cache", path)
		}
	}
	saved := ix
	packed, outside, err := ix.Closure(ctx, paths...)
	for lost, unread := ix.Unread(); unread != nil && err == nil; lost, unread = ix.Unread() {
		if len(lost) == 0 {
			return restored, fmt.Errorf("cannot export all store paths: %w", unread)
		}
		if ix, err = ix.Without(ctx, lost...); err != nil {
			break
		}
		packed, outside, err = ix.Closure(ctx, paths...) // another pack may have the same paths
		if gone := slices.IndexFunc(outside, saved.Has); gone >= 0 && named {
			return restored, fmt.Errorf("cannot export all store paths, without %s: %w", outside[gone], unread)
		}
		u.warn("Cannot export all store paths", unread)
	}
	if err != nil {
		return restored, err
	}
	outside = slices.DeleteFunc(outside, saved.Has)
	by := engine.Export(to)
	if len(packed) == 0 {
		sink, err := by.Begin(ctx, nil)
		if err == nil {
			err = sink.Finish(ctx, nil)
		}
		return restored, err
	}
	if len(outside) > 0 {
		u.Log.Printf("%s that these paths refer to, such as %s, are not in the cache: the store that imports them must have those", text.Plural(len(outside), "store path"), outside[0])
	}
	from := &storecache.Restorer{Nix: noStore{saved}, Engine: by, Cache: u.Docs.Cache, Index: ix, Once: true, Progress: u.restoring}
	return from.Restore(ctx, paths...)
}

// noStore is the store for an export: it has all paths that no pack had.
type noStore struct{ saved *storecache.Index }

func (s noStore) Valid(_ context.Context, paths ...string) (map[string]bool, error) {
	valid := map[string]bool{}
	for _, path := range paths {
		if !s.saved.Has(path) {
			valid[path] = true
		}
	}
	return valid, nil
}

func (s noStore) AddTempRoots(context.Context, ...string) (nix.Roots, error) {
	return noRoots{s}, nil
}

// noRoots are those of a noStore.
type noRoots struct{ noStore }

func (r noRoots) Valid(paths ...string) (map[string]bool, error) {
	return r.noStore.Valid(context.Background(), paths...)
}

func (noRoots) Close() error { return nil }

func (noStore) Substitute(context.Context, func(nix.Traffic), ...string) error { return nil }

// Save saves the closures of paths in the cache, or without paths those that became valid since Restore, by
// the policy. All packs together stay within limit bytes, if it is not 0.
func (u *UserBuild) Save(ctx context.Context, policy storecache.Policy, limit int64, paths []string) (Saved, error) {
	done := Saved{Packs: []string{}}
	var err error
	switch {
	case policy == storecache.Off && len(paths) > 0:
		u.Log.Printf("the store paths that were named are not saved: store_cache is off")
	case policy != storecache.Off:
		err = u.save(ctx, policy, limit, paths, &done)
	}
	return done, u.Tolerate(ctx, "Cannot save all store paths", err)
}

func (u *UserBuild) save(ctx context.Context, policy storecache.Policy, limit int64, paths []string, done *Saved) error {
	n := u.Nix
	if u.Docs.Cache == nil {
		return nil
	}
	u.Docs.Trust.Heads = git.Heads(ctx, nix.Environ(), ".")
	if !u.Docs.Keeps() {
		return nil
	}
	all, err := u.index(ctx, n.System)
	if err != nil {
		return err
	}
	before, err := u.readBefore()
	if err != nil {
		u.Log.Warn("Treating all store paths as new", err)
	}
	u.Log.Doing("looking for new store paths")
	defer u.Log.Doing("")
	update := storecache.Update{Now: now(), Lost: before.Lost, Limit: limit, NARs: unpackedShare * limit}
	if all, err = all.Without(ctx, before.Lost...); err != nil {
		return err
	}
	found, err := u.fresh(ctx, all, policy, paths, before.Valid)
	if err != nil {
		return err
	}
	if len(found.Fresh) == 0 {
		return u.updateIndex(ctx, n.System, update) // or each restore would look for the lost packs
	}
	start := time.Now()
	u.Log.Doing("saving %d store paths", len(found.Fresh))
	packs, saved, err := u.Cache.save(ctx, n, found.Fresh, all, func(*storecache.Pack) {})
	if len(packs) == 0 {
		return err
	}
	update.Saved, update.Used = packs, all.Having(found.Needed)
	if kept := u.updateIndex(ctx, n.System, update); kept != nil {
		return errors.Join(err, kept) // no run finds the packs
	}
	*done = *saved
	u.saved(saved, time.Since(start))
	return err
}

// unpackedShare bounds the paths of the index: their NARs have at most so many times the bytes of its packs'
// limit. So many it was when packs had whole paths.
const unpackedShare = 3

// fresh returns the paths to save that are in no pack: of the closures of these paths, or
// without paths of those that were not valid before.
func (u *UserBuild) fresh(ctx context.Context, saved *storecache.Index, policy storecache.Policy, paths, before []string) (storecache.News, error) {
	if len(paths) == 0 {
		all, err := u.Nix.AllValid(ctx)
		if err != nil {
			return storecache.News{}, err
		}
		there := map[string]bool{}
		for _, path := range before {
			there[path] = true
		}
		all = slices.DeleteFunc(all, func(path string) bool { return there[path] })
		return storecache.New(ctx, u.Nix, saved, policy, all)
	}
	found, why, err := storecache.Named(ctx, u.Nix, saved, policy, paths)
	for _, path := range slices.Sorted(maps.Keys(why)) {
		u.Log.Printf("%s is not saved: %s", path, why[path])
	}
	return found, err
}

// maxBefore is the largest file of Restore that is read, in bytes.
const maxBefore = 256 << 20

// before is the file that Restore writes for Save.
type before struct {
	Store string   `json:"store"` // its root, empty for this machine's
	Valid []string `json:"valid"` // store paths
	// Lost are the keys of packs that an index names and the cache has evicted.
	Lost []string `json:"lost,omitempty"`
}

func (u *UserBuild) keepBefore(ctx context.Context, lost []string) error {
	valid, err := u.Nix.AllValid(ctx)
	if err != nil {
		return err
	}
	slices.Sort(valid)
	return u.writeBefore(before{u.Root, valid, lost})
}

func (u *UserBuild) writeBefore(b before) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(u.Before), 0o750); err != nil {
		return err
	}
	return documents.WriteFile(u.Before, data)
}

// readBefore returns the file that Restore has written, empty if it was not called.
func (u *UserBuild) readBefore() (before, error) {
	data, err := documents.ReadFile(u.Before, maxBefore)
	if errors.Is(err, fs.ErrNotExist) {
		return before{}, nil
	}
	var b before
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err != nil {
		return before{}, fmt.Errorf("cannot read the list of earlier store paths: %w", err)
	}
	if b.Store != u.Root {
		return before{}, nil
	}
	return b, nil
}
