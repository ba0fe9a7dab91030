package verdict_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/verdict"
)

func TestComparePlans(t *testing.T) {
	before := planOf(host("nas", ""), host("old", ""), unevaluated(host("new", ""), "no"), pkg("same"), pkg("gone"))
	after := planOf(host("nas", ""), unevaluated(host("old", ""), "no"), host("new", ""), pkg("same"), pkg("fresh"))
	after.Targets[0].DrvPath = drv("nas-2")
	closures := map[string]verdict.Closure{
		before.Targets[0].DrvPath: {Bytes: 100, Parts: map[string]int64{"linux": 60, "perl": 40}}, drv("nas-2"): {Bytes: 70, Parts: map[string]int64{"linux": 70}},
	}
	got := verdict.ComparePlans(before, after, closures, 9, map[string]int{drv("nas-2"): 7})
	want := &verdict.Change{
		Rebuild: 9, Unchanged: 1, Added: []string{pkg("fresh").Name}, Removed: []string{pkg("gone").Name},
		Changed: []verdict.ChangedTarget{
			{Name: "nixosConfigurations.nas", Build: 7, Before: 100, After: 70, Growths: []verdict.Growth{{Package: "perl", Before: 40}, {Package: "linux", Before: 60, After: 70}}},
			{Name: "nixosConfigurations.old", Broken: true},
			{Name: "nixosConfigurations.new", Mended: true},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("- want + got:\n%s", diff)
	}
}
