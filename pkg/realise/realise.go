// Package realise builds the targets of one entry. It finds the derivations that each failure is due
// to, and evaluates nothing.
package realise

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nix-community/go-nix/pkg/derivation"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// Store is the part of Nix that a build needs.
type Store interface {
	Valid(ctx context.Context, paths ...string) (map[string]bool, error)
	Realise(ctx context.Context, outputs []string, emit func(nix.Event)) error
	RealiseImpure(ctx context.Context, drv string, emit func(nix.Event)) (map[string]string, error)
	ToBuild(ctx context.Context, outputs []string) ([]string, error)
	Closure(ctx context.Context, paths ...string) (map[string]nix.PathInfo, error)
	Derivation(path string) (*derivation.Derivation, error)
	Outputs(ctx context.Context, drvs ...string) (map[string]map[string]string, error)
	ValidOutputs(ctx context.Context, drvs ...string) (map[string]nix.ValidOutputs, error)
}

// A Target is a target of the Plan with its number there.
type Target struct {
	N int
	job.Target
}

// Options say how to build.
type Options struct {
	// Emit is called with each event, one at a time.
	Emit func(nix.Event)
	// Retries are the pauses before failed downloads are retried, and before Nix is restarted
	// after an end without a failed build.
	Retries []time.Duration
	// Retrying is called before each retry of downloads.
	Retrying func(drvs []string, pause time.Duration)
	// Warn is called with a line about anything that changes the expected course.
	Warn func(text string)
	// FailFast ends the build as soon as none of the targets can be built any more.
	FailFast bool
	// Remote says that the store is on another machine, which ignores our settings: it ends
	// all builds when one fails, and has its own max-silent-time.
	Remote bool
	// Emulated are the systems whose programs an emulator runs on this machine.
	Emulated []string
	// Silence is how long a builder of a remote store may print nothing; 0 is no limit.
	Silence time.Duration
	// Logs is the directory for the logs of derivations that failed, one file each, which is
	// emptied first, except with KeepLogs. If it is empty, no logs are kept.
	Logs     string
	KeepLogs bool
}

// Outcome is the result of Run.
type Outcome struct {
	Targets  []job.TargetResult
	Failures []job.Failure
	Builds   []job.DrvBuild
	Fetched  nix.Traffic // from substituters
	// Promised are outputs that were built because the substituter that listed them did not
	// serve them.
	Promised []string
}

// Run realises the targets' derivations, which must be in the store. A failure does not stop
// the others. The Outcome has all targets even with an error, which says that the store could
// not be queried.
func Run(ctx context.Context, store Store, targets []Target, o Options) (*Outcome, error) {
	return Start(ctx, store, targets, o).Finish(ctx)
}

// markEmulated marks the builds that were emulated, and the targets that needed them.
func (r *realisation) markEmulated() {
	if len(r.o.Emulated) == 0 {
		return
	}
	for i := range r.outcome.Builds {
		b := &r.outcome.Builds[i]
		n := r.failures.node(b.DrvPath)
		if b.Emulated = r.watch.local[b.DrvPath] && !n.builtin && slices.Contains(r.o.Emulated, n.system); !b.Emulated {
			continue
		}
		for j := range r.outcome.Targets {
			t := &r.outcome.Targets[j]
			if len(r.failures.matching(r.failures.needs(t.DrvPath), b.DrvPath)) > 0 {
				t.Emulated = t.Outcome != job.OutcomePresent && t.Outcome != job.OutcomeFetched
			}
		}
	}
}

// failedOrUnknown returns the derivations that failed, and those about which the store could
// not be queried.
func (r *realisation) failedOrUnknown() []string {
	var drvs []string
	for i, b := range r.watch.finished {
		if b.Failed || i >= r.assessed {
			drvs = append(drvs, b.DrvPath)
		}
	}
	return drvs
}

type realisation struct {
	store    Store
	targets  []Target
	o        Options
	outputs  []map[string]string // of each target, by name, as far as known
	watch    *watch
	logs     *logs
	failures *failures
	outcome  *Outcome
	assessed int             // how many of the ended builds
	impure   map[string]bool // impure derivations of targets that were built
}

// begin fills in the targets, and returns which of their outputs are in the store.
func (r *realisation) begin(ctx context.Context) (before map[string]bool, err error) {
	r.outcome = &Outcome{Targets: []job.TargetResult{}}
	for _, t := range r.targets {
		result := job.TargetResult{N: t.N, Attr: t.Attr, DrvPath: t.DrvPath, Reproduce: t.Reproduce, Outcome: job.OutcomeFailed, Error: "it was not tried"}
		r.outcome.Targets = append(r.outcome.Targets, result)
		r.outputs = append(r.outputs, maps.Clone(t.OutPaths))
	}
	return r.valid(ctx)
}

// finish realises the targets. before are those of their outputs that were in the store at the
// beginning.
func (r *realisation) finish(ctx context.Context, before map[string]bool) error {
	if err := r.realise(ctx, r.todo(ctx)); err != nil {
		return err
	}
	// A build that was stopped reports its finished targets too.
	unstopped, cancel := graceContext(ctx)
	defer cancel()
	after, err := r.valid(unstopped)
	if err != nil {
		return err
	}
	resolved, err := r.builtOutputs(unstopped)
	if err != nil {
		return err
	}
	failures := r.failures
	kept := r.watch.unfinished()
	for _, failed := range failures.all {
		kept = append(kept, failed.drv)
	}
	r.logs.keepFailed(kept)
	r.outcome.Failures = failures.summaries()
	for i := range r.outcome.Failures {
		r.outcome.Failures[i].LogFile = r.logs.file(r.outcome.Failures[i].DrvPath)
	}
	r.ownTimes(time.Now())
	for i := range r.targets {
		t, result := &r.targets[i], &r.outcome.Targets[i]
		result.Error = ""
		switch {
		case r.allValid(i, before):
			result.Outcome, result.Seconds = job.OutcomePresent, 0
		case r.allValid(i, after):
			result.Outcome = job.OutcomeFetched
			if r.impure[t.DrvPath] || r.watch.built[t.DrvPath] || resolved[r.outputs[i][t.Outputs[0]]] {
				result.Outcome = job.OutcomeBuilt
			}
		case failures.cause(result):
			result.Outcome = job.OutcomeFailed
		case ctx.Err() != nil:
			result.Outcome = job.OutcomeCancelled
			result.Error = "the build was stopped"
		default:
			result.Outcome = job.OutcomeFailed
			failures.explain(result)
		}
	}
	if r.outcome.Promised, err = r.promised(unstopped); err != nil {
		return err
	}
	return r.sizes(unstopped, after)
}

// promised returns the outputs that Nix began to fetch, and then built.
func (r *realisation) promised(ctx context.Context) ([]string, error) {
	if len(r.watch.promised) == 0 || len(r.watch.finished) == 0 {
		return nil, nil
	}
	var drvs, paths []string
	for _, b := range r.watch.finished {
		if !b.Failed {
			drvs = append(drvs, b.DrvPath)
		}
	}
	outputs, err := r.store.Outputs(ctx, drvs...)
	for _, byName := range outputs {
		for _, path := range byName {
			if r.watch.promised[path] {
				paths = append(paths, path)
			}
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), err
}

// graceContext returns a context for queries after a build: if the build was stopped, they
// still run, for a limited time.
func graceContext(ctx context.Context) (context.Context, context.CancelFunc) {
	unstopped := context.WithoutCancel(ctx)
	switch {
	case ctx.Err() == nil:
		return unstopped, func() {}
	case errors.Is(ctx.Err(), context.DeadlineExceeded): // nobody waits for the process to end
		return context.WithTimeout(unstopped, time.Minute)
	default:
		return context.WithTimeout(unstopped, 2500*time.Millisecond)
	}
}

// Wanted returns the outputs to realise of targets, as DRV!OUT,….
func Wanted(targets []Target) []string {
	all := make([]string, len(targets))
	for i, t := range targets {
		all[i] = t.DrvPath + "!" + strings.Join(t.Outputs, ",")
	}
	return all
}

// valid returns which outputs of the targets are in the store. The paths of content-addressed
// outputs are known only after the build.
func (r *realisation) valid(ctx context.Context) (map[string]bool, error) {
	var paths, unknown []string
	for i, t := range r.targets {
		if len(r.outputs[i]) < len(t.Outputs) {
			unknown = append(unknown, t.DrvPath)
		}
	}
	if len(unknown) > 0 {
		known, err := r.store.Outputs(ctx, unknown...)
		if err != nil {
			return nil, err
		}
		for i, t := range r.targets {
			for _, output := range t.Outputs {
				if path := known[t.DrvPath][output]; path != "" {
					if r.outputs[i] == nil {
						r.outputs[i] = map[string]string{}
					}
					r.outputs[i][output] = path
				}
			}
		}
	}
	for _, outputs := range r.outputs {
		paths = slices.AppendSeq(paths, maps.Values(outputs))
	}
	return r.store.Valid(ctx, paths...)
}

// builtOutputs returns the outputs that were built, if there are targets whose paths are known
// only after the build: in place of such a derivation, Nix builds one with the inputs' paths
// filled in.
func (r *realisation) builtOutputs(ctx context.Context) (map[string]bool, error) {
	if !slices.ContainsFunc(r.targets, func(t Target) bool { return len(t.OutPaths) < len(t.Outputs) }) {
		return nil, nil //nolint:nilnil // none, which is no error
	}
	outputs, err := r.store.Outputs(ctx, slices.Collect(maps.Keys(r.watch.built))...)
	built := map[string]bool{}
	for _, byName := range outputs {
		for _, path := range byName {
			built[path] = path != ""
		}
	}
	return built, err
}

// allValid reports whether a target wants an output, and all wanted outputs are valid.
func (r *realisation) allValid(i int, valid map[string]bool) bool {
	return len(r.targets[i].Outputs) > 0 && !slices.ContainsFunc(r.targets[i].Outputs, func(output string) bool { return !valid[r.outputs[i][output]] })
}

// sizes fills in the outputs that are valid, with their sizes.
func (r *realisation) sizes(ctx context.Context, valid map[string]bool) error {
	if len(valid) == 0 {
		return nil
	}
	infos, err := r.store.Closure(ctx, slices.Collect(maps.Keys(valid))...)
	if err != nil {
		return err
	}
	for i, t := range r.targets {
		for _, output := range t.Outputs {
			path := r.outputs[i][output]
			info, ok := infos[path]
			if !ok {
				continue
			}
			out := job.Output{Name: output, Path: path, Size: info.NarSize}
			out.Closure, out.Parts = Measure(infos, path)
			r.outcome.Targets[i].Outputs = append(r.outcome.Targets[i].Outputs, out)
		}
	}
	return nil
}

// Measure returns the size of the closure of a path, and of packages in it, from the metadata of at least that
// closure.
func Measure(infos map[string]nix.PathInfo, path string) (size int64, parts map[string]int64) {
	seen := map[string]bool{path: true}
	parts = map[string]int64{}
	for todo := []string{path}; len(todo) > 0; {
		current := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		info := infos[current]
		size += info.NarSize
		parts[job.PackageName(current)] += info.NarSize
		for _, ref := range info.References {
			if !seen[ref] {
				seen[ref] = true
				todo = append(todo, ref)
			}
		}
	}
	maps.DeleteFunc(parts, func(_ string, size int64) bool { return size < job.MinPart })
	if len(parts) == 0 {
		parts = nil
	}
	return size, parts
}
