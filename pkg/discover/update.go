package discover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/nearest"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/git"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/realise"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// An Updater updates the lock file of the flake in the working directory, and finds out what that rebuilds.
type Updater struct {
	// Open opens a discovery of the flake; the Updater closes its Env. It is called before the update and
	// after it.
	Open   func(context.Context) (*Discovery, error)
	Inputs []string // names; none is all of them
	DryRun bool     // the lock file stays as it was
	// Record returns the record that has sizes of closures, nil if there is none.
	Record func(context.Context) *job.Record
	Log    Log
}

// An Update is a new lock file with what it rebuilds. Nothing of it is built.
type Update struct {
	LockFile string // relative to the root of the git repository, or else to the working directory
	Lock     []byte // its new content
	Commit   string // of the checkout, empty if unknown
	Inputs   []nix.InputChange
	Change   *verdict.Change // nil if the targets of before are unknown
	Plan     *job.Plan       // of the new lock file
	// Rebuild has the derivations that no substituter has, of the targets that are new or change.
	Rebuild *plan.Rebuild
	// Substituters are the addresses that were asked, without credentials.
	Substituters []string
}

// lockName is the name of a flake's lock file, and maxLock the most bytes of one: Nix itself writes about 500 bytes for
// each input.
const (
	lockName = "flake.lock"
	maxLock  = job.MaxLock
)

// Run updates the lock file. It returns nil if the inputs have nothing new. With an error, the lock file is as it was.
func (u *Updater) Run(ctx context.Context) (_ *Update, err error) {
	old, err := readLock()
	if err != nil {
		return nil, err
	}
	d, err := u.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Env.Close()
	ref, err := d.ownFlake()
	if err != nil {
		return nil, err
	}
	pins, err := u.pins(ctx, d, ref, old)
	if err != nil {
		return nil, err
	}
	before, err := u.before(ctx, d)
	if err != nil {
		return nil, err
	}
	keep := false // the new lock file
	defer func() {
		if !keep {
			err = errors.Join(err, restoreLock(old))
		}
	}()
	u.Log.Doing("updating %s", lockName)
	if err := d.Env.UpdateLock(ctx, ref, u.Inputs...); err != nil {
		return nil, fmt.Errorf("cannot update %s: %w", lockName, err)
	}
	fresh, err := readLock()
	if err != nil {
		return nil, err
	}
	if bytes.Equal(fresh, old) {
		return nil, nil //nolint:nilnil // nothing new is one of the answers
	}
	result := &Update{Lock: fresh, LockFile: lockName}
	now, err := nix.ParseLock(fresh)
	if err != nil {
		return nil, err
	}
	result.Inputs = pins.Changes(now)
	if err := result.locate(ctx); err != nil {
		return nil, err
	}
	if err := u.after(ctx, d, before, result); err != nil {
		return nil, err
	}
	keep = !u.DryRun
	return result, nil
}

// readLock returns the content of the lock file, nil without one.
func readLock() ([]byte, error) {
	if _, err := os.Stat("flake.nix"); err != nil {
		here, _ := os.Getwd()
		return nil, usage.Errorf("cannot update a lock file: there is no flake.nix in %s. Name its directory with --working-directory", here)
	}
	data, err := documents.ReadFile(lockName, maxLock)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// restoreLock writes the lock file as it was, and removes one that is new.
func restoreLock(old []byte) error {
	if old == nil {
		if err := os.Remove(lockName); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if now, err := readLock(); err == nil && bytes.Equal(now, old) {
		return nil
	}
	return os.WriteFile(lockName, old, 0o644)
}

// ownFlake returns the reference to the flake in the working directory. It is an error if another one is
// evaluated, since its lock file would not be updated.
func (d *Discovery) ownFlake() (string, error) {
	refs := d.Evaluate.Flakes()
	for _, ref := range refs {
		path, query, _ := strings.Cut(ref, "?")
		if path != "." && path != "./" || strings.Contains("&"+query, "&dir=") || len(refs) > 1 {
			return "", usage.Errorf("cannot update the lock file of %s: only that of the flake in the working directory. Name its directory with --working-directory, and installables as .#ATTR", valid.Quote(ref))
		}
	}
	return refs[0], nil
}

// pins returns the pins of the lock file as it is, none without one. It is an error if the flake has no inputs, or
// lacks one that is to be updated.
func (u *Updater) pins(ctx context.Context, d *Discovery, ref string, old []byte) (*nix.LockedInputs, error) {
	pins := &nix.LockedInputs{}
	var err error
	if old != nil {
		if pins, err = nix.ParseLock(old); err != nil {
			return nil, err
		}
	}
	lacks := func(of *nix.LockedInputs) string {
		for _, input := range u.Inputs {
			if _, pinned := of.Pins[input]; !pinned && !slices.Contains(of.Inputs, input) {
				return input
			}
		}
		return ""
	}
	if len(pins.Inputs) > 0 && lacks(pins) == "" {
		return pins, nil
	}
	all, err := d.Env.LockedInputs(ctx, ref) // the lock file may lack inputs that flake.nix has
	if err != nil {
		return nil, err
	}
	switch wrong := lacks(all); {
	case len(all.Inputs) == 0:
		return nil, usage.Errorf("the flake has no inputs, so there is nothing to update")
	case wrong != "":
		return nil, usage.Errorf("the flake has no input %s%s; it has %s. Correct --inputs", valid.Quote(wrong), nearest.Hint(wrong, all.Inputs), strings.Join(all.Inputs, ", "))
	}
	return pins, nil
}

// before returns the Plan of the lock file as it is, nil if it cannot be made.
func (u *Updater) before(ctx context.Context, d *Discovery) (*job.Plan, error) {
	d.onlyLook()
	p, err := d.Plan(ctx)
	if err == nil {
		return p, nil
	}
	if wrong := (*usage.Error)(nil); errors.As(err, &wrong) || ctx.Err() != nil {
		return nil, err
	}
	u.Log.Warn("Cannot compare with the lock file as it is", err)
	return nil, nil //nolint:nilnil // an update may mend what is broken
}

// onlyLook has the Plan say which outputs substituters have, those of binary caches that are pushed to among them. Nothing
// is written to the cache.
func (d *Discovery) onlyLook() {
	d.DryRun = true
	d.Env.Destinations = nil
}

// locate sets the lock file's name in its git repository, and the commit.
func (u *Update) locate(ctx context.Context) error {
	repository, err := git.Find(".", nix.Environ())
	if err != nil || repository == nil {
		return err
	}
	here, err := filepath.EvalSymlinks(".")
	if err == nil {
		here, err = filepath.Abs(here)
	}
	if err == nil {
		here, err = filepath.EvalSymlinks(here)
	}
	if err == nil {
		u.LockFile, err = filepath.Rel(repository.Root, filepath.Join(here, lockName))
	}
	if err != nil {
		return err
	}
	if heads := git.Heads(ctx, nix.Environ(), "."); len(heads) == 1 {
		u.Commit = heads[0]
	}
	return nil
}

// after evaluates the flake with its new lock file, and compares.
func (u *Updater) after(ctx context.Context, first *Discovery, before *job.Plan, result *Update) error {
	d, err := u.Open(ctx)
	if err != nil {
		return err
	}
	defer d.Env.Close()
	d.onlyLook()
	p, err := d.Plan(ctx)
	if err != nil {
		return fmt.Errorf("cannot evaluate the flake with its new %s: %w", lockName, err)
	}
	result.Plan = p
	result.Rebuild = d.Planning.Missing.Rebuild(fresh(before, p))
	for _, address := range d.Env.Substituters() {
		result.Substituters = append(result.Substituters, nix.Redact(address))
	}
	if before != nil {
		closures := first.closures(ctx, before, p)
		maps.Copy(closures, d.closures(ctx, p, before))
		if r := u.Record(ctx); r != nil {
			for i := range r.Targets {
				if t := &r.Targets[i]; t.Closure > 0 && t.DrvPath != "" {
					closures[t.DrvPath] = verdict.Closure{Bytes: t.Closure, Parts: t.Parts}
				}
			}
		}
		result.Change = verdict.ComparePlans(before, p, closures, result.Rebuild.Count, result.Rebuild.Needs)
	}
	return nil
}

// fresh returns the targets of a Plan with derivations that another Plan, which may be nil, does not have.
func fresh(before, p *job.Plan) []job.Target {
	if before == nil {
		return p.Targets
	}
	were := map[string]bool{}
	for i := range before.Targets {
		were[before.Targets[i].DrvPath] = true
	}
	return slices.DeleteFunc(slices.Clone(p.Targets), func(t job.Target) bool { return were[t.DrvPath] })
}

// closuresTime is how long the sizes of closures may take, which are worth some requests and no more.
const closuresTime = time.Minute

// closures returns the closures of the targets of a Plan that are in the store of this machine or at one
// substituter, as far as the other Plan has another derivation for them.
func (d *Discovery) closures(ctx context.Context, p, other *job.Plan) map[string]verdict.Closure {
	outs := map[string]string{} // derivations, by their outputs
	for _, t := range fresh(other, p) {
		if out := (&verdict.Target{Target: t, Status: verdict.TargetSkipped}).Output(); out.Path != "" {
			outs[out.Path] = t.DrvPath
		}
	}
	closures := map[string]verdict.Closure{}
	if len(outs) == 0 {
		return closures
	}
	d.log.Doing("looking up the sizes of closures")
	ctx, cancel := context.WithTimeout(ctx, closuresTime)
	defer cancel()
	at := map[string][]string{} // paths, by the substituter that has them; the empty one is this machine's store
	here, err := d.Env.Valid(ctx, slices.Sorted(maps.Keys(outs))...)
	if err == nil {
		at[""] = slices.Sorted(maps.Keys(here))
	}
	for _, place := range d.evaluation.places {
		for path := range place.Has {
			if from := place.From(path); outs[path] != "" && !here[path] && from != "" {
				at[from] = append(at[from], path)
			}
		}
	}
	for from, paths := range at {
		store := d.Env.Nix
		if from != "" {
			store = store.WithStore(from)
		}
		infos, err := store.Closure(ctx, paths...)
		if err != nil { // a binary cache may have a part of a closure, and others the rest
			d.log.Printf("the closures of %s are of unknown size: %v", text.Plural(len(paths), "target"), err)
			continue
		}
		for _, path := range paths {
			var c verdict.Closure
			c.Bytes, c.Parts = realise.Measure(infos, path)
			closures[outs[path]] = c
		}
	}
	return closures
}
