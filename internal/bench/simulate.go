package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/org/nix-matrix/internal/simulate"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/text"
)

// simulated are runs over graphs of the shape of real ones, planned for expected costs, on quick, ordinary
// and slow days.
func (b *bench) simulated(ctx context.Context) error {
	for i := range simulate.Scenarios {
		s := &simulate.Scenarios[i]
		var times []string
		var met bool
		var o *simulate.Outcome
		for _, costs := range []plan.Costs{simulate.Quick, simulate.Slow, plan.ExpectedCosts} { // the last is described
			var err error
			if o, err = s.Run(ctx, costs); err != nil {
				return err
			}
			met = s.Met(o)
			times = append(times, fmt.Sprintf("%.2f", o.Makespan/o.Bound))
		}
		goal := []string{fmt.Sprintf("< %d creations", simulate.MaxCreations)}
		for _, g := range []struct {
			format string
			value  float64
		}{{"≤ %.2f × bound", s.Makespan}, {"≤ %.2f × unique work", s.Work}, {"≥ %.0f × faster", s.Faster}} {
			if g.value > 0 {
				goal = append(goal, fmt.Sprintf(g.format, g.value))
			}
		}
		b.rows = append(b.rows, row{
			Work:    fmt.Sprintf("simulated: %s, %d missing derivations, %d jobs of which %d are helpers", o.Name, o.Derivations, o.Jobs, s.Helpers),
			Against: fmt.Sprintf("the bound max(longest path, work ÷ jobs), %s; without units: %s", minutes(o.Bound), minutes(o.Alone)),
			Value: fmt.Sprintf("%s, %s × bound (runners start in 20 s: %s; in 90 s, with a slow cache: %s), %.1f × faster; %.2f × unique work (without units %.1f); %d units, %d creations in the busiest minute, %.0f %% waited, %s moved",
				minutes(o.Makespan), times[2], times[0], times[1], o.Faster, o.Work, o.WorkAlone, o.Units, o.Created, 100*o.Waited, text.Size(int64(o.Moved))),
			Goal: strings.Join(goal, ", "), Met: met,
		})
	}
	return nil
}

func minutes(seconds float64) string { return fmt.Sprintf("%.1f min", seconds/60) }
