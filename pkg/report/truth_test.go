package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

var (
	truthPlans = map[string]func() *job.Plan{
		"nil":     func() *job.Plan { return nil },
		"empty":   func() *job.Plan { return planOf() },
		"skipped": func() *job.Plan { return planOf(skipped(pkg("a"), "it is in cachix:fleet")) },
		"one":     func() *job.Plan { return planOf(host("pi3", "aarch64-linux")) },
		"many": func() *job.Plan {
			return planOf(host("pi3", "aarch64-linux"), skipped(pkg("a"), "it is in cachix:fleet"), pkg("b"), pkg("c"), host("nas", "x86_64-linux"))
		},
		"failed attributes": func() *job.Plan {
			return planOf(unevaluated(host("nas", ""), "error: undefined variable 'x'"), host("pi3", "aarch64-linux"))
		},
		"only failed attributes": func() *job.Plan { return planOf(unevaluated(host("nas", ""), "error: undefined variable 'x'")) },
	}
	truthResults = map[string]func(all []*job.Result) []*job.Result{
		"good": func(all []*job.Result) []*job.Result { return all },
		"one failed": func(all []*job.Result) []*job.Result {
			fail(all[0], 0, drv("openssl"), "boom")
			return all
		},
		"one missing": func(all []*job.Result) []*job.Result { return all[1:] },
		"all missing": func([]*job.Result) []*job.Result { return nil },
		"one of another plan": func(all []*job.Result) []*job.Result {
			all[0].Plan = otherPlanKey
			return all
		},
		"one target untold": func(all []*job.Result) []*job.Result {
			all[0].Targets = nil
			return all
		},
		"push error": func(all []*job.Result) []*job.Result {
			all[0].Pushes = []job.Push{{Destination: "cachix:fleet", Error: "401"}}
			all[0].Error = "push to cachix:fleet: 401"
			return all
		},
		"optional push error": func(all []*job.Result) []*job.Result {
			all[0].Pushes = []job.Push{{Destination: "cachix:fleet", Error: "401", Optional: true}}
			return all
		},
		"post_build failed": func(all []*job.Result) []*job.Result {
			all[0].Targets[0].PostBuild = &job.Step{Outcome: job.StepFailed, Error: "exit status 1"}
			return all
		},
		"post_build skipped": func(all []*job.Result) []*job.Result {
			all[0].Targets[0].PostBuild = &job.Step{Outcome: job.StepSkipped, Error: "no key"}
			return all
		},
		"one timed out": func(all []*job.Result) []*job.Result {
			all[0].TimedOut, all[0].Outcome, all[0].Targets[0].Outcome = true, job.OutcomeCancelled, job.OutcomeCancelled
			return all
		},
		"one timed out at the end": func(all []*job.Result) []*job.Result {
			all[0].TimedOut = true
			return all
		},
		"one crashed": func(all []*job.Result) []*job.Result {
			all[0].Outcome = job.OutcomeFailed
			return all
		},
		"one cancelled": func(all []*job.Result) []*job.Result {
			all[0].Outcome, all[0].Targets[0].Outcome = job.OutcomeCancelled, job.OutcomeCancelled
			return all
		},
	}
	truthStatuses = []verdict.Status{verdict.Success, verdict.Failure, verdict.Cancelled, verdict.Skipped}
)

// truth returns the right verdict from the names of the circumstances alone. A rerun of the failed
// jobs has results of the first attempt, in which all failed. A dropped matrix stops all jobs, if
// discovery made one.
func truth(discover, build verdict.Status, plan, results string, dropped, rerun bool) verdict.Status {
	entries := plan == "one" || plan == "many" || plan == "failed attributes"
	stopped := entries && results == "one cancelled" // whose job may have failed for that
	cancelled := discover == verdict.Cancelled || build == verdict.Cancelled || stopped

	red := discover == verdict.Failure || build == verdict.Failure && !stopped
	red = red || plan == "nil" && discover != verdict.Cancelled
	red = red || strings.Contains(plan, "failed attributes")
	if entries {
		switch results {
		case "one failed", "push error", "one crashed", "one target untold", "post_build failed", "one timed out", "one timed out at the end":
			red = true
		case "one missing", "all missing", "one of another plan":
			none := results == "all missing" || plan != "many"
			red = red || !cancelled || rerun || dropped && discover == verdict.Success && none
		}
	}
	if build == verdict.Skipped && entries {
		red = red || !cancelled
	}
	// The plan of a discovery that has not run does not count.
	red = red || discover == verdict.Skipped && (plan != "nil" || !cancelled)
	switch {
	case red:
		return verdict.Failure
	case cancelled:
		return verdict.Cancelled
	default:
		return verdict.Success
	}
}

func TestTruthTable(t *testing.T) {
	t.Parallel()
	seen := map[verdict.Status]int{}
	for planName, plan := range truthPlans {
		for resultsName, change := range truthResults {
			for _, discover := range truthStatuses {
				for _, build := range truthStatuses {
					for _, how := range []struct{ dropped, rerun bool }{{}, {dropped: true}, {rerun: true}, {true, true}} {
						p := plan()
						var results []*job.Result
						if p != nil && len(p.Entries) > 0 {
							results = change(resultsOf(p))
							if how.rerun {
								results = append(results, firstAttempt(p)...)
							}
						}
						needs := needsOf(discover, build)
						if how.dropped { // by the runner, for a masked value in it
							delete(needs["discover"].Outputs, "matrix")
						}
						v := judged(p, planKey, results, needs)
						want := truth(discover, build, planName, resultsName, how.dropped, how.rerun)
						seen[want]++
						name := fmt.Sprintf("discover %s, build %s, plan %s, results %s, %+v", discover, build, planName, resultsName, how)
						if v.Status != want {
							t.Errorf("%s: %s (%s), want %s", name, v.Status, v.Reason, want)
						}
						invariants(t, name, p, results, needs, v)
					}
				}
			}
		}
	}
	for _, s := range []verdict.Status{verdict.Success, verdict.Failure, verdict.Cancelled} {
		if seen[s] < 10 {
			t.Errorf("the table has only %d cases that are a %s", seen[s], s)
		}
	}
}

// firstAttempt returns the results of a run in which all targets failed.
func firstAttempt(p *job.Plan) []*job.Result {
	results := resultsOf(p)
	for _, r := range results {
		for i := range r.Targets {
			fail(r, i, drv("openssl"), "boom")
		}
		r.Started, r.Finished = r.Started.Add(-time.Hour), r.Finished.Add(-time.Hour)
	}
	return results
}

// invariants checks the invariants of every verdict.
func invariants(t *testing.T, name string, p *job.Plan, results []*job.Result, needs verdict.Needs, v *verdict.Verdict) {
	t.Helper()
	if v.Status == verdict.Success {
		if p == nil {
			t.Errorf("%s: green without a plan", name)
			return
		}
		for n := range p.Targets {
			if state := p.Targets[n].State; state == job.StateFailed || state == job.StateBuild && !built(p, results, n) {
				t.Errorf("%s: green, though %s is %s and not built", name, p.Targets[n].Attr, state)
			}
		}
		for id, need := range needs {
			if need.Result == verdict.Failure || need.Result == verdict.Cancelled || need.Result == verdict.Skipped && len(p.Entries) > 0 {
				t.Errorf("%s: green, though %s is %s", name, id, need.Result)
			}
		}
		if needs["discover"].Result != verdict.Success {
			t.Errorf("%s: green, though discovery is %s", name, needs["discover"].Result)
		}
	}
	stopped := slices.ContainsFunc(slices.Collect(maps.Values(needs)), func(n verdict.Need) bool { return n.Result == verdict.Cancelled })
	anyCancelled := stopped || slices.ContainsFunc(results, func(r *job.Result) bool { return r.Outcome == job.OutcomeCancelled && !r.TimedOut })
	if v.Status == verdict.Cancelled && !anyCancelled {
		t.Errorf("%s: cancelled by nobody", name)
	}
	if v.Status == verdict.Cancelled && v.Counts.Failed+v.Counts.Missing > 0 {
		t.Errorf("%s: cancelled in spite of failures: %+v", name, v.Counts)
	}
	if v.Status == verdict.Failure && stopped && !strings.Contains(v.Reason, "cancelled") {
		t.Errorf("%s: the reason does not mention that the run was cancelled: %s", name, v.Reason)
	}
	if v.Reason == "" || strings.ContainsAny(v.Reason, "\n`*[<") {
		t.Errorf("%s: the reason is not a line of plain text: %q", name, v.Reason)
	}
	c := v.Counts
	if sum := c.Built + c.Fetched + c.Present + c.Skipped + c.Failed + c.Cancelled + c.Missing; p != nil && !v.Refused && (sum != len(p.Targets) || len(v.Targets) != sum) {
		t.Errorf("%s: %d targets, %d verdicts on targets, %d counted", name, len(p.Targets), len(v.Targets), sum)
	}
	summary, text := Summary(v, SummaryOptions{}), Text(v)
	for _, target := range v.Targets {
		if !strings.Contains(summary, target.Target.Name) || !strings.Contains(text, target.Target.Name) {
			t.Errorf("%s: %s is not in the reports", name, target.Target.Name)
		}
	}
	if first, _, _ := strings.Cut(summary, "\n"); !strings.Contains(first, v.Reason) {
		t.Errorf("%s: the summary's first line is %q", name, first)
	}
	if last := text[strings.LastIndexByte(strings.TrimSuffix(text, "\n"), '\n')+1:]; !strings.HasPrefix(last, string(v.Status)+": "+v.Reason) {
		t.Errorf("%s: the text's last line is %q", name, last)
	}
	errs := 0
	for _, a := range Annotations(v) {
		if a.Level == "error" {
			errs++
		}
	}
	if (errs > 0) != (v.Status == verdict.Failure) {
		t.Errorf("%s: %s with %d errors annotated", name, v.Status, errs)
	}
}

// built finds a target independently of the verdict.
func built(p *job.Plan, results []*job.Result, n int) bool {
	for _, e := range p.Entries {
		if !slices.ContainsFunc(e.Targets, func(ref job.Ref) bool { return ref.N == n }) {
			continue
		}
		for _, r := range results {
			if r.Entry != e.ID || r.Plan != planKey || r.Error != "" || !r.Outcome.OK() {
				continue
			}
			for _, t := range r.Targets {
				if t.PostBuild != nil && t.PostBuild.Outcome == job.StepFailed {
					continue
				}
				if t.N == n && t.Attr == p.Targets[n].Attr && t.DrvPath == p.Targets[n].DrvPath && t.Outcome.OK() {
					return true
				}
			}
		}
	}
	return false
}
