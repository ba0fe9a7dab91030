package verdict_test

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

// Only the plan that the discover job names can be green.
func TestPlanIsTheOneThatNeedsName(t *testing.T) {
	t.Parallel()
	const second = "second-plan0-77aa77aa77aa77aa77aa77aa77aa77aa"
	one := planOf(host("pi3", "aarch64-linux"))
	rows := func(key string, p *job.Plan) string {
		data, err := json.Marshal(p.Matrix(key))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	// outputs returns those of a discover job that made a Plan, with changes.
	outputs := func(change map[string]string) map[string]string {
		all := map[string]string{"matrix": rows(planKey, one), "count": "1", "plan": planKey}
		maps.Copy(all, change)
		maps.DeleteFunc(all, func(_, value string) bool { return value == "-" })
		return all
	}
	needs := func(change map[string]string) verdict.Needs {
		return verdict.Needs{"discover": {Result: verdict.Success, Outputs: outputs(change)}, "build": {Result: verdict.Success}}
	}
	with := func(n verdict.Needs, id string, more verdict.Need) verdict.Needs {
		n[id] = more
		return n
	}
	empty := planOf()
	another := planOf()
	another.ID = "second"
	for name, tt := range map[string]struct {
		plan   *job.Plan
		key    string
		needs  verdict.Needs
		reason string // empty: it is green
		next   string // occurs in it
	}{
		"the plan":                                        {plan: one, needs: needs(nil)},
		"sealed, stored at another try":                   {plan: one, needs: needs(map[string]string{"plan": "nix-matrix-plan3-0123456789abcdef-5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c"})},
		"white space around the outputs":                  {plan: one, needs: needs(map[string]string{"plan": " " + planKey + "\n", "count": " 1\n"})},
		"by the rows alone":                               {plan: one, needs: needs(map[string]string{"plan": "-", "count": "-"})},
		"by the output plan alone":                        {plan: one, needs: needs(map[string]string{"count": "-", "matrix": rows(planKey, one)})},
		"an empty plan by its name":                       {plan: empty, needs: needs(map[string]string{"count": "0", "matrix": rows(planKey, empty)})},
		"another use with an id of its own":               {plan: one, needs: with(needs(nil), "discover2", verdict.Need{Result: verdict.Success, Outputs: map[string]string{"plan": second, "count": "7"}})},
		"the same outputs by way of another job":          {plan: one, needs: with(needs(nil), "again", verdict.Need{Result: verdict.Success, Outputs: outputs(nil)})},
		"another job has a plan and a matrix of its own":  {plan: one, needs: with(needs(nil), "terraform", verdict.Need{Result: verdict.Success, Outputs: map[string]string{"plan": "2 to add", "matrix": `{"include":[{"plan":"x"}]}`, "count": "9"}})},
		"an empty plan in place of the one that was made": {plan: empty, key: otherPlanKey, needs: needs(nil), reason: "the plan that arrived is not the one", next: "`nix-matrix.plan` has another plan"},
		"the plan of another run":                         {plan: &job.Plan{ID: job.DefaultID, Run: 8, Attempt: 2}, key: otherPlanKey, needs: needs(nil), reason: "the plan that arrived is not the one", next: "made in the run 8, attempt 2"},
		"that of another use in the same workflow": {
			plan: another, key: "nix-matrix-plan0-77aa77aa77aa77aa77aa77aa77aa77aa", reason: "the plan that arrived is not the one",
			needs: with(needs(nil), "discover2", verdict.Need{Result: verdict.Success, Outputs: map[string]string{"plan": second}}),
		},
		"that of another use, by a hash that fits":                    {plan: another, needs: needs(map[string]string{"count": "-", "matrix": "-"}), reason: "the plan that arrived is not the one"},
		"two uses with one id":                                        {plan: one, needs: with(needs(nil), "discover2", verdict.Need{Result: verdict.Success, Outputs: map[string]string{"plan": otherPlanKey}}), reason: "two uses of nix-matrix in this workflow have the same id", next: "`discover` and `discover2` name two plans of the id `nix-matrix`"},
		"two uses with one id, and the second exports a matrix alone": {plan: one, needs: with(needs(nil), "x", verdict.Need{Result: verdict.Success, Outputs: map[string]string{"matrix": rows(otherPlanKey, one)}}), reason: "two uses of nix-matrix", next: "Give each use an `id` of its own"},
		"outputs of two steps of one job":                             {plan: one, needs: needs(map[string]string{"matrix": rows(otherPlanKey, one)}), reason: "two uses of nix-matrix", next: "The job `discover` names two plans"},
		"count is another one":                                        {plan: one, needs: needs(map[string]string{"count": "2"}), reason: "the plan has 1 entry, and the count of discovery is 2"},
		"count is 0":                                                  {plan: one, needs: needs(map[string]string{"count": "0"}), reason: "the plan has 1 entry, and the count of discovery is 0"},
		"count is no number":                                          {plan: one, needs: needs(map[string]string{"count": "##[error]x"}), reason: "the count of discovery is something else"},
		"an empty plan, and a matrix":                                 {plan: empty, needs: needs(map[string]string{"count": "0"}), reason: "the matrix of discovery does not have the entries"},
		"a plan, and an empty matrix":                                 {plan: one, needs: needs(map[string]string{"matrix": rows(planKey, empty)}), reason: "the matrix of discovery does not have the entries"},
		"a row twice":                                                 {plan: one, needs: needs(map[string]string{"matrix": rows(planKey, &job.Plan{Entries: append(one.Entries, one.Entries...)})}), reason: "the matrix of discovery does not have the entries"},
		"a row of another entry":                                      {plan: one, needs: needs(map[string]string{"matrix": rows(planKey, planOf(host("pi4", "aarch64-linux")))}), reason: "the matrix of discovery does not have the entries"},
		"a matrix that is none":                                       {plan: one, needs: needs(map[string]string{"matrix": "[]"}), reason: "the matrix of discovery does not have the entries"},
		"the ten lines of before, with nothing to build":              {plan: empty, needs: needs(map[string]string{"count": "0", "matrix": rows(planKey, empty), "plan": "-"}), reason: "discovery names none", next: "export the output `plan` of the discover job"},
		"nobody discovers":                                            {plan: empty, needs: verdict.Needs{"build": {Result: verdict.Skipped}}, reason: "no job in needs names one", next: "Add the discover job to the `needs`"},
		"discovery failed before it named one":                        {plan: empty, needs: verdict.Needs{"discover": {Result: verdict.Failure}, "build": {Result: verdict.Skipped}}, reason: "discovery did not succeed"},
		"a key that is none":                                          {plan: one, key: "nix-matrix-plan0-5f0c", needs: needs(nil), reason: "the plan to judge is unknown"},
		"discover names none, and a job that says what it likes names another id": {plan: one, needs: with(needs(map[string]string{"plan": "-", "matrix": "-", "count": "-"}), "lint", verdict.Need{Result: verdict.Success, Outputs: map[string]string{"plan": second}}), reason: "the matrix did not arrive"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := tt.key
			if key == "" {
				key = planKey
			}
			results := resultsOf(tt.plan)
			for _, r := range results {
				r.Plan = key
			}
			v := verdict.Judge(tt.plan, key, results, tt.needs)
			if want := tt.reason == ""; (v.Status == verdict.Success) != want || v.Refused == want {
				t.Fatalf("%s, refused: %t: %s", v.Status, v.Refused, v.Reason)
			}
			if !strings.Contains(v.Reason, tt.reason) || !strings.Contains(v.Next, tt.next) {
				t.Errorf("the reason is %q, and then: %q", v.Reason, v.Next)
			}
			if v.Refused && (v.Counts != verdict.Counts{} || len(v.Targets)+len(v.Work) > 0) {
				t.Errorf("a plan that is refused counts: %+v", v)
			}
			if !v.Refused && v.Counts.Done() != len(tt.plan.Targets) {
				t.Errorf("%s of %d", strconv.Itoa(v.Counts.Done()), len(tt.plan.Targets))
			}
		})
	}
}

// A target is done if its result names each output that the plan wants, at the path that
// the plan knows.
func TestGreenNeedsEvidence(t *testing.T) {
	t.Parallel()
	other := storePath("other")
	for name, tt := range map[string]struct {
		target func(*job.Target)
		result func(*job.TargetResult)
		why    string // empty: it is done
	}{
		"as planned": {},
		"known only after the build": {
			target: func(t *job.Target) { t.OutPaths = nil },
			result: func(r *job.TargetResult) { r.Outputs[0].Path = other },
		},
		"two outputs in another order": {
			target: func(t *job.Target) { t.Outputs = []string{"dev", "out"} },
			result: func(r *job.TargetResult) { r.Outputs = append(r.Outputs, job.Output{Name: "dev", Path: other}) },
		},
		"none wanted, none built":             {target: func(t *job.Target) { t.Outputs, t.OutPaths = nil, nil }, result: func(r *job.TargetResult) { r.Outputs = nil }, why: verdict.WhyNoPaths},
		"none wanted, one built":              {target: func(t *job.Target) { t.Outputs = nil }, why: verdict.WhyNoPaths},
		"none built":                          {result: func(r *job.TargetResult) { r.Outputs = nil }, why: verdict.WhyNoPaths},
		"one of two built":                    {target: func(t *job.Target) { t.Outputs = []string{"out", "dev"} }, why: verdict.WhyNoPaths},
		"one built twice in place of another": {target: func(t *job.Target) { t.Outputs = []string{"out", "dev"} }, result: func(r *job.TargetResult) { r.Outputs = append(r.Outputs, r.Outputs...) }, why: verdict.WhyNoPaths},
		"another output":                      {result: func(r *job.TargetResult) { r.Outputs[0].Name = "dev" }, why: verdict.WhyNoPaths},
		"one more than is wanted":             {result: func(r *job.TargetResult) { r.Outputs = append(r.Outputs, job.Output{Name: "dev", Path: other}) }, why: verdict.WhyNoPaths},
		"at another path":                     {result: func(r *job.TargetResult) { r.Outputs[0].Path = other }, why: verdict.WhyNoPaths},
		"without a path":                      {result: func(r *job.TargetResult) { r.Outputs[0].Path = "" }, why: verdict.WhyNoPaths},
		"there already": {
			target: func(t *job.Target) { t.State, t.Available, t.Reason = job.StateSkip, true, "at cachix:fleet" },
		},
		"there already, and no path is known": {
			target: func(t *job.Target) { t.State, t.Available, t.OutPaths = job.StateSkip, true, nil }, why: verdict.WhyNowhere,
		},
		"there already, and nothing is wanted": {
			target: func(t *job.Target) { t.State, t.Available, t.Outputs = job.StateSkip, true, nil }, why: verdict.WhyNowhere,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, outcome := range []job.Outcome{job.OutcomeBuilt, job.OutcomeFetched, job.OutcomePresent} {
				p := planOf(host("pi3", "aarch64-linux"))
				results := resultsOf(p)
				if tt.target != nil {
					tt.target(&p.Targets[0])
				}
				r := &results[0].Targets[0]
				r.Outcome = outcome
				if tt.result != nil {
					tt.result(r)
				}
				v := judged(p, planKey, results, nil)
				if target := v.Targets[0]; (v.Status == verdict.Success) != (tt.why == "") || tt.why != "" && target.Why != tt.why {
					t.Errorf("%s: %s: %s, %s", outcome, v.Reason, target.Status, target.Why)
				}
				if record := v.Record(job.Record{ID: p.ID, Created: noon}, p, results, nil); (len(record.Proved) > 0) != (tt.why == "") {
					t.Errorf("%s: proved are %v", outcome, record.Proved)
				}
			}
		})
	}
}

func TestOtherRun(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		planRun, run         int64
		planAttempt, attempt int
		refused              bool
	}{
		{7, 7, 1, 1, false},
		{7, 7, 1, 2, false}, // failed jobs ran again
		{7, 7, 2, 1, true},
		{6, 7, 1, 1, true},
		{0, 7, 0, 1, true},
	} {
		refusal := verdict.OtherRun(&job.Plan{Run: test.planRun, Attempt: test.planAttempt}, test.run, test.attempt)
		if (refusal != nil) != test.refused {
			t.Errorf("%+v: %+v", test, refusal)
		}
	}
}

// A Plan has the same name at each try to store it.
func TestResultsOfAnotherTryCount(t *testing.T) {
	t.Parallel()
	p := planOf(pkg("a"))
	results := resultsOf(p)
	results[0].Plan = strings.Replace(planKey, "plan0", "plan2", 1)
	if v := judged(p, planKey, results, nil); v.Status != verdict.Success {
		t.Errorf("it is %s: %s", v.Status, v.Reason)
	}
}
