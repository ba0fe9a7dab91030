package plan_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
)

// Each target is told how many derivations it needs, and what most targets need comes first. Trifles are counted, and
// not named.
func TestRebuild(t *testing.T) {
	g := graph{
		"a": {"lib", "tool", "light"}, "b": {"lib", "available"}, "c": {"a"}, "lib": {"base"}, "base": nil, "tool": {"base"}, "light": nil, "available": {"base"},
	}
	targets := []job.Target{build(job.NixOS, "a"), build(job.NixOS, "b"), build(job.Package, "c"), build(job.Package, "b"), build(job.Package, "available")}
	targets[4].State = job.StateSkip
	m, err := plan.FindMissing(t.Context(), targets, plan.Source{Derivations: g.derivations, Offered: offer([]string{"available"}, nil)})
	if err != nil {
		t.Fatal(err)
	}
	m.Weigh(func(drv, _ string) float64 {
		return map[string]float64{drvOf("tool"): 300}[drv]
	})
	want := &plan.Rebuild{
		Count: 7, Needs: map[string]int{drvOf("a"): 5, drvOf("b"): 3, drvOf("c"): 6},
		Dependencies: []plan.Rebuilt{{DrvPath: drvOf("base"), Targets: 3}, {DrvPath: drvOf("lib"), Targets: 3}, {DrvPath: drvOf("tool"), Targets: 2}},
	}
	if diff := cmp.Diff(want, m.Rebuild(targets)); diff != "" {
		t.Errorf("- want + got:\n%s", diff)
	}
	if got := m.Rebuild(targets[1:2]); got.Count != 3 || len(got.Dependencies) != 2 {
		t.Errorf("for b alone: %+v", got)
	}
	if diff := cmp.Diff(&plan.Rebuild{Needs: map[string]int{}}, (*plan.Missing)(nil).Rebuild(targets)); diff != "" {
		t.Errorf("nothing is missing, but\n%s", diff)
	}
}
