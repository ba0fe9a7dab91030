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
