package plan_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
)

func TestShareStore(t *testing.T) {
	g := graph{
		"h1": {"kernel", "web", "mail", "own", "db"}, "h2": {"kernel", "web", "mail", "db"}, "h3": {"kernel", "light-doc"},
		"kernel": {"cc"}, "web": {"cc", "lib"}, "lib": nil, "mail": {"cc"}, "db": {"cc"}, "cc": nil, "light-doc": {"cc"}, "own": {"cc"},
	}
	seconds := map[string]float64{"kernel": 100, "cc": 50, "web": 20, "lib": 4, "mail": 30, "db": 5, "own": 300, "h1": 1, "h2": 1, "h3": 1}
	for _, test := range []struct {
		what    string
		jobs    int
		oneSlot bool
		want    []string
	}{
		{"one at a time shares nothing", 1, false, nil},
		{"a part of each class for each that is built at the same time", 2, false, []string{"cc kernel / [0 1 2]", "db lib web / [0 1]", "mail / [0 1]"}},
		{"one derivation at a time", 2, true, []string{"cc / [0 1 2]", "kernel / [0 1 2]", "mail / [0 1]", "db lib web / [0 1]"}},
	} {
		var targets []job.Target
		for _, host := range []string{"h1", "h2", "h3"} {
			targets = append(targets, build(job.NixOS, host))
		}
		entries, err := plan.Entries(targets, plan.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, u := range plan.ShareStore(entries, g.missingOf(t, targets, seconds), test.jobs, test.oneSlot) {
			var drvs []string
			for _, drv := range u.Drvs {
				drvs = append(drvs, drvName(drv))
			}
			got = append(got, fmt.Sprint(strings.Join(drvs, " "), " / ", u.For))
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.what, diff)
		}
	}
}

// Units for one store hold what other units promise, and nothing that entries share and that could be in one is in none.
func TestShareStoreOfAny(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		g, seconds, targets, entries := randomFleet(t, random)
		jobs := 2 + random.IntN(3)
		units := plan.ShareStore(entries, g.missingOf(t, targets, seconds), jobs, false)
		if diff := cmp.Diff(units, plan.ShareStore(entries, g.missingOf(t, targets, seconds), jobs, false)); diff != "" {
			t.Fatalf("seed %d: not the same again: %s", seed, diff)
		}
		p := &job.Plan{Version: job.Version, ID: "test", Targets: targets, Entries: entries, Units: units, Beat: 60}
		checkParses(t, seed, p)
		what := fmt.Sprint("seed ", seed)
		checkUnits(t, what, g, seconds, p, plan.UnitOptions{}, 0)
		checkAllShared(t, what, g, p)
		if t.Failed() {
			return
		}
	}
}

// checkAllShared fails if what several entries of one system need is in no unit, unless its path or that of something
// that it needs is known only after the build.
func checkAllShared(t *testing.T, what string, g graph, p *job.Plan) {
	t.Helper()
	needers, systems, in := map[string]int{}, map[string][]string{}, map[string]bool{}
	for _, u := range p.Units {
		for _, drv := range u.Drvs {
			in[drvName(drv)] = true
		}
	}
	for _, e := range p.Entries {
		all := map[string]bool{}
		for _, ref := range e.Targets {
			g.below(all, drvName(ref.DrvPath))
		}
		for name := range all {
			needers[name]++
			if !slices.Contains(systems[name], e.System) {
				systems[name] = append(systems[name], e.System)
			}
		}
	}
	for name, count := range needers {
		below := map[string]bool{}
		g.below(below, name)
		floating := false
		for needed := range below {
			floating = floating || strings.HasPrefix(needed, "ca")
		}
		if want := count > 1 && len(systems[name]) == 1 && !floating; in[name] != want {
			t.Errorf("%s: %s is in a unit: %v, want %v", what, name, in[name], want)
		}
	}
}
