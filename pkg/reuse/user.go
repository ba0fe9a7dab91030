package reuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/git"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/storecache"
)

// A UserBuild is a build of the user's own, which comes between Restore and Save.
type UserBuild struct {
	*Cache
	Root   string // of the store, empty for this machine's
	Before string // file in which Restore leaves for Save which paths were valid
	// Warn takes an error of the cache that is no error of the command, or returns it.
	Warn func(ctx context.Context, title string, err error) error
}

// Restore brings the closures of paths into the store, or without paths all that the index names.
func (u *UserBuild) Restore(ctx context.Context, n *nix.Nix, choice EngineChoice, paths []string) (restored storecache.Restored, err error) {
	engine, err := choice.Open(ctx, n, u.Log)
	if err != nil {
		return restored, err
	}
	restored, err = u.restore(ctx, n, engine, paths)
	if err := u.Warn(ctx, "Not all was restored", err); err != nil {
		return restored, err
	}
	if err := u.keepBefore(ctx, n, restored.Lost); err != nil {
		u.Log.Warn("What is new can't be told later from what is there now", err)
	}
	return restored, nil
}

func (u *UserBuild) restore(ctx context.Context, n *nix.Nix, engine engine.Engine, paths []string) (restored storecache.Restored, err error) {
	if u.Docs.Cache == nil {
		return restored, nil
	}
	u.Log.Doing("looking for what was saved")
	defer u.Log.Doing("")
	ix := u.Saved(ctx, n.System, u.Accepts(n, nil))
	if len(paths) == 0 {
		paths = ix.Paths()
	}
	if len(ix.Packs) == 0 {
		u.Log.Printf("nothing was found that an earlier run has saved")
	}
	start := time.Now()
	from := &storecache.Restorer{Nix: n, Engine: engine, Cache: u.Docs.Cache, Index: ix, Progress: u.restoring}
	restored, err = from.Restore(ctx, paths...)
	u.restored(restored, time.Since(start))
	return restored, err
}

// Save puts the closures of paths into the cache, or without paths what has become valid since
// Restore, as far as the policy wants it. All packs together stay within limit bytes, if it is not 0.
func (u *UserBuild) Save(ctx context.Context, n *nix.Nix, policy storecache.Policy, limit int64, paths []string) (Saved, error) {
	done := Saved{Packs: []string{}}
	var err error
	if policy != storecache.Off {
		err = u.save(ctx, n, policy, limit, paths, &done)
	}
	return done, u.Warn(ctx, "Not all was saved", err)
}

func (u *UserBuild) save(ctx context.Context, n *nix.Nix, policy storecache.Policy, limit int64, paths []string, done *Saved) error {
	if u.Docs.Cache == nil {
		return nil
	}
	u.Docs.Trust.Heads = git.Heads(ctx, nix.Environ(), ".")
	if !u.Docs.Keeps() {
		return nil
	}
	own, all, err := u.ownIndex(ctx, n.System)
	if err != nil {
		return err
	}
	before, err := u.readBefore()
	if err != nil {
		u.Log.Warn("Treating all store paths as new", err)
	}
	u.Log.Doing("looking for what is new")
	defer u.Log.Doing("")
	named := len(own.Packs)
	own = own.Without(before.Lost...)
	if len(paths) > 0 {
		paths, err = n.Requisites(ctx, paths...)
	} else {
		paths, err = n.AllValid(ctx)
		there := map[string]bool{}
		for _, path := range before.Valid {
			there[path] = true
		}
		paths = slices.DeleteFunc(paths, func(path string) bool { return there[path] })
	}
	if err != nil {
		return err
	}
	fresh, err := storecache.New(ctx, n, all.Without(before.Lost...), policy, paths)
	if err != nil {
		return err
	}
	if len(fresh) == 0 {
		if len(own.Packs) < named { // else each restore would look for what is gone
			return u.keepIndex(ctx, n.System, own)
		}
		return nil
	}
	start := time.Now()
	u.Log.Doing("saving %d store paths", len(fresh))
	now := Saved{Packs: []string{}}
	var without lostPaths
	to := &storecache.Saver{Nix: n, Cache: u.Docs.Cache, ID: u.Docs.ID, Seal: u.Docs.Seal, Lost: without.add, Progress: func(p *storecache.Pack) {
		now.add(p)
		u.saving(&now, len(fresh))
	}}
	packs, err := to.Save(ctx, fresh)
	u.warnLost(without)
	if len(packs) == 0 {
		return err
	}
	own, _ = own.Update(storecache.Update{Saved: packs, Limit: limit})
	if kept := u.keepIndex(ctx, n.System, own); kept != nil {
		return errors.Join(err, kept) // so nobody finds them
	}
	*done = now
	u.saved(&now, time.Since(start))
	return err
}

// maxBefore is how many bytes are read of what Restore has left.
const maxBefore = 256 << 20

// before is what restore leaves for save: the paths that were valid already.
type before struct {
	Store string   `json:"store"` // its root, empty for this machine's
	Valid []string `json:"valid"` // store paths
	// Lost are the keys of the packs that an index names and that were not to be had.
	Lost []string `json:"lost,omitempty"`
}

func (u *UserBuild) keepBefore(ctx context.Context, n *nix.Nix, lost []string) error {
	valid, err := n.AllValid(ctx)
	if err != nil {
		return err
	}
	slices.Sort(valid)
	data, err := json.Marshal(before{u.Root, valid, lost})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(u.Before), 0o750); err != nil {
		return err
	}
	return documents.WriteFile(u.Before, data)
}

// readBefore gives what was there at the time of restore, nothing if that was not
// called.
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
		return before{}, fmt.Errorf("read what was there before: %w", err)
	}
	if b.Store != u.Root {
		return before{}, nil
	}
	return b, nil
}
