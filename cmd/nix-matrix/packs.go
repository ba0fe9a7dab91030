package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/store"
	"github.com/org/nix-matrix/pkg/text"
)

// packing is what a user can say of how paths go through the cache.
type packing struct {
	engine string // how they get into the store
	policy string // what is saved
	limit  string // bytes of all packs together
	root   string // of a store that is not this machine's
}

func (p *packing) restoreFlags(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.engine, "engine", or(a.action.Input("engine"), engineAuto),
		"how paths get into the store: direct, unpacked side by side and then registered; protocol, as Nix itself does it; import, by nix-store --import; or auto, the first of them that can be had")
}

func (p *packing) policyFlag(a *app, cmd *cobra.Command, otherwise store.Policy) {
	cmd.Flags().StringVar(&p.policy, "store-cache", or(a.action.Input("store_cache"), string(otherwise)),
		"what is saved: built, what no public cache has; all; or off, nothing")
}

func (p *packing) limitFlag(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.limit, "store-cache-limit", or(a.action.Input("store_cache_limit"), "5GB"),
		"`SIZE` that all packs together may have, such as 5GB; what was not needed for longest goes first, and 0 is no limit")
}

func (p *packing) rootFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.root, "store", "", "a store in `ROOT`/nix/store, in place of this machine's")
}

const engineAuto = "auto"

// checkEngine returns a usage error unless there is an engine of that name.
func (p *packing) checkEngine() error {
	return oneOf("engine", p.engine, engineAuto, "direct", "protocol", "import")
}

// choose returns the engine that was asked for, or the fastest that is available. In a
// workflow that asks for one on all of its machines, it is another one where that one is
// not available. What the store won't take because it does not trust this user is told.
func (p *packing) choose(ctx context.Context, a *app, n *nix.Nix) (store.Engine, error) {
	var err error
	switch p.engine {
	case "protocol":
		return store.Protocol(n), nil
	case "import": // which loses what an untrusted user needs
		if err = n.RefusesUnproven(ctx); err == nil {
			return store.Import(n), nil
		}
		err = fmt.Errorf("the import engine can't be used: %w", err)
	default:
		var engine store.Engine
		if engine, err = direct(ctx, n); err == nil {
			return engine, nil
		}
	}
	if ctx.Err() != nil || p.engine != engineAuto && !a.action.Running() {
		return store.Engine{}, err
	}
	if distrust := n.RefusesUnproven(ctx); errors.Is(distrust, nix.ErrUntrusted) && !errors.Is(err, nix.ErrUntrusted) {
		err = fmt.Errorf("%w; %w", err, distrust)
	}
	a.show.Printf("restoring by Nix's own protocol: %v", err)
	return store.Protocol(n), nil
}

// direct is the direct engine, for which another process of this program runs as root
// where it may and has to.
func direct(ctx context.Context, n *nix.Nix) (store.Engine, error) {
	engine, err := store.Direct(ctx, n)
	if err == nil || ctx.Err() != nil {
		return engine, err
	}
	self, serr := os.Executable()
	if serr != nil {
		return engine, err
	}
	engine, rerr := store.DirectAsRoot(ctx, n, self, serveDirect)
	if rerr != nil {
		return engine, fmt.Errorf("%w; %w", err, rerr)
	}
	return engine, nil
}

// open finds Nix.
func (p *packing) open(ctx context.Context, a *app) (*nix.Nix, error) {
	conf, _, err := a.include(a.getenv(confVariable)) // which is there until the end
	if err != nil {
		return nil, err
	}
	with := nix.Surroundings{Conf: conf}
	if p.root == "" {
		return findNix(ctx, a, with)
	}
	n, err := nix.Find(ctx, a.show, with)
	if err != nil {
		return nil, err
	}
	root, err := filepath.Abs(p.root)
	if err != nil {
		return nil, usagef("--store %s: %w", p.root, err)
	}
	return n.At(root), nil
}

// storePaths reads arguments that are store paths, or lead to such, else those of the
// input.
func (a *app) storePaths(args []string) ([]string, error) {
	if len(args) == 0 {
		args = a.action.Lines("paths")
	}
	paths := make([]string, len(args))
	for i, arg := range args {
		path, err := nix.StorePath(arg)
		if err != nil {
			return nil, &usageError{err}
		}
		paths[i] = path
	}
	return paths, nil
}

// accepts decides which store paths of the cache this job restores.
func (a *app) accepts(n *nix.Nix, keys []string) store.Acceptance {
	if a.trust().AcceptsUnsigned() {
		return store.Everything()
	}
	return store.Proven(slices.Concat(keys, n.Setting("trusted-public-keys"))...)
}

// onlyProven says why, and what helps.
const onlyProven = "a proposal restores nothing else on a runner that GitHub does not host, because its author can write to the cache; set encryption_key to seal the cache"

// restorable leaves in an index what is accepted.
func (a *app) restorable(ix *store.Index, accepts store.Acceptance) *store.Index {
	ix, refused := ix.Accepting(accepts)
	if refused > 0 {
		a.show.Printf("left out %s of the cache with neither a content address nor a signature by a trusted key: %s",
			text.Plural(refused, "store path"), onlyProven)
	}
	return ix
}

// indexKey is what the indexes of a system are stored under.
func (a *app) indexKey(system string) store.IndexKey {
	return store.IndexKey{ID: a.id, System: system, Seal: a.seal}
}

// loadIndex reads what others have saved. What can't be had costs time, no more.
func (a *app) loadIndex(ctx context.Context, c cache.Cache, system string) *store.Index {
	ix, err := store.Load(ctx, c, a.indexKey(system), a.trust().Refs()...)
	if err != nil && ctx.Err() == nil {
		a.spare("Not all that was saved can be had", err)
	}
	return ix
}

// ownIndex reads what this ref's runs have saved, for who will leave an index in its
// place, and that together with what the refs have saved that it goes to. These keep
// their own: no index names what another ref's runs have saved, so none can push that
// out. What can't be had for a passing reason is an error, since it would be hidden for
// good.
func (a *app) ownIndex(ctx context.Context, c cache.Cache, system string) (own, all *store.Index, err error) {
	refs := a.trust().Refs()
	own, err = store.Load(ctx, c, a.indexKey(system), refs[0])
	base, berr := store.Load(ctx, c, a.indexKey(system), refs[1:]...)
	for _, err := range []error{err, berr} {
		if err != nil && !errors.Is(err, pack.ErrCorrupt) && !errors.Is(err, pack.ErrSeal) && !errors.Is(err, cache.ErrReadOnly) {
			return nil, nil, fmt.Errorf("what was saved before is not known, and nothing is saved that could hide it: %w", err)
		}
	}
	return own, store.NewIndex(slices.Concat(own.Packs, base.Packs)...), nil
}

// keepIndex leaves an index for others.
func (a *app) keepIndex(ctx context.Context, c cache.Cache, system string, ix *store.Index) error {
	run := fmt.Sprintf("%s+%s+%d", or(a.getenv("GITHUB_RUN_ID"), "0"), or(a.getenv("GITHUB_RUN_ATTEMPT"), "0"), time.Now().UnixNano())
	return ix.Keep(ctx, c, a.indexKey(system), a.trust().Refs()[0], run)
}

// before is what restore leaves for save: what was there already.
type before struct {
	Store string   `json:"store"` // its root, empty for this machine's
	Valid []string `json:"valid"` // store paths
	// Lost are the keys of the packs that an index names and that were not to be had.
	Lost []string `json:"lost,omitempty"`
}

// beforeFile is where that is left.
func (a *app) beforeFile() (string, error) {
	if a.action.Running() {
		dir, err := a.action.StateDir(a.id)
		return filepath.Join(dir, "before.json"), err
	}
	path, err := cachePath("")
	return filepath.Join(path, "run", a.id+"-before.json"), err
}

func (p *packing) keepBefore(ctx context.Context, a *app, n *nix.Nix, lost []string) error {
	valid, err := n.AllValid(ctx)
	if err != nil {
		return err
	}
	slices.Sort(valid)
	data, err := json.Marshal(before{p.root, valid, lost})
	if err != nil {
		return err
	}
	file, err := a.beforeFile()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o750)
	}
	if err == nil {
		err = writeFile(file, data)
	}
	return err
}

// readBefore gives what was there at the time of restore, nothing if that was not
// called.
func (p *packing) readBefore(a *app) (before, error) {
	file, err := a.beforeFile()
	if err != nil {
		return before{}, err
	}
	data, err := readFile(file, maxBefore, 0)
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
	if b.Store != p.root {
		return before{}, nil
	}
	return b, nil
}

// costs is what becomes of an error of the cache, or of what it has: in a workflow
// nothing that is wrong with it is an error.
func (a *app) costs(ctx context.Context, title string, err error) error {
	var usage *usageError
	ours := errors.Is(err, store.ErrSource) && !errors.Is(err, nix.ErrUntrusted)
	switch {
	case ctx.Err() != nil:
		return errors.Join(err, ctx.Err())
	case err == nil, errors.As(err, &usage), !a.action.Running() && !ours:
		return err
	}
	a.spare(title, err)
	return nil
}

// spare tells what the cache has failed to do. That a job may not use it, as one of a
// pull request from a fork, deserves a line and no warning on the run's page.
func (a *app) spare(title string, err error) {
	if errors.Is(err, cache.ErrReadOnly) {
		a.show.Printf("%s: this job may not use the cache this way, which is so for a pull request from a fork", title)
		return
	}
	a.warn(title, err)
}

// restoring shows how far a restore is.
func (a *app) restoring(done store.Restored) {
	a.show.Doing("restoring: %d paths, %s", done.Paths, text.Size(done.Size))
}

// restored tells what a restore has brought.
func (a *app) restored(got store.Restored, took time.Duration) {
	if got.Paths > 0 {
		a.show.Printf("restored %s (%s) from %s, %s read, in %s", text.Plural(got.Paths, "store path"), text.Size(got.Size),
			text.Plural(len(got.Packs), "pack"), text.Size(got.Bytes), text.Duration(took))
	}
}

// saved is what was put into the cache.
type saved struct {
	Paths int      `json:"paths"`
	Size  int64    `json:"size"` // bytes of packs
	Packs []string `json:"packs"`
}

func (s *saved) add(p *store.Pack) {
	s.Paths += len(p.Index.Records)
	s.Size += p.Size
	s.Packs = append(s.Packs, p.Key)
}

// saving shows how far a save is.
func (a *app) saving(done saved, of int) {
	a.show.Doing("saving: %d of %d store paths, %s", done.Paths, of, text.Size(done.Size))
}

// told tells what was saved.
func (a *app) told(done saved, took time.Duration) {
	if done.Paths > 0 {
		a.show.Printf("saved %s (%s) in %s, in %s", text.Plural(done.Paths, "store path"), text.Size(done.Size),
			text.Plural(len(done.Packs), "pack"), text.Duration(took))
	}
}

// lostPaths are those that a save leaves out.
type lostPaths []string

func (l *lostPaths) add(path string, why error) { *l = append(*l, fmt.Sprintf("%s: %v", path, why)) }

func (a *app) warnLost(lost lostPaths) {
	const most = 5
	if len(lost) == 0 {
		return
	}
	text := strings.Join(lost[:min(len(lost), most)], "; ")
	if more := len(lost) - most; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	a.warn("Some store paths are not saved", errors.New(text))
}
