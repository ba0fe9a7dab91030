package plan_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
)

// A target may name its runner, or need a feature that one is named for: those are
// entries of their own.
func TestNamedRunners(t *testing.T) {
	target := func(name string, features, runner []string) job.Target {
		return job.Target{
			Name: name, Attr: name, Kind: job.Package, System: "x86_64-linux", State: job.Build, Outputs: []string{"out"},
			DrvPath: "/nix/store/00000000000000000000000000000000-" + name + ".drv", Features: features, Runner: runner,
		}
	}
	targets := []job.Target{
		target("plain", nil, nil), target("vm", []string{"kvm"}, nil), target("other", []string{"big-parallel"}, nil),
		target("gpu", []string{"kvm"}, []string{"self-hosted", "gpu"}),
	}
	runners, err := plan.ParseRunners("kvm=with-kvm")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := plan.Entries(targets, plan.Options{Runners: runners})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, e := range entries {
		got[e.Name] = e.Runner
	}
	want := map[string][]string{"plain and other x86_64-linux": {"ubuntu-latest"}, "vm": {"with-kvm"}, "gpu": {"self-hosted", "gpu"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
