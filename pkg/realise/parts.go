package realise

import (
	"context"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// A Build realises the targets of one entry: parts of them first, in any order, and then the
// rest. All of it has one log, and a derivation that has failed is not tried again.
type Build struct {
	*realisation
	before map[string]bool // outputs of the targets that were in the store at the beginning
	err    error           // the store cannot be queried
	tried  map[string]bool // what Rest has asked for
}

// Start begins a build of targets, whose derivations must be in the store. There may be none.
func Start(ctx context.Context, store Store, targets []Target, o Options) *Build {
	r := &realisation{store: store, targets: targets, o: o, impure: map[string]bool{}, watch: newWatch(), logs: newLogs(o.Logs, o.KeepLogs)}
	r.failures = &failures{graph: newGraph(store), watch: r.watch, givenUp: map[string]string{}, deadHosts: map[string]string{}, hopeless: map[string]bool{}}
	b := &Build{realisation: r, tried: map[string]bool{}}
	b.before, b.err = r.begin(ctx)
	return b
}

// Finish realises the targets as far as that was not done yet. The Outcome has all targets even
// with an error, which says that the store could not be queried.
func (b *Build) Finish(ctx context.Context) (*Outcome, error) {
	r := b.realisation
	defer r.logs.close()
	err := b.err
	if err == nil {
		err = r.finish(ctx, b.before)
	}
	r.outcome.Builds, r.outcome.Fetched = r.watch.finished, r.watch.fetched
	r.markEmulated()
	if err != nil {
		r.logs.keepFailed(append(r.failedOrUnknown(), r.watch.unfinished()...))
	}
	if err != nil && ctx.Err() != nil {
		for i := range r.outcome.Targets {
			r.outcome.Targets[i].Outcome = job.OutcomeCancelled
		}
	}
	return r.outcome, err
}

// todo returns the outputs to realise, as for Realise: those of the targets that no failure
// blocks, and what the others need and can be built.
func (r *realisation) todo(ctx context.Context) []string {
	if len(r.failures.all) == 0 {
		return Wanted(r.targets)
	}
	blocked := func(t Target) bool { return len(r.failures.blocking(t.DrvPath)) > 0 }
	all := Wanted(slices.DeleteFunc(slices.Clone(r.targets), blocked))
	if r.o.FailFast {
		return all
	}
	for _, output := range r.frontier(ctx, slices.DeleteFunc(slices.Clone(r.targets), func(t Target) bool { return !blocked(t) }), r.failedDrvs()) {
		if !slices.Contains(all, output) {
			all = append(all, output)
		}
	}
	return all
}

// failedDrvs returns the derivations that have failed.
func (r *realisation) failedDrvs() map[string]bool {
	failed := map[string]bool{}
	for _, f := range r.failures.all {
		failed[f.drv] = true
	}
	return failed
}

// Part realises outputs of derivations that some target or another job needs. paths has the output paths
// by derivation and name, nil if they are not known. The failures are those that keep an output from being
// built. done is false without a failure too if Nix refuses to build, or ends early.
func (b *Build) Part(ctx context.Context, wanted []job.Wanted, paths map[string]map[string]string) (done bool, failures []job.Failure, err error) {
	if b.err != nil {
		return false, nil, b.err
	}
	if paths == nil {
		if paths, err = b.store.Outputs(ctx, job.DrvPaths(wanted)...); err != nil {
			return false, nil, err
		}
	}
	part := make([]Target, len(wanted))
	for i, w := range wanted {
		t := job.Target{Attr: job.DrvName(w.DrvPath), DrvPath: w.DrvPath, Outputs: w.Outputs, OutPaths: map[string]string{}}
		for _, output := range w.Outputs {
			if path := paths[w.DrvPath][output]; path != "" {
				t.OutPaths[output] = path
			}
		}
		part[i] = Target{Target: t}
	}
	of := *b.realisation
	of.targets, of.outputs = part, nil
	for _, t := range part {
		of.outputs = append(of.outputs, t.OutPaths)
	}
	err = of.realise(ctx, of.todo(ctx))
	b.assessed = of.assessed
	if err != nil {
		return false, nil, err
	}
	valid, err := of.valid(ctx)
	if err != nil {
		return false, nil, err
	}
	done = true
	for i, t := range part {
		done = done && of.allValid(i, valid)
		for _, failed := range b.failures.blocking(t.DrvPath) {
			if !slices.ContainsFunc(failures, func(f job.Failure) bool { return f.DrvPath == failed.drv }) {
				failures = append(failures, b.failures.describe(failed))
			}
		}
	}
	return done, failures, nil
}

// Rest realises the part of the targets that needs none of the derivations without, and reports
// whether there was any that it had not tried before.
func (b *Build) Rest(ctx context.Context, without map[string]bool) (bool, error) {
	if b.err != nil {
		return false, b.err
	}
	failed := b.failedDrvs()
	for drv := range without {
		failed[drv] = true
	}
	todo := slices.DeleteFunc(b.frontier(ctx, b.targets, failed), func(output string) bool { return b.tried[output] })
	if len(todo) == 0 {
		return false, nil
	}
	var wanted []job.Wanted
	for _, output := range todo {
		b.tried[output] = true
		drv, names, _ := strings.Cut(output, "!")
		wanted = append(wanted, job.Wanted{DrvPath: drv, Outputs: strings.Split(names, ",")})
	}
	_, _, err := b.Part(ctx, wanted, nil)
	return true, err
}

// Block says that derivations have failed in another job, so that nothing that needs them is
// tried here.
func (b *Build) Block(failures ...job.Failure) {
	for i := range failures {
		if f := &failures[i]; b.failures.index(f.DrvPath) < 0 {
			b.failures.all = append(b.failures.all, failure{drv: f.DrvPath, message: f.Error, elsewhere: f})
		}
	}
}
