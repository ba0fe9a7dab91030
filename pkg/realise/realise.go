// Package realise builds the targets of one entry and tells what became of
// each. It evaluates nothing.
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

// Store is what a build needs of Nix.
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
	// Emit is told what happens, one event at a time.
	Emit func(nix.Event)
	// Retries are the pauses before failed downloads are tried again, and before Nix is
	// started again that ended for no failed build.
	Retries []time.Duration
	// Retrying is told of the downloads, each time.
	Retrying func(drvs []string, pause time.Duration)
	// Warn is told, in a line, what changes what can be expected of the build.
	Warn func(text string)
	// FailFast ends the build as soon as none of the targets can be built any more.
	FailFast bool
	// Remote says that the store is on another machine, which gets no settings of ours:
	// it ends all builds when one fails, and has its own idea of how long a builder may
	// print nothing.
	Remote bool
	// Emulated are the systems whose programs an emulator runs on this machine.
	Emulated []string
	// Silence is how long a builder of a remote store may print nothing; 0 is for ever.
	Silence time.Duration
	// Logs is the directory for the logs of derivations that failed, one file
	// each, which is emptied first; none are kept if it has no name.
	Logs string
}

// Outcome is what became of the targets.
type Outcome struct {
	Targets  []job.TargetResult
	Failures []job.Failure
	Builds   []job.DrvBuild
	Fetched  nix.Traffic // from substituters
	// Promised are outputs that were built because the substituter that has them did not
	// deliver them.
	Promised []string
}

// Run realises the targets' derivations, which must be in the store. One that
// fails does not stop the others. There is an Outcome for every target even
// with an error, which says that the store could not be asked.
func Run(ctx context.Context, store Store, targets []Target, o Options) (*Outcome, error) {
	r := &realisation{store: store, targets: targets, o: o, impure: map[string]bool{}, watch: newWatch(), logs: newLogs(o.Logs)}
	r.failures = &failures{graph: newGraph(store), watch: r.watch, given: map[string]string{}, dead: map[string]string{}, hopeless: map[string]bool{}}
	defer r.logs.close()
	err := r.run(ctx)
	r.outcome.Builds, r.outcome.Fetched = r.watch.finished, r.watch.fetched
	r.emulated()
	if err != nil {
		r.logs.keep(append(r.failedOrUnknown(), r.watch.unfinished()...))
	}
	if err != nil && ctx.Err() != nil {
		for i := range r.outcome.Targets {
			r.outcome.Targets[i].Outcome = job.OutcomeCancelled
		}
	}
	return r.outcome, err
}

// emulated notes which builds were emulated, by what is known of each of them, and which
// targets they were for.
func (r *realisation) emulated() {
	if len(r.o.Emulated) == 0 {
		return
	}
	for i := range r.outcome.Builds {
		b := &r.outcome.Builds[i]
		n := r.failures.node(b.DrvPath)
		if b.Emulated = r.watch.here[b.DrvPath] && !n.builtin && slices.Contains(r.o.Emulated, n.system); !b.Emulated {
			continue
		}
		for j := range r.outcome.Targets {
			t := &r.outcome.Targets[j]
			if len(r.failures.among(r.failures.needs(t.DrvPath), b.DrvPath)) > 0 {
				t.Emulated = t.Outcome != job.OutcomePresent && t.Outcome != job.OutcomeFetched
			}
		}
	}
}

// failedOrUnknown are the derivations that failed, and those of which the store
// could not be asked.
func (r *realisation) failedOrUnknown() []string {
	var drvs []string
	for i, b := range r.watch.finished {
		if b.Failed || i >= r.judged {
			drvs = append(drvs, b.DrvPath)
		}
	}
	return drvs
}

type realisation struct {
	store    Store
	targets  []Target
	o        Options
	outputs  []map[string]string // of each target, by name, as far as they are known
	watch    *watch
	logs     *logs
	failures *failures
	outcome  *Outcome
	judged   int             // of the builds that have ended
	impure   map[string]bool // the targets' derivations that were built, and each of whose builds makes other outputs
}

func (r *realisation) run(ctx context.Context) error {
	r.outcome = &Outcome{}
	for _, t := range r.targets {
		result := job.TargetResult{N: t.N, Attr: t.Attr, DrvPath: t.DrvPath, Reproduce: t.Reproduce, Outcome: job.OutcomeFailed, Error: "it was not tried"}
		r.outcome.Targets = append(r.outcome.Targets, result)
		r.outputs = append(r.outputs, maps.Clone(t.OutPaths))
	}
	before, err := r.valid(ctx)
	if err != nil {
		return err
	}
	if err := r.realise(ctx); err != nil {
		return err
	}
	// What is done is done: a build that was stopped tells the truth too.
	unstopped, cancel := afterwards(ctx)
	defer cancel()
	after, err := r.valid(unstopped)
	if err != nil {
		return err
	}
	resolved, err := r.resolved(unstopped)
	if err != nil {
		return err
	}
	failures := r.failures
	kept := r.watch.unfinished()
	for _, failed := range failures.all {
		kept = append(kept, failed.drv)
	}
	r.logs.keep(kept)
	r.outcome.Failures = failures.told()
	for i := range r.outcome.Failures {
		r.outcome.Failures[i].LogFile = r.logs.file(r.outcome.Failures[i].DrvPath)
	}
	r.ownTimes(time.Now())
	for i := range r.targets {
		t, result := &r.targets[i], &r.outcome.Targets[i]
		result.Error = ""
		switch {
		case r.all(i, before):
			result.Outcome, result.Seconds = job.OutcomePresent, 0
		case r.all(i, after):
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

// afterwards is for questions after a build: one that was stopped gets answers, but
// does not wait for them for ever.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	unstopped := context.WithoutCancel(ctx)
	switch {
	case ctx.Err() == nil:
		return unstopped, func() {}
	case errors.Is(ctx.Err(), context.DeadlineExceeded): // nobody is waiting at the door
		return context.WithTimeout(unstopped, time.Minute)
	default:
		return context.WithTimeout(unstopped, 2500*time.Millisecond)
	}
}

// Wanted gives what is to be realised of targets, as DRV!OUT,….
func Wanted(targets []Target) []string {
	all := make([]string, len(targets))
	for i, t := range targets {
		all[i] = t.DrvPath + "!" + strings.Join(t.Outputs, ",")
	}
	return all
}

// valid says which outputs of the targets are in the store. Those whose paths
// follow from what is in them are known only after the build.
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

// resolved gives the outputs that were built, if there are targets whose paths
// are known only now: in place of such a derivation, Nix builds one that has the
// inputs' paths put in.
func (r *realisation) resolved(ctx context.Context) (map[string]bool, error) {
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

// all reports whether a target wants an output, and all that it wants are valid.
func (r *realisation) all(i int, valid map[string]bool) bool {
	return len(r.targets[i].Outputs) > 0 && !slices.ContainsFunc(r.targets[i].Outputs, func(output string) bool { return !valid[r.outputs[i][output]] })
}

// sizes fills in the outputs that are there.
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
			out.Closure, out.Parts = measure(infos, path)
			r.outcome.Targets[i].Outputs = append(r.outcome.Targets[i].Outputs, out)
		}
	}
	return nil
}

// measure gives the size of a closure, and what packages have of it.
func measure(infos map[string]nix.PathInfo, path string) (size int64, parts map[string]int64) {
	seen := map[string]bool{path: true}
	parts = map[string]int64{}
	for todo := []string{path}; len(todo) > 0; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		info := infos[at]
		size += info.NarSize
		parts[job.PackageName(at)] += info.NarSize
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
