package realise

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/job"
)

// maxRounds is how often Nix is started for an entry, at most.
const maxRounds = 100

// rounds is how far the rounds have come: the calls of Realise.
type rounds struct {
	failures, built int // at the end of the last round
	batch           int // derivations to ask for at once, 0 for all
	paused          int // since Nix ended for no reason that has a name
	retried         int // since downloads failed
	told            map[string]bool
}

// realise builds. Nix may have to be started again: a download that failed is tried once
// more; and where Nix, or its store, ends before it is through, the rest that depends on
// nothing that failed is realised.
func (r *realisation) realise(ctx context.Context) error {
	at := rounds{told: map[string]bool{}}
	todo := Wanted(r.targets)
	for range maxRounds {
		whole, err := r.round(ctx, todo, &at)
		if err != nil {
			r.failures.err = err
		}
		if r.failures.err == nil { // in any of the rounds
			return nil
		}
		if err := r.assess(ctx, whole); err != nil || ctx.Err() != nil {
			return err
		}
		if todo = r.next(ctx, todo, whole, &at); len(todo) == 0 {
			return nil
		}
	}
	r.warn("giving up after Nix was started %d times", maxRounds)
	return nil
}

func (r *realisation) warn(format string, args ...any) {
	if r.o.Warn != nil {
		r.o.Warn(fmt.Sprintf(format, args...))
	}
}

// next returns what is to be realised after a round, as for Realise; nothing when that is
// to be the end.
func (r *realisation) next(ctx context.Context, todo []string, whole bool, at *rounds) []string {
	f := r.failures
	nameless := f.watch.nameless()
	if hint(nameless, nil) != "" { // trying again won't help
		return nil
	}
	var rest []string
	if !whole || r.unexplained(ctx) {
		rest = r.rest(ctx)
	}
	built := len(slices.DeleteFunc(slices.Clone(r.watch.finished), failedBuild))
	progress := len(f.all) > at.failures || built > at.built
	at.failures, at.built = len(f.all), built
	switch {
	case len(rest) == 0:
		return r.downloads(ctx, at)
	case progress: // what it ended for is known, or something was built
		if nameless != "" && !at.told[nameless] {
			at.told[nameless] = true
			r.warn("Nix ended before it was done: %s: going on with the rest", brief(nameless))
		}
		at.batch *= 2
	case at.paused < len(r.o.Retries):
		pause := r.o.Retries[at.paused]
		at.paused++
		r.warn("Nix ended before it was done: %s: trying again in %v", brief(cmp.Or(nameless, f.err.Error())), pause)
		if !sleep(ctx, pause) {
			return nil
		}
	case len(todo) > 1: // those for which it ends are to be told from the others
		at.batch = (len(todo) + 1) / 2
	default:
		drv, _, _ := strings.Cut(todo[0], "!")
		f.given[drv] = f.reason(drv)
		if rest = r.rest(ctx); len(rest) == 0 {
			return r.downloads(ctx, at)
		}
	}
	if at.batch > 0 && at.batch < len(rest) {
		return rest[:at.batch]
	}
	return rest
}

// unexplained reports whether a target is not there although nothing that it needs failed.
func (r *realisation) unexplained(ctx context.Context) bool {
	var valid map[string]bool
	for i, t := range r.targets {
		if len(r.failures.keptFrom(t.DrvPath)) > 0 {
			continue
		}
		if valid == nil {
			var err error
			if valid, err = r.valid(ctx); err != nil {
				return true
			}
		}
		if !r.all(i, valid) {
			return true
		}
	}
	return false
}

// rest returns what Nix would still build for the targets and what depends on nothing
// that failed, as for Realise. What can't be asked is not tried again.
func (r *realisation) rest(ctx context.Context) []string {
	f := r.failures
	targets := slices.DeleteFunc(slices.Clone(r.targets), func(t Target) bool {
		return r.impure[t.DrvPath] || f.given[t.DrvPath] != "" || r.o.FailFast && len(f.keptFrom(t.DrvPath)) > 0
	})
	if len(targets) == 0 {
		return nil
	}
	toBuild, err := r.store.ToBuild(ctx, Wanted(targets))
	if err != nil {
		return nil
	}
	frontier := &frontier{graph: f.graph, toBuild: map[string]bool{}, given: map[string]bool{}, lost: map[string]bool{}, outputs: map[string][]string{}}
	for _, drv := range toBuild {
		frontier.toBuild[drv] = true
		frontier.given[drv] = f.dead[f.node(drv).host] != ""
	}
	for drv := range f.given {
		frontier.given[drv] = true
	}
	for _, failed := range f.all {
		for _, drv := range f.among(frontier.toBuild, failed.drv) {
			frontier.given[drv] = true
		}
	}
	for _, t := range targets {
		frontier.from(t.DrvPath, t.Outputs, true)
	}
	return frontier.wanted()
}

// downloads returns the targets that are missing for nothing but what could not be
// fetched, after a pause, as often as that is to be tried again.
func (r *realisation) downloads(ctx context.Context, at *rounds) []string {
	if at.retried == len(r.o.Retries) {
		return nil
	}
	again, drvs := r.failures.fetches(r.targets)
	if len(again) == 0 {
		return nil
	}
	pause := r.o.Retries[at.retried]
	at.retried++
	r.o.Retrying(drvs, pause)
	if !sleep(ctx, pause) {
		return nil
	}
	f := r.failures
	f.all = slices.DeleteFunc(f.all, func(failed failure) bool { return slices.Contains(drvs, failed.drv) })
	clear(f.dead)
	at.failures = len(f.all)
	return Wanted(again)
}

// fetches returns the targets that failed for nothing but what could not be fetched, and
// the derivations that were to fetch it.
func (f *failures) fetches(targets []Target) (again []Target, drvs []string) {
	for _, t := range targets {
		kept := f.keptFrom(t.DrvPath)
		if len(kept) == 0 && f.forsaken(t.DrvPath) == "" || slices.ContainsFunc(kept, func(failed failure) bool { return !f.fetch(failed) }) {
			continue
		}
		again = append(again, t)
		for _, failed := range kept {
			if !slices.Contains(drvs, failed.drv) {
				drvs = append(drvs, failed.drv)
			}
		}
	}
	return again, drvs
}

// forsaken says why not all that a derivation needs from a host was fetched, if that is so.
func (f *failures) forsaken(drv string) (why string) {
	if len(f.dead) == 0 {
		return ""
	}
	for needed := range f.needs(drv) {
		if f.of(needed) < 0 {
			why = max(why, f.dead[f.node(needed).host])
		}
	}
	return why
}

// sleep reports whether it came to an end before the context did.
func sleep(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

func failedBuild(b job.DrvBuild) bool { return b.Failed }
