package verdict_test

import (
	"testing"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

func TestTheOutputThatStandsForATarget(t *testing.T) {
	t.Parallel()
	outputs := func(names ...string) *job.TargetResult {
		r := &job.TargetResult{}
		for _, name := range names {
			r.Outputs = append(r.Outputs, job.Output{Name: name, Path: name})
		}
		return r
	}
	for want, v := range map[string]verdict.Target{
		"out": {Status: verdict.TargetBuilt, Result: outputs("dev", "out", "man")},
		"bin": {Status: verdict.TargetBuilt, Result: outputs("bin", "dev")},
		"":    {Status: verdict.TargetFailed, Target: job.Target{OutPaths: map[string]string{"out": "x"}}},
		"lib": {Status: verdict.TargetSkipped, Target: job.Target{OutPaths: map[string]string{"man": "man", "lib": "lib"}}},
	} {
		if got := v.Output().Path; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Only fields say that the deadline came, or that a step failed, not the text of a builder.
func TestSentencesMeanNothing(t *testing.T) {
	t.Parallel()
	p := planOf(pkg("a"))
	for message, timedOut := range map[string]bool{verdict.WhyDeadline: false, "post_build failed: x": false, "x": true} {
		results := resultsOf(p)
		fail(results[0], 0, "", message)
		results[0].Targets[0].Error = message
		results[0].TimedOut = timedOut
		got := judged(p, planKey, results, nil).Targets[0]
		if got.Status != verdict.TargetFailed || got.TimedOut != timedOut || got.StepFailed() {
			t.Errorf("with the error %q: %+v", message, got)
		}
	}
}
