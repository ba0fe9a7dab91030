package verdict_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
	"github.com/org/nix-matrix/pkg/verdict/verdicttest"
)

// The paths are those of targets that were built and of those that are available, and of no others.
func TestPaths(t *testing.T) {
	skipped := func(name string, available bool) job.Target {
		target := verdicttest.Skipped(pkg(name), "a reason")
		target.Available = available
		return target
	}
	same := func(name, from string) job.Target {
		target := pkg(name)
		target.Attr = from
		return target
	}
	floating := pkg("floating")
	floating.OutPaths, floating.Outputs = nil, []string{"out", "dev"}
	plan := planOf(
		host("pi3", "aarch64-linux"), skipped("cached", true), skipped("not-wanted", false), verdicttest.Unevaluated(pkg("broken"), "no"), pkg("failed"), floating,
		same("one", "twice"), same("two", "twice"), same("three", "again"), same("three", "again"),
	)
	results := resultsOf(plan)
	for _, r := range results {
		for i := range r.Targets {
			switch target := &r.Targets[i]; target.N {
			case 4:
				fail(r, i, target.DrvPath)
			case 5:
				target.Outputs = []job.Output{{Name: "out", Path: verdicttest.StorePath("found-out")}, {Name: "dev", Path: verdicttest.StorePath("found-out-dev")}}
			}
		}
	}
	v := judged(plan, planKey, results, needsOf(verdict.Success, verdict.Failure))
	paths, ambiguous := v.Paths()
	out := func(n int) map[string]string { return map[string]string{"out": plan.Targets[n].OutPaths["out"]} }
	want := verdict.Paths{
		plan.Targets[0].Attr: out(0), plan.Targets[1].Attr: out(1), "again": out(8),
		plan.Targets[5].Attr: {"out": verdicttest.StorePath("found-out"), "dev": verdicttest.StorePath("found-out-dev")},
	}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("paths, - want + got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"twice"}, ambiguous); diff != "" {
		t.Errorf("ambiguous attributes, - want + got:\n%s", diff)
	}
}

// An output has the size that GitHub gives it, and no target is none.
func TestPathsOutput(t *testing.T) {
	none, err := verdict.Paths{}.Marshal()
	if err != nil || string(none) != "{}" {
		t.Errorf("got %s, %v", none, err)
	}
	data, err := verdict.Paths{"packages.x.\U0001F331": {"out": "/nix/store/x"}}.Marshal()
	if err != nil || string(data) != `{"packages.x.`+"\U0001F331"+`":{"out":"/nix/store/x"}}` {
		t.Errorf("got %s, %v", data, err)
	}
	if got, want := verdict.OutputSize(data), len(data)-2; got != want { // four bytes are two units
		t.Errorf("the size is %d, want %d", got, want)
	}
}
