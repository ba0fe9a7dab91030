package realise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// A failure is a derivation whose own build failed.
type failure struct {
	drv        string
	message    string       // Nix's; empty if unknown
	afterBuild bool         // the message came after the end of the build
	elsewhere  *job.Failure // of another job; nil for one of this build
}

// failures are the failures of all rounds, the first one first.
type failures struct {
	*graph
	watch     *watch
	all       []failure
	givenUp   map[string]string // derivations that are not tried any more, with the error
	deadHosts map[string]string // hosts from which nothing is fetched any more, with the error
	err       error             // of the last round that failed
	// hopeless are the targets that were reported as impossible to build.
	hopeless map[string]bool
}

func (f *failures) index(drv string) int {
	return slices.IndexFunc(f.all, func(failed failure) bool { return failed.drv == drv })
}

// subject returns the derivation that an error message is about: the first needed one that it
// names, or whose output it names and whose build has started. An output whose build has not
// started could not be fetched, and is built.
func (f *failures) subject(message string) string {
	if strings.HasPrefix(message, "some substitutes ") {
		return ""
	}
	for _, path := range nix.Named(message) {
		for _, drv := range f.owners(path) {
			if f.watch.started(drv) || drv == path && f.nodes[drv] != nil {
				return drv
			}
		}
	}
	return ""
}

// timedOut matches the message of Nix from 2.30 on about a build that took too long. It does
// not name the build.
var timedOut = lazyregexp.New(`^timed out after \d+ seconds`)

// assess finds the derivations that failed in the round that has ended, by the outputs that
// the store lacks: those that an error message is about, and those that were built if there is
// no other explanation. If Nix, or its store, ended early, unfinished builds did not fail.
func (r *realisation) assess(ctx context.Context, whole bool) error {
	f := r.failures
	ctx, cancel := graceContext(ctx)
	defer cancel()
	for _, t := range r.targets {
		f.needs(t.DrvPath)
	}
	var drvs []string
	for i := range r.watch.messages {
		m := &r.watch.messages[i]
		if m.round == r.watch.round {
			m.drv = f.subject(m.text)
			drvs = append(drvs, m.drv)
		}
	}
	for drv := range r.watch.running { // Nix does not always report the end
		if slices.Contains(drvs, drv) {
			r.watch.see(nix.Event{Kind: nix.BuildStopped, Path: drv, Time: time.Now()}, false)
		}
	}
	for _, b := range r.watch.finished {
		drvs = append(drvs, b.DrvPath)
	}
	for _, failed := range f.all {
		drvs = append(drvs, failed.drv)
	}
	lacking, err := r.incomplete(ctx, drvs)
	if err != nil {
		return errors.Join(f.err, err) // the error that ended the build matters most
	}
	for i := range r.watch.messages {
		m := &r.watch.messages[i]
		if m.round != r.watch.round || !lacking[m.drv] {
			continue
		}
		said := failure{drv: m.drv, message: m.text, afterBuild: r.watch.afterBuild(m)}
		if n := f.index(m.drv); n < 0 {
			f.all = append(f.all, said)
		} else if said.afterBuild && !f.all[n].afterBuild {
			f.all[n] = said
		}
	}
	fresh := r.watch.finished[r.assessed:]
	nameless := r.watch.unattributed()
	for i := range fresh {
		b := &fresh[i]
		b.Failed = lacking[b.DrvPath] && !r.watch.interrupted[b.DrvPath]
		if b.Failed && f.node(b.DrvPath).impure { // the store does not remember its outputs
			b.Failed = f.index(b.DrvPath) >= 0
		}
		if b.Failed && f.index(b.DrvPath) < 0 && (whole || timedOut().MatchString(nameless)) {
			f.all = append(f.all, failure{drv: b.DrvPath, message: nameless, afterBuild: true})
			r.watch.attribute(nameless, b.DrvPath)
		}
	}
	f.all = slices.DeleteFunc(f.all, func(failed failure) bool { return !lacking[failed.drv] })
	// Builds that ended with Nix were neither built nor failed.
	r.watch.finished = append(r.watch.finished[:r.assessed], slices.DeleteFunc(fresh, func(b job.DrvBuild) bool {
		return b.Failed && f.index(b.DrvPath) < 0
	})...)
	r.assessed = len(r.watch.finished)
	return nil
}

// incomplete returns whether each derivation has an output that is not in the store.
func (r *realisation) incomplete(ctx context.Context, drvs []string) (map[string]bool, error) {
	slices.Sort(drvs)
	drvs = slices.DeleteFunc(slices.Compact(drvs), func(drv string) bool { return drv == "" })
	outputs, err := r.store.ValidOutputs(ctx, drvs...)
	if err != nil {
		return nil, err
	}
	lacking := map[string]bool{}
	for drv, valid := range outputs {
		lacking[drv] = !valid.All
	}
	return lacking, nil
}

// blocking returns the failures that keep a derivation from being built.
func (f *failures) blocking(drv string) []failure {
	needs := f.needs(drv)
	var all []failure
	for _, failed := range f.all {
		if len(f.matching(needs, failed.drv)) > 0 {
			all = append(all, failed)
		}
	}
	return all
}

// isDownload reports whether a failure is a failed download of a fixed-output derivation: not
// a hash mismatch, and not for want of space, memory or time.
func (f *failures) isDownload(failed failure) bool {
	return f.node(failed.drv).fixed && hint(failed.message, f.watch.log[failed.drv]) == "" && !mismatch().MatchString(failed.message)
}

// maxCauses is the most causes of a target, and the most failures in an Outcome.
const maxCauses = 200

// cause fills in the derivations whose failure kept a target from being built, the first of
// which explains the target's failure. It reports whether there are any.
func (f *failures) cause(result *job.TargetResult) bool {
	all := f.blocking(result.DrvPath)
	if len(all) == 0 {
		return false
	}
	for _, failed := range all[:min(len(all), maxCauses)] {
		result.Causes = append(result.Causes, failed.drv)
	}
	first := f.describe(all[0])
	result.Cause, result.Error, result.Log, result.File, result.Line = first.DrvPath, first.Error, first.Log, first.File, first.Line
	if rest := f.unfetched(result.DrvPath); rest != "" {
		result.Error += "\n" + rest
	}
	return true
}

// describe returns a failure for the Result.
func (f *failures) describe(failed failure) job.Failure {
	if failed.elsewhere != nil {
		return *failed.elsewhere
	}
	t := job.Failure{DrvPath: failed.drv, Log: f.watch.log[failed.drv], Error: condense(failed.message)}
	t.File, t.Line = position(t.Log)
	t.Silent = len(t.Log) == 0 && f.watch.started(failed.drv) && !f.node(failed.drv).builtin
	switch {
	case t.Error == "":
		t.Error = fmt.Sprintf("builder of %s failed", failed.drv)
	case !strings.Contains(t.Error, failed.drv):
		t.Error += ": " + failed.drv
	}
	if hint := hint(failed.message, t.Log); hint != "" {
		t.Error += "\n" + hint
	}
	return t
}

// summaries returns all failures, each with the end of its log.
func (f *failures) summaries() []job.Failure {
	const few = 10 // lines; a target has more of its first failure
	all := make([]job.Failure, 0, len(f.all))
	for _, failed := range f.all[:min(len(f.all), maxCauses)] {
		t := f.describe(failed)
		t.Log = slices.Clone(t.Log[max(0, len(t.Log)-few):])
		all = append(all, t)
	}
	return all
}

// explain fills in why a target was not built although no derivation failed for it.
func (f *failures) explain(result *job.TargetResult) {
	result.Error = f.unfetched(result.DrvPath)
	for drv := range f.needs(result.DrvPath) {
		result.Error = max(result.Error, f.givenUp[drv])
	}
	if result.Error == "" {
		result.Error = f.reason(result.DrvPath)
	}
	if hint := hint(result.Error, nil); hint != "" {
		result.Error += "\n" + hint
	}
}

// reason returns why a derivation without a failure was not built: Nix may have refused to
// start, or ended.
func (f *failures) reason(drv string) string {
	switch nameless, mention := f.watch.unattributed(), f.watch.mention(drv); {
	case nameless != "":
		return nameless
	case mention != "":
		return mention
	case f.err != nil:
		return f.err.Error()
	default:
		return "nix-store --realise succeeded, but its outputs are not in the store"
	}
}

// mismatch matches Nix's message about a fixed-output derivation with another hash: the
// derivation, the hash that was wanted, and the one it has.
var mismatch = lazyregexp.New(`(?s)hash mismatch in fixed-output derivation '([^']+)':?\s+(?:specified|wanted|likely URL.*?specified):\s*(\S+)\s+got:\s*(\S+)`)

// reason matches the message of Nix from 2.30 on about a builder that failed, or that cannot
// be started. It has no output paths if they are unknown, or if there will be none.
var reason = lazyregexp.New(`(?s)^Cannot build '([^']+)'\.\s+Reason: ([^\n]+?)\.?((?:\n(?:Required|Current|Available) [^\n]+)*)(?:\nOutput paths:(?:\n +/[^\n]+)*)?(\nLast \d+ log lines:.*)?$`)

// condense returns a message with the cause first, where Nix writes it in later lines.
func condense(message string) string {
	if m := reason().FindStringSubmatch(message); m != nil {
		return m[2] + ": " + m[1] + m[3] + m[4]
	}
	if m := mismatch().FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("hash mismatch in %s: wanted %s, got %s", m[1], m[2], m[3])
	}
	return message
}
