// Package build realises the targets of one entry and tells what became of
// each. It evaluates nothing.
package build

import (
	"context"
	"fmt"
	"time"

	"github.com/nix-community/go-nix/pkg/derivation"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// Store is what a build needs of Nix.
type Store interface {
	Valid(ctx context.Context, paths ...string) (map[string]bool, error)
	Realise(ctx context.Context, outputs []string, emit func(nix.Event), options ...nix.Option) error
	Requisites(ctx context.Context, paths ...string) ([]string, error)
	Info(ctx context.Context, paths ...string) ([]nix.PathInfo, error)
	Derivation(path string) (*derivation.Derivation, error)
}

// A Target is a target of the Plan with its number there.
type Target struct {
	N int
	job.Target
}

// Options say how to build.
type Options struct {
	Nix []nix.Option
	// Emit is told what happens, one event at a time.
	Emit func(nix.Event)
}

// Outcome is what became of the targets.
type Outcome struct {
	Targets []job.TargetResult
	Builds  []job.DrvBuild
}

// Run realises the targets' derivations, which must be in the store. One that
// fails does not stop the others. There is an Outcome for every target even
// with an error, which says that the store could not be asked.
func Run(ctx context.Context, store Store, targets []Target, o Options) (*Outcome, error) {
	r := &realisation{store: store, targets: targets, watch: newWatch(), started: time.Now()}
	err := r.run(ctx, o)
	return r.outcome, err
}

type realisation struct {
	store   Store
	targets []Target
	watch   *watch
	started time.Time
	outcome *Outcome
}

func (r *realisation) run(ctx context.Context, o Options) error {
	r.outcome = &Outcome{}
	for _, t := range r.targets {
		result := job.TargetResult{N: t.N, Attr: t.Attr, DrvPath: t.DrvPath, Reproduce: t.Reproduce, Outcome: job.Broken, Error: "it was not tried"}
		if ctx.Err() != nil {
			result.Outcome = job.Cancelled
		}
		r.outcome.Targets = append(r.outcome.Targets, result)
	}
	outPaths := r.outPaths()
	before, err := r.store.Valid(ctx, outPaths...)
	if err != nil {
		return err
	}
	realiseErr := r.store.Realise(ctx, r.wanted(), func(e nix.Event) {
		r.watch.see(e, ctx.Err() != nil)
		o.Emit(e)
	}, o.Nix...)

	// What is done is done: a build that was cancelled tells the truth too.
	cancelled := ctx.Err() != nil
	ctx = context.WithoutCancel(ctx)
	after, err := r.store.Valid(ctx, outPaths...)
	if err != nil {
		return err
	}
	failures, err := r.failures(ctx, realiseErr)
	if err != nil {
		return err
	}
	r.outcome.Builds = r.watch.finished
	for i := range r.targets {
		t, result := &r.targets[i], &r.outcome.Targets[i]
		result.Error = ""
		result.Seconds = r.watch.until(t.DrvPath, r.started)
		switch {
		case len(t.OutPaths) == len(t.Outputs) && r.all(t, before, realiseErr):
			result.Outcome, result.Seconds = job.Present, 0
		case r.all(t, after, realiseErr):
			result.Outcome = job.Fetched
			if r.watch.built[t.DrvPath] {
				result.Outcome = job.Built
			}
		case failures.cause(result):
			result.Outcome = job.Broken
		case cancelled:
			result.Outcome = job.Cancelled
			result.Error = "the build was stopped"
		default:
			result.Outcome = job.Broken
			failures.explain(result)
		}
	}
	return r.sizes(ctx, after)
}

// wanted gives what is to be realised, as DRV!OUT,….
func (r *realisation) wanted() []string {
	wanted := make([]string, len(r.targets))
	for i, t := range r.targets {
		wanted[i] = t.DrvPath
		for j, output := range t.Outputs {
			wanted[i] += map[bool]string{true: "!", false: ","}[j == 0] + output
		}
	}
	return wanted
}

func (r *realisation) outPaths() []string {
	var paths []string
	for _, t := range r.targets {
		for _, path := range t.OutPaths {
			paths = append(paths, path)
		}
	}
	return paths
}

// all says whether all wanted outputs of a target are valid. Where their paths
// are not known before the build, only its success can tell.
func (r *realisation) all(t *Target, valid map[string]bool, realiseErr error) bool {
	for _, output := range t.Outputs {
		path, known := t.OutPaths[output]
		if known && !valid[path] || !known && realiseErr != nil {
			return false
		}
	}
	return len(t.OutPaths) > 0 || realiseErr == nil
}

// sizes fills in the outputs that are there.
func (r *realisation) sizes(ctx context.Context, valid map[string]bool) error {
	var roots []string
	for path := range valid {
		roots = append(roots, path)
	}
	if len(roots) == 0 {
		return nil
	}
	closure, err := r.store.Requisites(ctx, roots...)
	if err != nil {
		return err
	}
	infos, err := r.store.Info(ctx, closure...)
	if err != nil {
		return err
	}
	byPath := make(map[string]*nix.PathInfo, len(infos))
	for i := range infos {
		byPath[infos[i].Path] = &infos[i]
	}
	for i, t := range r.targets {
		for _, output := range t.Outputs {
			path := t.OutPaths[output]
			info, ok := byPath[path]
			if !ok {
				continue
			}
			r.outcome.Targets[i].Outputs = append(r.outcome.Targets[i].Outputs, job.Output{
				Name: output, Path: path, Size: info.NarSize, Closure: closureSize(byPath, path),
			})
		}
	}
	return nil
}

func closureSize(infos map[string]*nix.PathInfo, path string) int64 {
	seen := map[string]bool{path: true}
	var size int64
	for todo := []string{path}; len(todo) > 0; {
		info := infos[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		size += info.NarSize
		for _, ref := range info.References {
			if !seen[ref] {
				seen[ref] = true
				todo = append(todo, ref)
			}
		}
	}
	return size
}

// failures are the derivations that failed, the first one first.
type failures struct {
	store   Store
	drvs    []string
	watch   *watch
	realise error
}

// failures finds them out: those that were built and whose outputs are not
// there. That holds for every version of Nix, whatever its messages are like.
func (r *realisation) failures(ctx context.Context, realiseErr error) (*failures, error) {
	f := &failures{store: r.store, watch: r.watch, realise: realiseErr}
	if realiseErr == nil {
		return f, nil
	}
	outputs := map[string][]string{}
	var all []string
	for _, b := range r.watch.finished {
		drv, err := r.store.Derivation(b.DrvPath)
		if err != nil {
			return nil, err
		}
		for _, out := range drv.Outputs {
			if out.Path != "" { // else it is known only after the build
				outputs[b.DrvPath] = append(outputs[b.DrvPath], out.Path)
				all = append(all, out.Path)
			}
		}
	}
	valid, err := r.store.Valid(ctx, all...)
	if err != nil {
		return nil, err
	}
	for i := range r.watch.finished {
		b := &r.watch.finished[i]
		for _, out := range outputs[b.DrvPath] {
			b.Failed = b.Failed || !valid[out] && !r.watch.interrupted[b.DrvPath]
		}
		if b.Failed {
			f.drvs = append(f.drvs, b.DrvPath)
		}
	}
	return f, nil
}

// cause names the derivation whose failure kept a target from being built, if
// there is one.
func (f *failures) cause(result *job.TargetResult) bool {
	if len(f.drvs) == 0 {
		return false
	}
	needs := f.needs(result.DrvPath)
	for _, drv := range f.drvs {
		if needs[drv] {
			result.Cause = drv
			result.Log = f.watch.log[drv]
			result.Error = f.watch.message(drv)
			if result.Error == "" {
				result.Error = fmt.Sprintf("builder of %s failed", drv)
			}
			return true
		}
	}
	return false
}

// explain says why a target without such a cause was not built.
func (f *failures) explain(result *job.TargetResult) {
	result.Error = f.watch.message(result.DrvPath)
	if result.Error == "" && f.realise != nil {
		result.Error = f.realise.Error()
	}
	if result.Error == "" {
		result.Error = "nix-store --realise succeeded, but its outputs are not in the store"
	}
}

// needs gives the derivations that a derivation needs, itself included.
func (f *failures) needs(drv string) map[string]bool {
	needs := map[string]bool{drv: true}
	for todo := []string{drv}; len(todo) > 0; {
		d, err := f.store.Derivation(todo[len(todo)-1])
		todo = todo[:len(todo)-1]
		if err != nil {
			continue // it is not here, so nothing of it was built
		}
		for input := range d.InputDerivations {
			if !needs[input] {
				needs[input] = true
				todo = append(todo, input)
			}
		}
	}
	return needs
}
