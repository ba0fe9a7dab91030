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

// maxRounds is how often Nix is started at most for an entry.
const maxRounds = 100

// rounds is the state of the rounds, the calls of Realise.
type rounds struct {
	failures, built int // at the end of the last round
	batch           int // derivations to ask for at once, 0 for all
	paused          int // after an end of Nix without a failed build
	retried         int // after failed downloads
	warned          map[string]bool
}

// realise builds outputs of the targets, as for Realise. Nix may have to be restarted: failed
// downloads are retried; and if Nix, or its store, ends early, the rest that depends on no
// failure is realised.
func (r *realisation) realise(ctx context.Context, todo []string) error {
	if len(todo) == 0 {
		return nil
	}
	r.failures.err = nil
	state := rounds{failures: len(r.failures.all), built: r.builds(), warned: map[string]bool{}}
	for range maxRounds {
		whole, err := r.round(ctx, todo, &state)
		if err != nil {
			r.failures.err = err
		}
		if r.failures.err == nil { // in any of the rounds
			return nil
		}
		if err := r.assess(ctx, whole); err != nil || ctx.Err() != nil {
			return err
		}
		if todo = r.next(ctx, todo, whole, &state); len(todo) == 0 {
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

// next returns the outputs to realise in the next round, as for Realise; none after the last.
func (r *realisation) next(ctx context.Context, todo []string, whole bool, state *rounds) []string {
	f := r.failures
	nameless := f.watch.unattributed()
	if hint(nameless, nil) != "" { // a retry does not help
		return nil
	}
	var rest []string
	if !whole || r.unexplained(ctx) {
		rest = r.remaining(ctx)
	}
	built := r.builds()
	progress := len(f.all) > state.failures || built > state.built
	state.failures, state.built = len(f.all), built
	switch {
	case len(rest) == 0:
		return r.retryDownloads(ctx, state)
	case progress: // the cause of the end is known, or something was built
		if nameless != "" && !state.warned[nameless] {
			state.warned[nameless] = true
			r.warn("Nix ended early: %s: continuing with the rest", firstLine(nameless))
		}
		state.batch *= 2
	case state.paused < len(r.o.Retries):
		pause := r.o.Retries[state.paused]
		state.paused++
		r.warn("Nix ended early: %s: retrying in %v", firstLine(cmp.Or(nameless, f.err.Error())), pause)
		if !sleep(ctx, pause) {
			return nil
		}
	case len(todo) > 1: // smaller rounds find the derivations that end Nix
		state.batch = (len(todo) + 1) / 2
	default:
		drv, _, _ := strings.Cut(todo[0], "!")
		f.givenUp[drv] = f.reason(drv)
		if rest = r.remaining(ctx); len(rest) == 0 {
			return r.retryDownloads(ctx, state)
		}
	}
	if state.batch > 0 && state.batch < len(rest) {
		return rest[:state.batch]
	}
	return rest
}

// unexplained reports whether a target was not built although no derivation failed for it.
func (r *realisation) unexplained(ctx context.Context) bool {
	var valid map[string]bool
	for i, t := range r.targets {
		if len(r.failures.blocking(t.DrvPath)) > 0 {
			continue
		}
		if valid == nil {
			var err error
			if valid, err = r.valid(ctx); err != nil {
				return true
			}
		}
		if !r.allValid(i, valid) {
			return true
		}
	}
	return false
}

// remaining returns the outputs that Nix would still build for the targets and that depend on
// no failure, as for Realise; none if the store cannot be queried.
func (r *realisation) remaining(ctx context.Context) []string {
	f := r.failures
	targets := slices.DeleteFunc(slices.Clone(r.targets), func(t Target) bool {
		return r.impure[t.DrvPath] || f.givenUp[t.DrvPath] != "" || r.o.FailFast && len(f.blocking(t.DrvPath)) > 0
	})
	if len(targets) == 0 {
		return nil
	}
	return r.frontier(ctx, targets, nil)
}

// frontier returns the outputs that Nix would still build for targets and that depend neither on
// a failure nor on the derivations without, as for Realise; none if the store cannot be queried.
func (r *realisation) frontier(ctx context.Context, targets []Target, without map[string]bool) []string {
	f := r.failures
	toBuild, err := r.store.ToBuild(ctx, Wanted(targets))
	if err != nil {
		return nil
	}
	frontier := &frontier{graph: f.graph, toBuild: map[string]bool{}, givenUp: map[string]bool{}, lost: map[string]bool{}, outputs: map[string][]string{}}
	for _, drv := range toBuild {
		frontier.toBuild[drv] = true
		frontier.givenUp[drv] = f.deadHosts[f.node(drv).host] != "" || without[drv]
	}
	for drv := range f.givenUp {
		frontier.givenUp[drv] = true
	}
	for _, failed := range f.all {
		for _, drv := range f.matching(frontier.toBuild, failed.drv) {
			frontier.givenUp[drv] = true
		}
	}
	for _, t := range targets {
		frontier.add(t.DrvPath, t.Outputs, true)
	}
	return frontier.wanted()
}

// retryDownloads returns the targets that are missing only because of failed downloads, after
// a pause; none after the last retry.
func (r *realisation) retryDownloads(ctx context.Context, state *rounds) []string {
	if state.retried == len(r.o.Retries) {
		return nil
	}
	again, drvs := r.failures.failedDownloads(r.targets)
	if len(again) == 0 {
		return nil
	}
	pause := r.o.Retries[state.retried]
	state.retried++
	r.o.Retrying(drvs, pause)
	if !sleep(ctx, pause) {
		return nil
	}
	f := r.failures
	f.all = slices.DeleteFunc(f.all, func(failed failure) bool { return slices.Contains(drvs, failed.drv) })
	clear(f.deadHosts)
	state.failures = len(f.all)
	return Wanted(again)
}

// failedDownloads returns the targets that failed only because of failed downloads, and the
// derivations of those.
func (f *failures) failedDownloads(targets []Target) (again []Target, drvs []string) {
	for _, t := range targets {
		kept := f.blocking(t.DrvPath)
		if len(kept) == 0 && f.unfetched(t.DrvPath) == "" || slices.ContainsFunc(kept, func(failed failure) bool { return failed.elsewhere != nil || !f.isDownload(failed) }) {
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

// unfetched returns the error of a host that was given up and that a derivation needs, or "".
func (f *failures) unfetched(drv string) (why string) {
	if len(f.deadHosts) == 0 {
		return ""
	}
	for needed := range f.needs(drv) {
		if f.index(needed) < 0 {
			why = max(why, f.deadHosts[f.node(needed).host])
		}
	}
	return why
}

// sleep reports whether the pause ended before the context.
func sleep(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// builds returns the number of builds that succeeded.
func (r *realisation) builds() int {
	return len(slices.DeleteFunc(slices.Clone(r.watch.finished), func(b job.DrvBuild) bool { return b.Failed }))
}
