package plan_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
)

// share returns the entries, units and helpers of hosts.
func (g graph) share(t *testing.T, seconds map[string]float64, targets []job.Target, o plan.Options) ([]job.Entry, []job.Unit, []job.Entry) {
	t.Helper()
	o.Missing = g.missingOf(t, targets, seconds)
	entries, err := plan.Entries(targets, o)
	if err != nil {
		t.Fatal(err)
	}
	units, helpers := plan.Share(entries, o)
	return entries, units, helpers
}

// parts is a host that needs so many derivations of as many seconds.
func parts(count int, takes float64) (graph, map[string]float64) {
	g, seconds := graph{"host": nil}, map[string]float64{"host": 1}
	for i := range count {
		part := fmt.Sprint("part", i)
		g[part], g["host"] = nil, append(g["host"], part)
		seconds[part] = takes
	}
	return g, seconds
}

func TestHelpers(t *testing.T) {
	g, seconds := parts(200, 60)
	hosts := []job.Target{build(job.NixOS, "host")}
	entries, units, helpers := g.share(t, seconds, hosts, plan.Options{Helpers: 3, MaxEntries: 3, Runners: plan.Runners{"x86_64-linux": {"large"}}})
	if len(entries) != 1 || len(units) < 8 || len(helpers) != 2 {
		t.Fatalf("%d entries, %d units, %d helpers", len(entries), len(units), len(helpers))
	}
	data, err := json.Marshal(helpers[1])
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"name":"helper 2 x86_64-linux","id":%q,"host":null,"platform":"x86_64-linux","system":"x86_64-linux","attr":"","drvPath":"","outputs":[],`+
		`"runner":["large"],"qemu":false,"helper":true,"targets":[]}`, job.NewEntryID("helper 2 x86_64-linux"))
	if string(data) != want {
		t.Errorf("a helper is %s, want %s", data, want)
	}
	p := &job.Plan{Version: job.Version, ID: "test", Targets: hosts, Entries: append(entries, helpers...), Units: units, Beat: plan.Beat(3)}
	if data, err = p.Marshal(); err == nil {
		_, err = job.ParsePlan(data)
	}
	if err != nil {
		t.Error(err)
	}
	if matrix, err := plan.Matrix(p, "key"); err != nil || !strings.Contains(string(matrix), `"helper":true,"plan":"key","targets":[]`) {
		t.Errorf("the matrix is %s, %v", matrix, err)
	}

	// Only so many as run beside the entries.
	for _, asked := range []int{3, plan.HelpersAuto} {
		for parallel, want := range map[int]int{1: 0, 2: 1, 3: 2} {
			if entries, _, helpers := g.share(t, seconds, hosts, plan.Options{Helpers: asked, MaxParallel: parallel}); len(entries) != 1 || len(helpers) != want {
				t.Errorf("%d helpers, %d at the same time: %d entries with %d helpers", asked, parallel, len(entries), len(helpers))
			}
		}
	}

	// A target with the name of a helper keeps it.
	named := build(job.NixOS, "host")
	named.Name = "helper 1 x86_64-linux"
	if _, _, helpers := g.share(t, seconds, []job.Target{named}, plan.Options{Helpers: 1}); len(helpers) != 1 || helpers[0].Name != "helper 2 x86_64-linux" {
		t.Errorf("beside one of this name: %+v", helpers)
	}
	for _, none := range []string{"a chain", "little"} {
		g, seconds := parts(1, 1)
		if none == "a chain" {
			g["part0"] = []string{g.chain("link", 100)}
		}
		if _, units, helpers := g.share(t, seconds, hosts, plan.Options{Helpers: 4}); len(units)+len(helpers) > 0 {
			t.Errorf("%s: %d units, %d helpers", none, len(units), len(helpers))
		}
	}
}

// Without helpers, what one host alone needs is cut if another one has time to build it, and else nothing.
func TestPrivateWithoutHelpers(t *testing.T) {
	g := graph{}
	seconds := map[string]float64{"h1": 1, "h2": 1}
	for i := range 40 {
		part := fmt.Sprint("part", i)
		g[part], g["h1"] = nil, append(g["h1"], part)
		seconds[part] = 60
	}
	hosts := []job.Target{build(job.NixOS, "h1"), build(job.NixOS, "h2")}
	g["h2"] = []string{"own"}
	g["own"], seconds["own"] = nil, 60
	entries, units, helpers := g.share(t, seconds, hosts, plan.Options{})
	if len(units) < 8 || len(helpers) > 0 {
		t.Errorf("%d units, %d helpers", len(units), len(helpers))
	}
	m := g.missingOf(t, hosts, seconds)
	with := plan.Simulate(entries, units, m.Rests(entries, units), plan.ExpectedCosts, 0, 15)
	if bound := m.Bound(2) + plan.ExpectedCosts.Start; with.Makespan > 1.1*bound {
		t.Errorf("it takes %v s, against a bound of %v", with.Makespan, bound)
	}
	// Where no duration is known, it may take longer as well as shorter.
	if _, units, _ := g.share(t, nil, hosts, plan.Options{}); len(units) > 0 {
		t.Errorf("unknown: %d units", len(units))
	}
	// As much for the other one: nothing is gained.
	for i := range 40 {
		part := fmt.Sprint("other", i)
		g[part], g["h2"] = nil, append(g["h2"], part)
		seconds[part] = 60
	}
	if _, units, _ := g.share(t, seconds, hosts, plan.Options{}); len(units) > 0 {
		t.Errorf("balanced: %d units", len(units))
	}
	// A tenth would be gained, but less time than a runner needs to start.
	few, short := graph{"h1": nil, "h2": nil}, map[string]float64{"h1": 1, "h2": 1}
	for i := range 28 {
		part, host := fmt.Sprint("few", i), "h1"
		if i < 10 {
			host = "h2"
		}
		few[part], few[host] = nil, append(few[host], part)
		short[part] = 10
	}
	if _, units, _ := few.share(t, short, hosts, plan.Options{}); len(units) > 0 {
		t.Errorf("little to gain: %d units", len(units))
	}
	// One host alone has nobody to help it.
	if _, units, _ := g.share(t, seconds, hosts[:1], plan.Options{}); len(units) > 0 {
		t.Errorf("one host: %d units", len(units))
	}
}

// There are as many helpers as pay for their start.
func TestHelpersAuto(t *testing.T) {
	const unknown = 0
	for _, test := range []struct {
		count int
		takes float64
		want  int
	}{{200, 2, 2}, {20, 2, 0}, {4, 300, 3}, {200, 60, 16}, {2000, 600, 16}, {12, unknown, 0}, {200, unknown, 4}} {
		g, seconds := parts(test.count, test.takes)
		if test.takes == unknown {
			seconds = nil
		}
		_, units, helpers := g.share(t, seconds, []job.Target{build(job.NixOS, "host")}, plan.Options{Helpers: plan.HelpersAuto})
		if len(helpers) != test.want || len(units) == 0 != (test.want == 0) {
			t.Errorf("%d derivations of %v s: %d helpers for %d units, want %d", test.count, test.takes, len(helpers), len(units), test.want)
		}
	}
}

// Helpers are on the runner for which there are the most units, though another entry takes longer.
func TestHelpersRunner(t *testing.T) {
	g, seconds := parts(40, 60)
	g["a"], g["b"] = g["host"], append([]string{g.chain("link", 300)}, g["host"][:2]...)
	hosts := []job.Target{build(job.NixOS, "b"), build(job.NixOS, "a")}
	hosts[1].Features = []string{"kvm"}
	_, _, helpers := g.share(t, seconds, hosts, plan.Options{Helpers: 1, Runners: plan.Runners{"kvm": {"with-kvm"}}})
	if len(helpers) != 1 || cmp.Diff([]string{"with-kvm"}, helpers[0].Runner) != "" {
		t.Errorf("the helpers are %+v", helpers)
	}
}

func TestBeat(t *testing.T) {
	for jobs, want := range map[int]int{1: 15, 10: 15, 20: 30, 60: 90, 256: 240} {
		if got := plan.Beat(jobs); got != want {
			t.Errorf("%d jobs: %d, want %d", jobs, got, want)
		}
	}
}
