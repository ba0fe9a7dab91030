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
		if diff := cmp.Diff(want, targetFailure(&job.Result{}, &target)); diff != "" {
			t.Error(diff)
		}
	}
}
