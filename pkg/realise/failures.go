package realise

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// A failure is a derivation that failed of itself.
type failure struct {
	drv     string
	message string // Nix's; empty if it is not known
	late    bool   // it was said after the end of the build
}

// failures are those of all rounds, the first one first.
type failures struct {
	*graph
	watch *watch
	all   []failure
	given map[string]string // what to say of derivations that are not to be tried any more
	dead  map[string]string // likewise of hosts of which no more is fetched
	err   error             // of the last round that failed
	// hopeless are the targets of which it was told that they can not be built any more.
	hopeless map[string]bool
}

func (f *failures) of(drv string) int {
	return slices.IndexFunc(f.all, func(failed failure) bool { return failed.drv == drv })
}

// subject returns the derivation that an error message is about: the first one that it
// names and that is needed, or whose output it names and whose build was begun. Else an
// output could not be fetched, and is built.
func (f *failures) subject(message string) string {
	if strings.HasPrefix(message, "some substitutes ") {
		return ""
	}
	for _, path := range nix.Named(message) {
		for _, drv := range f.owner(path) {
			if f.watch.begun(drv) || drv == path && f.nodes[drv] != nil {
				return drv
			}
		}
	}
	return ""
}

// timedOut is what Nix from 2.30 on says of a build that took too long, and does not say
// which.
var timedOut = regexp.MustCompile(`^timed out after \d+ seconds`)

// assess finds out which derivations failed in the round that has ended, by what the
// store has: those that an error message is about, and those that were built and for
// which there is no other explanation. Where Nix, or its store, ended before it was
// through, what was being built ended too, and did not fail.
func (r *realisation) assess(ctx context.Context, whole bool) error {
	f := r.failures
	ctx, cancel := afterwards(ctx)
	defer cancel()
	for _, t := range r.targets {
		f.needs(t.DrvPath)
	}
	var drvs []string
	for i := range r.watch.messages {
		m := &r.watch.messages[i]
		if m.round == r.watch.round {
			m.of = f.subject(m.text)
			drvs = append(drvs, m.of)
		}
	}
	for drv := range r.watch.running { // Nix does not always say that it has ended
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
	lacking, err := r.lacking(ctx, drvs)
	if err != nil {
		return errors.Join(f.err, err) // what ended the build says most
	}
	for i := range r.watch.messages {
		m := &r.watch.messages[i]
		if m.round != r.watch.round || !lacking[m.of] {
			continue
		}
		said := failure{m.of, m.text, r.watch.late(m)}
		if n := f.of(m.of); n < 0 {
			f.all = append(f.all, said)
		} else if said.late && !f.all[n].late {
			f.all[n] = said
		}
	}
	fresh := r.watch.finished[r.judged:]
	nameless := r.watch.nameless()
	for i := range fresh {
		b := &fresh[i]
		b.Failed = lacking[b.DrvPath] && !r.watch.interrupted[b.DrvPath]
		if b.Failed && f.node(b.DrvPath).impure { // whose outputs the store does not remember
			b.Failed = f.of(b.DrvPath) >= 0
		}
		if b.Failed && f.of(b.DrvPath) < 0 && (whole || timedOut.MatchString(nameless)) {
			f.all = append(f.all, failure{b.DrvPath, nameless, true})
			r.watch.attribute(nameless, b.DrvPath)
		}
	}
	f.all = slices.DeleteFunc(f.all, func(failed failure) bool { return !lacking[failed.drv] })
	// What ended with the others was not built.
	r.watch.finished = append(r.watch.finished[:r.judged], slices.DeleteFunc(fresh, func(b job.DrvBuild) bool {
		return b.Failed && f.of(b.DrvPath) < 0
	})...)
	r.judged = len(r.watch.finished)
	return nil
}

// lacking says which of the derivations have an output that is not in the store.
func (r *realisation) lacking(ctx context.Context, drvs []string) (map[string]bool, error) {
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

// keptFrom returns the failures that keep a derivation from being built.
func (f *failures) keptFrom(drv string) []failure {
	needs := f.needs(drv)
	var all []failure
	for _, failed := range f.all {
		if len(f.among(needs, failed.drv)) > 0 {
			all = append(all, failed)
		}
	}
	return all
}

// fetch says whether a derivation fetches something whose hash is known, and
// failed in doing so: not since it got something else, nor since there was no
// room or time.
func (f *failures) fetch(failed failure) bool {
	return f.node(failed.drv).fixed && hint(failed.message, f.watch.log[failed.drv]) == "" && !mismatch.MatchString(failed.message)
}

// As many derivations are named that kept a target from being built, and in all.
const maxCauses = 200

// cause names the derivations whose failure kept a target from being built, if there are
// any. The first one says why the target failed.
func (f *failures) cause(result *job.TargetResult) bool {
	all := f.keptFrom(result.DrvPath)
	if len(all) == 0 {
		return false
	}
	for _, failed := range all[:min(len(all), maxCauses)] {
		result.Causes = append(result.Causes, failed.drv)
	}
	first := f.tell(all[0])
	result.Cause, result.Error, result.Log, result.File, result.Line = first.DrvPath, first.Error, first.Log, first.File, first.Line
	if rest := f.forsaken(result.DrvPath); rest != "" {
		result.Error += "\n" + rest
	}
	return true
}

// tell says of a derivation how it failed.
func (f *failures) tell(failed failure) job.Failure {
	t := job.Failure{DrvPath: failed.drv, Log: f.watch.log[failed.drv], Error: condense(failed.message)}
	t.File, t.Line = position(t.Log)
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

// told are all failures, each with the end of its log.
func (f *failures) told() []job.Failure {
	const few = 10 // lines, of as many as the first failure of a target has
	all := make([]job.Failure, 0, len(f.all))
	for _, failed := range f.all[:min(len(f.all), maxCauses)] {
		t := f.tell(failed)
		t.Log = slices.Clone(t.Log[max(0, len(t.Log)-few):])
		all = append(all, t)
	}
	return all
}

// explain says why a target was not built for which nothing failed in being
// built.
func (f *failures) explain(result *job.TargetResult) {
	result.Error = f.forsaken(result.DrvPath)
	for drv := range f.needs(result.DrvPath) {
		result.Error = max(result.Error, f.given[drv])
	}
	if result.Error == "" {
		result.Error = f.reason(result.DrvPath)
	}
	if hint := hint(result.Error, nil); hint != "" {
		result.Error += "\n" + hint
	}
}

// reason says why a derivation that nothing is known of was not built: Nix may have
// refused to begin, or ended.
func (f *failures) reason(drv string) string {
	switch nameless, mention := f.watch.nameless(), f.watch.mention(drv); {
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

// A fixed-output derivation that gave something else. The hashes are as Nix
// writes them, wanted and got.
var mismatch = regexp.MustCompile(`(?s)hash mismatch in fixed-output derivation '([^']+)':?\s+(?:specified|wanted|likely URL.*?specified):\s*(\S+)\s+got:\s*(\S+)`)

// What Nix from 2.30 on says of a builder that failed, or that can't be begun. Where
// outputs are is not said if it is not known, or if there will be none.
var reason = regexp.MustCompile(`(?s)^Cannot build '([^']+)'\.\s+Reason: ([^\n]+?)\.?((?:\n(?:Required|Current|Available) [^\n]+)*)(?:\nOutput paths:(?:\n +/[^\n]+)*)?(\nLast \d+ log lines:.*)?$`)

// condense puts what matters of a message first, where Nix has it in further lines.
func condense(message string) string {
	if m := reason.FindStringSubmatch(message); m != nil {
		return m[2] + ": " + m[1] + m[3] + m[4]
	}
	if m := mismatch.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("hash mismatch in %s: wanted %s, got %s", m[1], m[2], m[3])
	}
	return message
}
