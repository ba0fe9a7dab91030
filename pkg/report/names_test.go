package report

import (
	"fmt"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

// Names that begin alike can be told apart in a summary that is too small for them.
func TestNamesAreCutInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, count := range []int{8_000, 20_000} {
		var targets []job.Target
		for n := range count {
			targets = append(targets, unevaluated(pkg(fmt.Sprintf("perlPackages.SomeModuleWithALongName-%06d", n)), "boom"))
		}
		md := Summary(verdict.Judge(planOf(targets...), planKey, nil, nil), SummaryOptions{})
		_, md, _ = strings.Cut(md, "Their names")
		names, _, _ := strings.Cut(md, "</details>")
		different := map[string]bool{}
		for name := range strings.SplitSeq(names, "`, `") {
			different[name] = true
		}
		if len(different) != count {
			t.Errorf("%d names of %d are different: %.200q", len(different), count, names)
		}
	}
}
