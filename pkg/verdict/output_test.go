package verdict_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

func TestOutput(t *testing.T) {
	plan := planOf(host("pi3", "aarch64-linux"), pkg("b"))
	results := resultsOf(plan)
	results[0].Targets[0].Outputs[0].Parts = map[string]int64{"a part of the closure": 1 << 20}
	results[0].Targets[0].PostBuild = &job.Step{Outcome: job.StepFailed, Error: "exit status 1", Log: []string{"a line of the step's log"}}
	fail(results[1], 0, drv("openssl"), "a line of the log")
	v := judged(plan, planKey, results, needsOf(verdict.Success, verdict.Failure))
	// An emoji is two characters in UTF-16.
	v.Targets[0].Target.Description = "for the garden \U0001F331"

	all, err := v.Output(job.MaxMatrix)
	if err != nil {
		t.Fatal(err)
	}
	for _, long := range []string{"a part of the closure", "a line of the", "\n"} {
		if strings.Contains(string(all), long) {
			t.Errorf("%q is in the output %s", long, all)
		}
	}
	if results[0].Targets[0].PostBuild.Log == nil || results[1].Targets[0].Log == nil || results[0].Targets[0].Outputs[0].Parts == nil {
		t.Error("the results have lost what the output leaves out")
	}
	var read verdict.Verdict
	if err := json.Unmarshal(all, &read); err != nil {
		t.Fatal(err)
	}
	if len(read.Targets) != 2 || read.Targets[0].Result.Outputs[0].Path == "" || read.Targets[1].Why == "" {
		t.Errorf("what became of the targets is not in %s", all)
	}

	length := len(utf16.Encode([]rune(string(all))))
	if fits, err := v.Output(length); err != nil || !cmp.Equal(fits, all) {
		t.Errorf("%d characters do not fit into %d: %s, %v", length, length, fits, err)
	}
	counts, err := v.Output(length - 1)
	if err != nil {
		t.Fatal(err)
	}
	var got verdict.Verdict
	if err := json.Unmarshal(counts, &got); err != nil {
		t.Fatal(err)
	}
	want := verdict.Verdict{
		Status: verdict.Failure, Reason: v.Reason, Next: v.Next, Counts: verdict.Counts{Failed: 2},
		Seconds: v.Seconds, JobSeconds: v.JobSeconds, Targets: []verdict.Target{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is left, - want + got:\n%s", diff)
	}
}
