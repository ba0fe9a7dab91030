package simulate

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/plan"
)

// The goals of scenarios hold, and so does GitHub's limit. The largest are for make bench.
func TestScenarios(t *testing.T) {
	const most = 10_000
	for i := range Scenarios {
		s := &Scenarios[i]
		if len(s.Graph().Seconds) > most {
			continue
		}
		for _, costs := range []plan.Costs{Quick, plan.ExpectedCosts, Slow} {
			o, err := s.Run(t.Context(), costs)
			if err != nil {
				t.Fatal(err)
			}
			again, err := s.Run(t.Context(), costs)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(o, again); diff != "" {
				t.Errorf("%s: not the same again: %s", o.Name, diff)
			}
			if o.Makespan > o.Alone || o.Makespan < o.Bound-costs.Start || o.Work > o.WorkAlone {
				t.Errorf("%s: slower than without: %+v", o.Name, o)
			}
			if costs != plan.ExpectedCosts {
				continue
			}
			if !s.Met(o) {
				t.Errorf("%s: the goals are missed: %+v", o.Name, o)
			}
		}
	}
}
