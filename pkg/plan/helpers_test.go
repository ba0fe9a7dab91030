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

// There are as many helpers as pay for their start.
func TestHelpersAuto(t *testing.T) {
	for _, test := range []struct {
		count int
		takes float64
		want  int
	}{{200, 2, 2}, {20, 2, 0}, {4, 300, 3}, {200, 60, 16}, {2000, 600, 16}} {
		g, seconds := parts(test.count, test.takes)
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
	for jobs, want := range map[int]int{1: 15, 20: 15, 60: 45, 256: 180} {
		if got := plan.Beat(jobs); got != want {
			t.Errorf("%d jobs: %d, want %d", jobs, got, want)
		}
	}
}
