package verdict_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	good := needsOf(verdict.Success, verdict.Success)
	one := func() *job.Plan { return planOf(host("pi3", "aarch64-linux")) }
	two := func() *job.Plan { return planOf(host("pi3", "aarch64-linux"), pkg("a"), pkg("b")) }

	for _, tt := range []struct {
		name    string
		plan    *job.Plan
		results func(all []*job.Result) []*job.Result
		needs   verdict.Needs

		status verdict.Status
		counts verdict.Counts
		reason string // occurs in it
		why    string // occurs in one of the targets' whys, or an entry's message
	}{
		{
			name: "the command line has no needs", plan: one(),
			status: verdict.Success, counts: verdict.Counts{Built: 1}, reason: "the only target is done",
		},
		{
			name: "an empty plan on the command line", plan: planOf(),
			status: verdict.Success, reason: "nothing to build",
		},
		{
			name: "fetched and present are good", plan: two(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				all[0].Targets[0].Outcome, all[1].Targets[0].Outcome = job.OutcomeFetched, job.OutcomePresent
				return all
			},
			status: verdict.Success, counts: verdict.Counts{Built: 1, Fetched: 1, Present: 1}, reason: "all 3 targets are done",
		},
		{
			name: "an outcome of the future is no good one", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				all[0].Targets[0].Outcome = "dreamt"
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Failed: 1}, why: `"dreamt"`,
		},
		{
			name: "another derivation", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				all[0].Targets[0].DrvPath = drv("other")
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Missing: 1}, why: verdict.WhyOtherDrv,
		},
		{
			name: "another attribute", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				all[0].Targets[0].Attr = "packages.other"
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Missing: 1}, why: verdict.WhyOtherDrv,
		},
		{
			name: "another number", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				all[0].Targets[0].N = 7
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Missing: 1}, why: verdict.WhyUnmentioned,
		},
		{
			name: "a target that another entry vouches for", plan: two(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				all[0].Targets = append(all[0].Targets, all[1].Targets...)
				return all[:1]
			},
			status: verdict.Failure, counts: verdict.Counts{Built: 1, Missing: 2}, why: verdict.WhyNoResult,
		},
		{
			name: "a target told of twice, once badly", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				bad := all[0].Targets[0]
				bad.Outcome = job.OutcomeFailed
				all[0].Targets = []job.TargetResult{all[0].Targets[0], bad, all[0].Targets[0]}
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Failed: 1},
		},
		{
			name: "of another run", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				all[0].Plan = otherPlanKey
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Missing: 1}, why: verdict.WhyOtherPlan,
		},
		{
			name: "a rerun mended it", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				first := *all[0]
				first.Targets = slices.Clone(first.Targets)
				fail(&first, 0, drv("openssl"))
				all[0].Finished = first.Finished.Add(time.Hour)
				return append(all, &first)
			},
			status: verdict.Success, counts: verdict.Counts{Built: 1},
		},
		{
			name: "a rerun broke it", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				second := *all[0]
				second.Targets = slices.Clone(second.Targets)
				fail(&second, 0, drv("openssl"))
				second.Finished = second.Finished.Add(time.Hour)
				return []*job.Result{&second, all[0]}
			},
			status: verdict.Failure, counts: verdict.Counts{Failed: 1},
		},
		{
			name: "an unknown entry does no harm", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				stray := *all[0]
				stray.Entry, stray.Outcome = "stray", job.OutcomeFailed
				return append(all, &stray, nil)
			},
			status: verdict.Success, counts: verdict.Counts{Built: 1},
		},
		{
			name: "a push error that the worker did not make an error", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				all[0].Pushes = []job.Push{{Destination: "cachix:fleet", Error: "401"}}
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Built: 1}, reason: "1 entry has an error of its own", why: "push to cachix:fleet: 401",
		},
		{
			name: "an optional push error", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				all[0].Pushes = []job.Push{{Destination: "cachix:fleet", Error: "401", Optional: true}}
				return all
			},
			status: verdict.Success, counts: verdict.Counts{Built: 1},
		},
		{
			name: "an optional push error, and one that counts", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				all[0].Pushes = []job.Push{{Destination: "cachix:fleet", Error: "401", Optional: true}, {Destination: "s3://cache", Error: "403"}}
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Built: 1}, why: "push to s3://cache: 403",
		},
		{
			name: "the step after the build failed", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				all[0].Targets[0].PostBuild = &job.Step{Outcome: job.StepFailed, Error: "exit status 1"}
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Failed: 1}, why: "post_build failed: exit status 1\n",
		},
		{
			name: "the step after the build failed, as the worker has it", plan: one(), needs: needsOf(verdict.Success, verdict.Failure),
			results: func(all []*job.Result) []*job.Result {
				t := &all[0].Targets[0]
				t.PostBuild = &job.Step{Outcome: job.StepFailed, Error: "post_build failed: exit status 1"}
				t.Outcome, t.Error, all[0].Outcome = job.OutcomeFailed, t.PostBuild.Error, job.OutcomeFailed
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Failed: 1}, reason: "1 of 1 target failed", why: "post_build failed: exit status 1\n",
		},
		{
			name: "the step after the build failed in one of two results", plan: one(), needs: good,
			results: func(all []*job.Result) []*job.Result {
				bad := all[0].Targets[0]
				bad.PostBuild = &job.Step{Outcome: job.StepFailed}
				all[0].Targets = []job.TargetResult{all[0].Targets[0], bad, all[0].Targets[0]}
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Failed: 1}, why: "post_build failed: no error was given",
		},
		{
			name: "the deadline came", plan: two(), needs: needsOf(verdict.Success, verdict.Failure),
			results: func(all []*job.Result) []*job.Result {
				all[1].TimedOut, all[1].Outcome, all[1].Error = true, job.OutcomeCancelled, "after 5h45m"
				all[1].Targets[1].Outcome = job.OutcomeCancelled
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Built: 2, Failed: 1}, reason: "1 of 3 targets failed", why: verdict.WhyDeadline + "\nafter 5h45m\n",
		},
		{
			name: "the deadline came, and the worker calls that a failure", plan: one(), needs: needsOf(verdict.Success, verdict.Failure),
			results: func(all []*job.Result) []*job.Result {
				all[0].TimedOut, all[0].Outcome = true, job.OutcomeFailed
				all[0].Targets[0].Outcome, all[0].Targets[0].Error = job.OutcomeFailed, "the deadline has come"
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Failed: 1}, reason: "1 of 1 target failed", why: verdict.WhyDeadline + "\nthe deadline has come\n",
		},
		{
			name: "the deadline came after a failure", plan: one(), needs: needsOf(verdict.Success, verdict.Failure),
			results: func(all []*job.Result) []*job.Result {
				fail(all[0], 0, drv("openssl"))
				all[0].TimedOut = true
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Failed: 1}, reason: "1 of 1 target failed, 1 entry has an error of its own", why: verdict.WhyDeadline + "\n",
		},
		{
			name: "the deadline came before any target", plan: one(), needs: needsOf(verdict.Success, verdict.Failure),
			results: func(all []*job.Result) []*job.Result {
				all[0].TimedOut, all[0].Outcome, all[0].Targets = true, job.OutcomeCancelled, nil
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Missing: 1}, reason: "1 of 1 target has no result, 1 entry has an error of its own", why: verdict.WhyDeadline + "\n" + verdict.WhyDeadline,
		},
		{
			name: "the deadline came, and the run was cancelled", plan: one(), needs: needsOf(verdict.Success, verdict.Cancelled),
			results: func(all []*job.Result) []*job.Result {
				all[0].TimedOut, all[0].Outcome, all[0].Targets[0].Outcome = true, job.OutcomeCancelled, job.OutcomeCancelled
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Failed: 1}, reason: "the run was also cancelled",
		},
		{
			name: "the hand-over failed", plan: two(), needs: needsOf(verdict.Success, verdict.Failure),
			results: func(all []*job.Result) []*job.Result {
				all[1].Targets, all[1].Outcome, all[1].Error = nil, job.OutcomeFailed, "no pack"
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Built: 1, Missing: 2}, reason: "2 of 3 targets have no result, 1 entry has an error", why: verdict.WhyUnmentioned,
		},
		{
			name: "a job failed after all was well", plan: one(), needs: needsOf(verdict.Success, verdict.Failure),
			status: verdict.Failure, counts: verdict.Counts{Built: 1}, reason: "a job that the gate waits for failed",
		},
		{
			name: "discovery failed behind its plan", plan: one(), needs: needsOf(verdict.Failure, verdict.Skipped),
			results: func([]*job.Result) []*job.Result { return nil },
			status:  verdict.Failure, counts: verdict.Counts{Missing: 1}, reason: "1 of 1 target has no result, discovery failed",
		},
		{
			name: "a job says something new", plan: one(), needs: verdict.Needs{"discover": {Result: "paused", Outputs: good["discover"].Outputs}},
			status: verdict.Failure, counts: verdict.Counts{Built: 1},
		},
		{
			name: "cancelled with one done", plan: two(), needs: needsOf(verdict.Success, verdict.Cancelled),
			results: func(all []*job.Result) []*job.Result { return all[:1] },
			status:  verdict.Cancelled, counts: verdict.Counts{Built: 1, Cancelled: 2}, reason: "the run was cancelled with 1 of 3 targets done", why: verdict.WhyNeverEnded,
		},
		{
			name: "cancelled, and one failed before", plan: two(), needs: needsOf(verdict.Success, verdict.Failure),
			results: func(all []*job.Result) []*job.Result {
				fail(all[1], 0, drv("openssl"))
				all[1].Targets[1].Outcome = job.OutcomeCancelled
				return all[1:]
			},
			status: verdict.Failure, counts: verdict.Counts{Failed: 1, Cancelled: 2}, reason: "1 of 3 targets failed; the run was also cancelled", why: verdict.WhyStopped,
		},
		{
			name: "cancelled, and the worker was killed", plan: one(), needs: needsOf(verdict.Success, verdict.Cancelled),
			results: func(all []*job.Result) []*job.Result {
				r := all[0]
				r.Outcome, r.Error, r.Finished, r.Targets = job.OutcomeFailed, "the worker ended early", r.Started, nil
				return all
			},
			status: verdict.Cancelled, counts: verdict.Counts{Cancelled: 1}, why: verdict.WhyNeverEnded,
		},
		{
			name: "the worker was killed", plan: one(), needs: needsOf(verdict.Success, verdict.Failure),
			results: func(all []*job.Result) []*job.Result {
				r := all[0]
				r.Outcome, r.Error, r.Finished, r.Targets = job.OutcomeFailed, "the worker ended early", r.Started, nil
				return all
			},
			status: verdict.Failure, counts: verdict.Counts{Missing: 1}, reason: "1 entry has an error of its own", why: "the worker ended early",
		},
		{
			name: "stopped on the command line", plan: two(),
			results: func(all []*job.Result) []*job.Result {
				all[0].Outcome, all[0].Targets[0].Outcome, all[0].Error = job.OutcomeCancelled, job.OutcomeCancelled, "the build was stopped"
				return all[:1]
			},
			status: verdict.Cancelled, counts: verdict.Counts{Cancelled: 3}, reason: "0 of 3 targets",
		},
		{
			name: "stopped, which makes a job fail whose run goes on", plan: two(), needs: needsOf(verdict.Success, verdict.Failure),
			results: func(all []*job.Result) []*job.Result {
				all[1].Outcome, all[1].Error = job.OutcomeCancelled, "the build was stopped"
				all[1].Targets[0].Outcome, all[1].Targets[1].Outcome = job.OutcomeBuilt, job.OutcomeCancelled
				return all
			},
			status: verdict.Cancelled, counts: verdict.Counts{Built: 2, Cancelled: 1}, reason: "2 of 3 targets", why: verdict.WhyStopped,
		},
		{
			name: "all built, then stopped while pushing", plan: one(),
			results: func(all []*job.Result) []*job.Result {
				all[0].Outcome, all[0].Error = job.OutcomeCancelled, "stopped at the push"
				return all
			},
			status: verdict.Cancelled, counts: verdict.Counts{Built: 1}, reason: "though the only target is done", why: "stopped at the push",
		},
		{
			name: "all done, then cancelled", plan: one(), needs: needsOf(verdict.Success, verdict.Cancelled),
			status: verdict.Cancelled, counts: verdict.Counts{Built: 1}, reason: "though the only target is done",
		},
		{
			name: "the matrix was dropped", plan: two(),
			needs: verdict.Needs{
				"find":  {Result: verdict.Success, Outputs: map[string]string{"count": "2", "plan": planKey}},
				"build": {Result: verdict.Failure},
			},
			results: func([]*job.Result) []*job.Result { return nil },
			status:  verdict.Failure, counts: verdict.Counts{Missing: 3}, reason: "contains the value of a secret", why: verdict.WhyNoMatrix,
		},
		{
			name: "the matrix was dropped, and it was the only output", plan: one(),
			needs:   verdict.Needs{"discover": {Result: verdict.Success}, "build": {Result: verdict.Skipped}},
			results: func([]*job.Result) []*job.Result { return nil },
			status:  verdict.Failure, reason: "contains the value of a secret",
		},
		{
			name: "the matrix is empty", plan: one(),
			needs:   verdict.Needs{"discover": {Result: verdict.Success, Outputs: map[string]string{"matrix": " ", "count": "1"}}},
			results: func([]*job.Result) []*job.Result { return nil },
			status:  verdict.Failure, reason: "contains the value of a secret",
		},
		{
			name: "another job without outputs, and one with a plan of its own", plan: one(),
			needs: verdict.Needs{
				"find":      {Result: verdict.Success, Outputs: map[string]string{"matrix": thePlan, "count": thePlan, "plan": planKey}},
				"terraform": {Result: verdict.Success, Outputs: map[string]string{"plan": "2 to add"}},
				"build":     {Result: verdict.Success, Outputs: map[string]string{}},
			},
			status: verdict.Success, counts: verdict.Counts{Built: 1},
		},
		{
			name: "outputs that the user renamed", plan: one(),
			needs:  verdict.Needs{"discover": {Result: verdict.Success, Outputs: map[string]string{"jobs": "{}"}}, "build": {Result: verdict.Success}},
			status: verdict.Failure, reason: "discovery names none",
		},
		{
			name: "nothing to build, and discovery is not among the needs", plan: planOf(skipped(pkg("a"), "it is there")),
			needs:  verdict.Needs{"build": {Result: verdict.Skipped}},
			status: verdict.Failure, reason: "no job in needs names one",
		},
		{
			name: "nothing to build, and discovery does not export its plan", plan: planOf(),
			needs:  verdict.Needs{"find": {Result: verdict.Success, Outputs: map[string]string{"matrix": thePlan, "count": thePlan}}, "build": {Result: verdict.Skipped}},
			status: verdict.Failure, reason: "discovery names none",
		},
		{
			name: "nothing to build, and discovery has another id", plan: planOf(),
			needs:  verdict.Needs{"find": {Result: verdict.Success, Outputs: map[string]string{"matrix": thePlan, "count": thePlan, "plan": planKey}}, "build": {Result: verdict.Skipped}},
			status: verdict.Success, reason: "nothing to build",
		},
		{
			name: "only the rows of the matrix name the plan", plan: two(),
			needs:  verdict.Needs{"find": {Result: verdict.Success, Outputs: map[string]string{"matrix": thePlan}}, "build": {Result: verdict.Success}},
			status: verdict.Success, counts: verdict.Counts{Built: 3},
		},
		{
			name:   "no plan, cancelled, and discovery has another id",
			needs:  verdict.Needs{"find": {Result: verdict.Cancelled}, "build": {Result: verdict.Skipped}},
			status: verdict.Cancelled, reason: "before there was a plan",
		},
		{
			name:   "no plan, and discovery has another id",
			needs:  verdict.Needs{"find": {Result: verdict.Failure}, "build": {Result: verdict.Skipped}},
			status: verdict.Failure, reason: "there is no plan",
		},
		{
			name: "no plan, and nothing known", status: verdict.Failure, reason: "there is no plan",
		},
		{
			name: "no plan, though discovery succeeded", needs: good,
			status: verdict.Failure, reason: "though its job succeeded",
		},
		{
			name: "no plan, discovery cancelled, lint failed", needs: verdict.Needs{"discover": {Result: verdict.Cancelled}, "lint": {Result: verdict.Failure}},
			status: verdict.Failure, reason: "it was cancelled, and another job failed",
		},
		{
			name: "a target that no entry has", needs: good,
			plan: func() *job.Plan {
				p := one()
				p.Targets = append(p.Targets, pkg("a"))
				return p
			}(),
			status: verdict.Failure, counts: verdict.Counts{Built: 1, Missing: 1}, why: verdict.WhyNoEntry,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var results []*job.Result
			if tt.plan != nil {
				results = resultsOf(tt.plan)
			}
			if tt.results != nil {
				results = tt.results(results)
			}
			v := judged(tt.plan, planKey, results, tt.needs)
			if v.Status != tt.status || !strings.Contains(v.Reason, tt.reason) {
				t.Errorf("%s: %q, want %s: %q", v.Status, v.Reason, tt.status, tt.reason)
			}
			if diff := cmp.Diff(tt.counts, v.Counts); diff != "" {
				t.Errorf("counts (-want +got):\n%s", diff)
			}
			whys := ""
			for _, target := range v.Targets {
				whys += target.Why + "\n"
			}
			for _, p := range v.Entries {
				whys += p.Message + "\n"
			}
			if !strings.Contains(whys, tt.why) {
				t.Errorf("%q is not among the reasons:\n%s", tt.why, whys)
			}
			again := judged(tt.plan, planKey, reversed(results), tt.needs)
			if diff := cmp.Diff(v, again); diff != "" {
				t.Errorf("another order of the results gives another verdict:\n%s", diff)
			}
		})
	}
}
