package verdict_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	want := &verdict.Change{
		Commit: "0123456789abcdef0123456789abcdef01234567", Branch: "main", URL: "https://github.com/org/fleet/actions/runs/5", Rebuild: 17,
		Added: []string{"packages.x86_64-linux.new"}, Removed: []string{"packages.x86_64-linux.gone"}, Unchanged: 2,
		Changed: []verdict.ChangedTarget{
			{Name: "nixosConfigurations.notado", Before: 3 << 29, After: 3<<29 + 30<<20, Growths: []verdict.Growth{
				{"linux", 100 << 20, 150 << 20}, {"perl", 50 << 20, 30 << 20}, {"go", 0, 1 << 20},
			}},
			{Name: "nixosConfigurations.router", Broken: true, Before: 3 << 29},
			{Name: "packages.x86_64-linux.mended", Mended: true, After: 3 << 29},
		},
	}
	if diff := cmp.Diff(want, changed().Change); diff != "" {
		t.Error(diff)
	}
}

func TestCompareKnowsWhatIsMissing(t *testing.T) {
	t.Parallel()
	for want, p := range map[int]*job.Plan{-1: planOf(pkg("a")), 0: planOf(skipped(pkg("a"), "it is there"))} {
		if got := judged(p, planKey, nil, nil).Compare(mainRun(), p).Rebuild; got != want {
			t.Errorf("%d to build, want %d", got, want)
		}
	}
}

// Targets of several flakes with the same attribute path are each compared with their own.
func TestCompareFlakes(t *testing.T) {
	t.Parallel()
	of := func(flake, name string) job.Target {
		target := pkg(name)
		target.Flake, target.Attr = flake, "packages.x86_64-linux.tool"
		return target
	}
	p := planOf(skipped(of("./a", "a"), "it is there"), skipped(of("./b", "b"), "it is there"))
	v := judged(p, planKey, nil, nil)
	base := v.Record(job.Record{Run: 1}, p, nil, nil)
	if change := v.Compare(base, p); change.Unchanged != 2 || len(change.Added)+len(change.Removed)+len(change.Changed) > 0 {
		t.Errorf("nothing has changed, but it says %+v", change)
	}
}
