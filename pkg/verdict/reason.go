package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
)

// conclude sets the status and the reason of a verdict on a Plan.
func (j *judgement) conclude() {
	v := j.v
	failures := j.failures()
	cancelled := v.Cancelled || v.Counts.Cancelled > 0
	total := len(v.Targets)
	switch {
	case j.dropped:
		v.Status = Failure
		v.Reason, v.Next = reasonDropped, nextDropped
	case len(failures) > 0:
		v.Status = Failure
		v.Reason = strings.Join(failures, ", ")
	case cancelled && v.Counts.Done() == total:
		v.Status = Cancelled
		v.Reason = fmt.Sprintf("the run was cancelled, though %s", allDone(total))
	case cancelled:
		v.Status = Cancelled
		v.Reason = fmt.Sprintf("the run was cancelled with %d of %s done", v.Counts.Done(), text.Plural(total, "target"))
	case v.Counts.Done() > v.Counts.Skipped:
		v.Status = Success
		v.Reason = allDone(total)
	case total == 0:
		v.Status = Success
		v.Reason = "there is nothing to build"
	default:
		v.Status = Success
		v.Reason = fmt.Sprintf("there is nothing to build, %s skipped", text.Plural(total, "target is", "targets are"))
	}
	if v.Status == Failure && v.Cancelled {
		v.Reason += "; the run was also cancelled"
	}
}

// failures returns the reasons why the run is red, the most important first.
func (j *judgement) failures() []string {
	v := j.v
	unevaluated := 0
	for i := range v.Targets {
		if v.Targets[i].Unevaluated() {
			unevaluated++
		}
	}
	var parts []string
	add := func(n int, one, many string) {
		switch {
		case n == 0:
		case len(parts) == 0:
			if n > 1 {
				one = many
			}
			parts = append(parts, fmt.Sprintf("%d of %s %s", n, text.Plural(len(v.Targets), "target"), one))
		default:
			parts = append(parts, text.Plural(n, one, many))
		}
	}
	add(v.Counts.Failed-unevaluated, "failed", "failed")
	add(unevaluated, "could not be evaluated", "could not be evaluated")
	add(v.Counts.Missing, "has no result", "have no result")
	problems := 0
	for _, p := range v.Entries {
		if p.Status == Failure {
			problems++
		}
	}
	if problems > 0 {
		parts = append(parts, text.Plural(problems, "entry has an error of its own", "entries have errors of their own"))
	}
	for _, p := range v.Jobs {
		known := slices.Contains(j.discovery.ids, p.Job)
		if p.Status != Failure || !known && (len(parts) > 0 || j.stopped || len(v.Jobs) == 1 && j.buildsAlone() && j.helperLost()) {
			continue // the targets explain it; a job whose worker is stopped fails too, as does a helper
		}
		who, how := "a job that the gate waits for", " failed"
		if known {
			who = "discovery"
		}
		if p.Result == Skipped {
			how = " was skipped"
		}
		if !slices.Contains(parts, who+how) {
			parts = append(parts, who+how)
		}
	}
	return parts
}

// buildsAlone reports whether one job other than discovery is waited for, so that it has the matrix.
func (j *judgement) buildsAlone() bool {
	others := slices.DeleteFunc(j.needs.ids(), func(id string) bool { return slices.Contains(j.discovery.ids, id) })
	return len(others) == 1
}

// noPlan sets the status and the reason of a verdict without a Plan.
func (j *judgement) noPlan() {
	v := j.v
	v.Status = Failure
	const log = "See the log of the discover job."
	switch j.discovery.result {
	case Cancelled:
		if !j.jobFailed() {
			v.Status = Cancelled
			v.Reason = "the run was cancelled before there was a plan"
			return
		}
		v.Reason = "discovery left no plan: it was cancelled, and another job failed"
	case Success:
		v.Reason = "discovery left no plan that could be read, though its job succeeded"
		v.Next = "The plan is an artifact of the run. Check whether the discover job uploaded it, and whether this job could download it."
	case Skipped:
		v.Reason = "discovery left no plan: its job was skipped"
		v.Next = "Check the `if` and the `needs` of the discover job."
	case Failure:
		v.Reason, v.Next = "discovery left no plan: its job failed", log
	default:
		// The discover job is unknown. If it was cancelled, it has no outputs.
		if len(v.Jobs) > 0 && !j.jobFailed() {
			v.Status = Cancelled
			v.Reason = "the run was cancelled before there was a plan"
			return
		}
		v.Reason, v.Next = "there is no plan", log
	}
	if v.Cancelled && j.discovery.result != Cancelled {
		v.Reason += "; the run was also cancelled"
	}
}

func (j *judgement) jobFailed() bool {
	return slices.ContainsFunc(j.v.Jobs, func(p JobProblem) bool { return p.Status == Failure })
}

func allDone(total int) string {
	if total == 1 {
		return "the only target is done"
	}
	return fmt.Sprintf("all %d targets are done", total)
}
