package plan_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/billing"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
)

// The forecast bills each job by its runner, and says which times it knows and what sharing saves.
func TestForecastBill(t *testing.T) {
	g := graph{"a": {"large", "other"}, "b": {"large", "other"}, "mac": nil, "large": {"lib"}, "lib": nil, "other": nil}
	targets := []job.Target{build(job.NixOS, "a"), build(job.NixOS, "b"), build(job.Darwin, "mac")}
	targets[2].System = "aarch64-darwin"
	m := g.missingOf(t, targets, map[string]float64{"large": 600, "lib": 20, "other": 600})
	entries, err := plan.Entries(targets, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := &job.Plan{Targets: targets, Entries: entries, Saved: &job.Saved{Skipped: 3}}
	alone := plan.NewForecast(p, m)
	if alone.SharedSeconds != 0 {
		t.Errorf("nothing is shared, and that saves %v s", alone.SharedSeconds)
	}
	want := billing.Bill{ // a start of 40 s, 1220 s, and 10 s for what is of unknown time
		Lines:  []billing.Line{{Runner: "Linux", Jobs: 2, Minutes: 44, Factor: 1, Billed: 44}, {Runner: "macOS", Jobs: 1, Minutes: 1, Factor: 10, Billed: 10}},
		Billed: 54,
	}
	if diff := cmp.Diff(want, alone.Bill); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	p.Units = m.Units(entries, plan.UnitOptions{})
	shared := plan.NewForecast(p, m)
	if len(p.Units) == 0 || shared.SharedSeconds <= 0 {
		t.Errorf("%d units save %v s", len(p.Units), shared.SharedSeconds)
	}
	if shared.Derivations != 6 || shared.Timed != 3 || shared.Saved.Skipped != 3 {
		t.Errorf("%d of %d times are known, %d are skipped", shared.Timed, shared.Derivations, shared.Saved.Skipped)
	}
	for _, r := range shared.Runners {
		if r.Minutes < 22+1+10 || r.Minutes > want.Billed {
			t.Errorf("%d jobs at once: %v minutes", r.Runners, r.Minutes)
		}
	}
}

// Outputs that are available have saved the builds whose durations are known, each once.
func TestReused(t *testing.T) {
	g := graph{"a": {"lib", "lib^doc", "tool"}, "b": {"lib", "public"}, "lib": {"base"}, "tool": nil, "public": nil, "base": nil}
	m, err := plan.FindMissing(t.Context(), []job.Target{build(job.NixOS, "a"), build(job.NixOS, "b")}, plan.Source{
		Derivations: g.derivations, Offered: offer([]string{"lib", "public", "base"}, nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	took := map[string]float64{"lib": 100, "base": 1000, "tool": 10}
	got := m.Reused(func(drv, system string) float64 {
		if system != "x86_64-linux" {
			t.Errorf("%s is for %q", drv, system)
		}
		return took[strings.TrimSuffix(job.DrvName(drv), ".drv")]
	})
	if got != 100 {
		t.Errorf("reuse saves %v s, want 100", got)
	}
}
