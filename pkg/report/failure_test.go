package report

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
)

func TestFailure(t *testing.T) {
	t.Parallel()
	log := slices.Repeat([]string{"a"}, 11)
	log[0] = "the first line"
	for want, target := range map[string]job.TargetResult{
		"boom": {Outcome: job.OutcomeFailed, Error: "boom", Causes: []string{drv("x")}},
		"boom\n> a\n> a\n> a\n> a\n> a\n> a\n> a\n> a\n> a\n> a": {Outcome: job.OutcomeFailed, Error: "boom", Log: log},
		"boom\nAlso failed: y, z\nReproduce locally: nix build": {
			Outcome: job.OutcomeFailed, Error: "boom", Causes: []string{drv("x"), drv("y"), drv("z")}, Reproduce: "nix build",
		},
		"stopped": {Outcome: job.OutcomeCancelled, Error: "stopped", Reproduce: "nix build"},
	} {
		if diff := cmp.Diff(want, targetFailure(&job.Result{}, &target, true)); diff != "" {
			t.Error(diff)
		}
	}
	if got := targetFailure(&job.Result{}, &job.TargetResult{Outcome: job.OutcomeFailed, Error: "boom", Log: log}, false); got != "boom" {
		t.Errorf("without the log: %q", got)
	}
}

// A failure in another job names it, and those of a helper are told although it has no target.
func TestFailuresElsewhere(t *testing.T) {
	t.Parallel()
	r := &job.Result{Failures: []job.Failure{
		{DrvPath: drv("x"), Error: "boom", Entry: "helper 1", URL: "https://example.org/1"},
		{DrvPath: drv("y"), Error: "bang", Log: []string{"a"}, NixLog: true},
	}}
	const elsewhere = "boom\nIt failed in the job of helper 1 https://example.org/1"
	want := []string{"  boom\n  It failed in the job of helper 1 https://example.org/1", "  bang\n  Its log: nix log " + drv("y")}
	if diff := cmp.Diff(want, ResultDetails(r, false)); diff != "" {
		t.Error(diff)
	}
	// GitHub shows annotations in the log of the job too.
	if got := ResultDetails(r, true); len(got) > 0 {
		t.Errorf("the log repeats %q", got)
	}
	annotations := []Annotation{
		{Level: "error", Title: "x", Message: elsewhere},
		{Level: "error", Title: "y", Message: "bang\n> a\nIts log: nix log " + drv("y")},
	}
	if diff := cmp.Diff(annotations, ResultAnnotations(r)); diff != "" {
		t.Error(diff)
	}
}
