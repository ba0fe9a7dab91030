package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/job"
)

// The reasons why a target has no result, or why a result does not count.
const (
	whyStopped     = "its build was stopped"
	whyNeverEnded  = "its job was stopped before it had a result"
	whyNoResult    = "no result of its job arrived"
	whyOtherPlan   = "the only result of its job is of another plan: of another run, or of another use of nix-matrix with the same id"
	whyNotInResult = "the result of its job does not mention it"
	whyOtherDrv    = "the result of its job is about another derivation"
	whyNoEntry     = "no entry of the plan builds it"
	whyNoMatrix    = "its job was never started"
	whyNoPaths     = "its result does not name the path of each output that the plan wants"
	whyNoOutputs   = "the plan says that its outputs need no building, but does not name them"
	whyDeadline    = "stopped at its deadline; rerun the failed jobs to continue from there"

	postBuildFailed = "post_build failed"

	ofOtherPlan    = "it is of another plan: of another run, or of another use of nix-matrix with the same id"
	ofUnknownEntry = "the plan has no such entry"
)

// Judge compares the Results with the Plan, target by target.
//
// plan is nil if discovery left none. planKey is the key of the Plan that each Result must
// have. Of several Results of an entry, as after a rerun, the one that finished last counts.
// With needs, the Plan is refused unless it is the one that the discover job names there.
// Without, as on the command line, only the documents count.
//
// Green needs evidence: each target was skipped by the Plan, or its Result names the path of
// each wanted output.
func Judge(plan *job.Plan, planKey string, results []*job.Result, needs Needs) *Verdict {
	j := &judgement{
		v:         &Verdict{Cancelled: needs.cancelled(), Targets: []Target{}},
		plan:      plan,
		needs:     needs,
		discovery: needs.findDiscovery(planKey),
		results:   map[string]*job.Result{},
		otherPlan: map[string]bool{},
	}
	if plan == nil {
		j.jobs(true)
		j.noPlan()
		return j.v
	}
	if len(needs) > 0 {
		if refusal := needs.check(plan, planKey); refusal != nil {
			return Refuse(refusal, needs)
		}
	}
	j.v.Notices, j.v.Emulated = plan.Notices, plan.Emulated
	j.chooseResults(planKey, results)
	for _, r := range j.results {
		j.stopped = j.stopped || wasCancelled(r)
	}
	j.v.Cancelled = j.v.Cancelled || j.stopped
	j.dropped = j.discovery.result == Success && !j.discovery.hasMatrix && len(plan.Entries) > 0 && len(j.results) == 0
	j.targets()
	j.entries()
	j.times()
	j.shared()
	j.cost()
	j.jobs(len(plan.Entries) > 0 || slices.ContainsFunc(plan.Targets, func(t job.Target) bool { return t.State == job.StateBuild }))
	j.conclude()
	return j.v
}

type judgement struct {
	v         *Verdict
	plan      *job.Plan
	needs     Needs
	discovery discovery
	results   map[string]*job.Result // the one that counts, by entry
	otherPlan map[string]bool        // entries that have a Result of another plan
	dropped   bool                   // the matrix never arrived
	stopped   bool                   // a worker was cancelled
}

// chooseResults selects the Result of each entry that counts.
func (j *judgement) chooseResults(planKey string, results []*job.Result) {
	for _, r := range results {
		if r == nil {
			continue
		}
		_, known := j.plan.EntryByID(r.Entry)
		switch {
		case !job.SamePlan(r.Plan, planKey):
			j.otherPlan[r.Entry] = true
			j.ignore(r, ofOtherPlan)
		case !known:
			j.ignore(r, ofUnknownEntry)
		case j.results[r.Entry] == nil || newer(r, j.results[r.Entry]):
			j.results[r.Entry] = r
		}
	}
	slices.SortStableFunc(j.v.Ignored, func(a, b Ignored) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Entry, b.Entry), cmp.Compare(a.Why, b.Why))
	})
}

func (j *judgement) ignore(r *job.Result, why string) {
	j.v.Ignored = append(j.v.Ignored, Ignored{Entry: r.Entry, Name: r.Name, Why: why})
}

// newer reports whether a counts rather than b. Of two that finished together, the worse counts,
// so that their order does not matter.
func newer(a, b *job.Result) bool {
	if c := a.Finished.Compare(b.Finished); c != 0 {
		return c > 0
	}
	return b.Outcome.OK() && (!a.Outcome.OK() || a.Error != "")
}

// unfinished reports whether a Result is the one that a worker writes before it starts, in case
// it is killed.
func unfinished(r *job.Result) bool {
	return !r.Finished.After(r.Started) && len(r.Targets) == 0 && !r.Outcome.OK()
}

// wasCancelled reports whether a Result shows that its job was cancelled.
func wasCancelled(r *job.Result) bool {
	return !r.TimedOut &&
		(r.Outcome == job.OutcomeCancelled || slices.ContainsFunc(r.Targets, func(t job.TargetResult) bool { return t.Outcome == job.OutcomeCancelled }))
}

func (j *judgement) targets() {
	entries := map[int]*job.Entry{}
	for i := range j.plan.Entries {
		for _, ref := range j.plan.Entries[i].Targets {
			if entries[ref.N] == nil {
				entries[ref.N] = &j.plan.Entries[i]
			}
		}
	}
	for n := range j.plan.Targets {
		t := j.target(n, entries[n])
		j.v.Targets = append(j.v.Targets, t)
		j.v.Counts.add(t.Status)
	}
}

// target returns the verdict on the target number n, which entry builds. entry may be nil.
func (j *judgement) target(n int, entry *job.Entry) Target {
	t := Target{N: n, Target: j.plan.Targets[n]}
	switch t.Target.State {
	case job.StateSkip:
		t.Status, t.Why = TargetSkipped, t.Target.Reason
		if t.Target.Available && !t.Target.HasPaths() {
			t.Status, t.Why = TargetMissing, whyNoOutputs
		}
		return t
	case job.StateBuild:
	default:
		t.Status, t.Why = TargetFailed, t.Target.Error
		return t
	}
	if entry == nil {
		t.Status, t.Why = TargetMissing, whyNoEntry
		return t
	}
	t.Entry = entry.Name
	r := j.results[entry.ID]
	if r != nil {
		t.Result, t.Why = findResult(r, n, &t.Target)
		t.Emulated = t.Result != nil && t.Result.Emulated
	}
	if t.Result == nil {
		j.missing(&t, entry, r)
		return t
	}
	if pastDeadline(r, t.Result) {
		t.Status, t.TimedOut, t.Why = TargetFailed, true, deadline(r, t.Result)
		return t
	}
	if succeeded(t.Result) && !hasPaths(t.Result, &t.Target) {
		t.Result, t.Status, t.Why = nil, TargetMissing, whyNoPaths
		return t
	}
	t.Status, t.Why = status(t.Result)
	return t
}

// missing sets status and reason of a target without a TargetResult.
func (j *judgement) missing(t *Target, entry *job.Entry, r *job.Result) {
	t.Status = TargetMissing
	switch {
	case j.v.Cancelled && (r == nil || wasCancelled(r) || unfinished(r)):
		t.Status, t.Why = TargetCancelled, whyNeverEnded
	case r != nil && r.TimedOut:
		t.Why = whyDeadline
	case r != nil: // findResult has set it
	case j.otherPlan[entry.ID]:
		t.Why = whyOtherPlan
	case j.dropped:
		t.Why = whyNoMatrix
	default:
		t.Why = whyNoResult
	}
}

// findResult returns the TargetResult of a target, the worst of several, or the reason why there
// is none.
func findResult(r *job.Result, n int, target *job.Target) (*job.TargetResult, string) {
	var found *job.TargetResult
	why := whyNotInResult
	for i := range r.Targets {
		t := &r.Targets[i]
		switch {
		case t.N != n:
		case t.Attr != target.Attr || t.DrvPath != target.DrvPath:
			why = whyOtherDrv
		case found == nil || succeeded(found) && hasPaths(found, target) || found.Outcome == job.OutcomeCancelled && !succeeded(t):
			found = t
		}
	}
	return found, why
}

// succeeded reports whether a target and its post_build succeeded.
func succeeded(t *job.TargetResult) bool { return t.Outcome.OK() && !stepFailed(t) }

// hasPaths reports whether a result names the path of each wanted output, as in the Plan if that
// has it, and no other output.
func hasPaths(r *job.TargetResult, t *job.Target) bool {
	if len(t.Outputs) == 0 || len(r.Outputs) != len(t.Outputs) {
		return false
	}
	for _, name := range t.Outputs {
		at := slices.IndexFunc(r.Outputs, func(o job.Output) bool { return o.Name == name })
		if at < 0 || r.Outputs[at].Path == "" {
			return false
		}
		if known := t.OutPaths[name]; known != "" && r.Outputs[at].Path != known {
			return false
		}
	}
	return true
}

// stepFailed reports whether the step after the build failed.
func stepFailed(t *job.TargetResult) bool {
	return t.PostBuild != nil && t.PostBuild.Outcome == job.StepFailed
}

// pastDeadline reports whether the deadline of its entry stopped a target.
func pastDeadline(r *job.Result, t *job.TargetResult) bool {
	return r.TimedOut && !t.Outcome.OK() && t.Cause == "" && t.PostBuild == nil
}

// deadline returns the message of a target that the deadline stopped, with the worker's errors.
func deadline(r *job.Result, t *job.TargetResult) string {
	said := []string{whyDeadline, r.Error}
	if t.Outcome != job.OutcomeCancelled {
		said = append(said, t.Error)
	}
	return strings.Join(slices.DeleteFunc(said, func(s string) bool { return s == "" }), "\n")
}

func status(t *job.TargetResult) (TargetStatus, string) {
	if stepFailed(t) {
		return TargetFailed, postBuildFailed + ": " + cmp.Or(t.PostBuild.Error, t.Error, "no error was given")
	}
	switch t.Outcome {
	case job.OutcomeBuilt:
		return TargetBuilt, ""
	case job.OutcomeFetched:
		return TargetFetched, ""
	case job.OutcomePresent:
		return TargetPresent, ""
	case job.OutcomeCancelled:
		return TargetCancelled, whyStopped
	case job.OutcomeFailed:
		return TargetFailed, cmp.Or(t.Error, "it failed, and no error was given")
	default:
		return TargetFailed, cmp.Or(t.Error, fmt.Sprintf("its outcome is %q, which this nix-matrix does not know", t.Outcome))
	}
}

// entries collects the pushes of entries, and their errors outside of targets.
func (j *judgement) entries() {
	failures := map[string]int{}
	for i := range j.plan.Entries {
		e := &j.plan.Entries[i]
		r := j.results[e.ID]
		if r == nil {
			continue
		}
		j.v.addFailures(e.Name, r, failures)
		for _, p := range r.Pushes {
			j.v.Pushes = append(j.v.Pushes, Push{Entry: e.Name, Push: p})
		}
		p := EntryProblem{Entry: e.ID, Name: e.Name, Status: Failure, Message: entryError(r)}
		if e.Helper {
			p.Message = helperError(r)
		}
		if !r.TimedOut && (r.Outcome == job.OutcomeCancelled || j.v.Cancelled && unfinished(r)) {
			p.Status = Cancelled
		}
		if p.Message != "" && (p.Status == Failure || !j.cancelReported(e)) {
			j.v.Entries = append(j.v.Entries, p)
		}
	}
}

// cancelReported reports whether a target of an entry is cancelled.
func (j *judgement) cancelReported(e *job.Entry) bool {
	return slices.ContainsFunc(e.Targets, func(ref job.Ref) bool {
		return ref.N >= 0 && ref.N < len(j.v.Targets) && j.v.Targets[ref.N].Status == TargetCancelled
	})
}

// entryError returns the error of a Result outside of its targets, empty if there is none.
func entryError(r *job.Result) string {
	told := slices.ContainsFunc(r.Targets, func(t job.TargetResult) bool { return !succeeded(&t) })
	switch {
	case r.TimedOut && slices.ContainsFunc(r.Targets, func(t job.TargetResult) bool { return pastDeadline(r, &t) }):
		// the targets have it
	case r.TimedOut:
		return strings.TrimSpace(whyDeadline + "\n" + r.Error)
	case r.Error != "":
		return r.Error
	}
	if pushing := pushError(r); pushing != "" || r.Outcome.OK() || told {
		return pushing
	}
	return fmt.Sprintf("the outcome is %q, and no error was given", r.Outcome)
}

// pushError returns the error of a push that is the entry's failure, empty if there is none.
func pushError(r *job.Result) string {
	for _, p := range r.Pushes {
		if p.Error != "" && !p.Optional {
			return fmt.Sprintf("push to %s: %s", p.Destination, p.Error)
		}
	}
	return ""
}

// times collects the work of the entries and sums up its duration, without pauses, because a
// rerun may be days after the run.
func (j *judgement) times() {
	type span struct {
		*job.Result
		work int // number in v.Work
	}
	var spans []span
	for i := range j.plan.Entries {
		r := j.results[j.plan.Entries[i].ID]
		if r == nil {
			continue
		}
		w := Work{
			Entry: j.plan.Entries[i].Name, Outcome: r.Outcome, URL: r.URL,
			Built: len(r.Builds), Imported: max(r.Imported, 0), Downloaded: max(r.Downloaded, 0),
			Fetched: max(r.Fetched, 0), FetchedBytes: max(r.FetchedBytes, 0),
		}
		if r.Restored != nil {
			w.Restored.Add(r.Restored.Paths, r.Restored.Read)
		}
		for _, p := range r.Saved {
			w.Saved.Add(p.Paths, p.Size)
		}
		if took := j.plan.Took[r.Entry].Seconds; took > 0 {
			w.Before = took
		}
		if !r.Started.IsZero() && r.Finished.After(r.Started) {
			w.Seconds = r.Finished.Sub(r.Started).Seconds()
			spans = append(spans, span{r, len(j.v.Work)})
			j.v.JobSeconds += w.Seconds
		}
		j.v.Work = append(j.v.Work, w)
	}
	slices.SortStableFunc(spans, func(a, b span) int { return a.Started.Compare(b.Started) })
	var until time.Time
	for _, r := range spans {
		if r.Started.After(until) {
			until = r.Started
		}
		j.v.Work[r.work].Start = j.v.Seconds - until.Sub(r.Started).Seconds()
		if r.Finished.After(until) {
			j.v.Seconds += r.Finished.Sub(until).Seconds()
			until = r.Finished
		}
	}
}

// jobs collects the jobs of the workflow that did not succeed. With nothing to build, a job other
// than discovery may be skipped.
func (j *judgement) jobs(work bool) {
	for _, id := range j.needs.ids() {
		p := JobProblem{Job: id, Result: j.needs[id].Result, Status: Failure}
		switch p.Result {
		case Success:
			continue
		case Cancelled:
			p.Status = Cancelled
		case Skipped:
			if !work && !slices.Contains(j.discovery.ids, id) {
				continue
			}
			if j.v.Cancelled {
				p.Status = Cancelled
			}
		}
		j.v.Jobs = append(j.v.Jobs, p)
	}
}
