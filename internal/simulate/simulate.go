package simulate

import (
	"context"
	"math"

	"github.com/org/nix-matrix/pkg/plan"
)

// A Scenario is a graph with a number of helpers.
type Scenario struct {
	Graph   func() *Graph
	Helpers int
	// Goals, as far as there are some: the makespan against the bound, the work against unique work, and the
	// times without units and with them, without the start.
	Makespan, Work, Faster float64
}

// Scenarios are those of docs/performance.md, from 8 to 256 jobs and up to 50,000 derivations.
var Scenarios = []Scenario{
	{Graph: func() *Graph { return Single(200) }, Helpers: 7, Faster: 4},
	{Graph: func() *Graph { return Fleet(8) }, Makespan: 1.25, Work: 1.05},
	{Graph: func() *Graph { return Fleet(12) }, Helpers: 4, Makespan: 1.25, Work: 1.05},
	{Graph: func() *Graph { return Fleet(50) }, Helpers: 14, Makespan: 1.25, Work: 1.05},
	{Graph: func() *Graph { return Recorded(12) }, Makespan: 1.75, Work: 1.05},
	{Graph: func() *Graph { return Recorded(12) }, Helpers: 4, Work: 1.05},
	{Graph: func() *Graph { return Recorded(12) }, Helpers: 16, Work: 1.05},
	{Graph: func() *Graph { return Recorded(50) }, Helpers: 14, Makespan: 1.25, Work: 1.05},
	{Graph: func() *Graph { return Recorded(240) }, Helpers: 16, Makespan: 1.5},
	{Graph: func() *Graph { return Packages(3000, 1) }, Helpers: 15, Faster: 4},
	{Graph: func() *Graph { return Packages(3000, 12) }, Helpers: 4, Work: 1.05},
	{Graph: func() *Graph { return Packages(10_000, 48) }, Helpers: 16},
	{Graph: func() *Graph { return Packages(50_000, 48) }, Helpers: 16},
	{Graph: func() *Graph { return Packages(50_000, 240) }, Helpers: 16},
}

// MaxCreations is how many keys of the cache may be created in any minute. GitHub allows 200.
const MaxCreations = 150

// Quick and Slow are the costs of good and of bad days.
var (
	Quick = plan.Costs{Start: 20, Claim: 0.3, Give: 1, Notice: 2, Take: 0.7}
	Slow  = plan.Costs{Start: 90, Claim: 1.5, Give: 6, Notice: 10, Take: 4}
)

// An Outcome is what became of a scenario.
type Outcome struct {
	Name              string
	Derivations, Jobs int
	Units             int
	Path              float64 // seconds of the longest way through the graph
	Alone             float64 // makespan without units and helpers
	Bound             float64 // see [plan.Missing.Bound], with the start
	Makespan          float64
	Work, WorkAlone   float64 // against unique work
	Faster            float64 // Alone against Makespan, without the start
	Created           int     // in the busiest minute
	Waited            float64 // of the billed time
	Moved             float64 // bytes of packs that are sent or fetched
}

// Run plans a scenario, and simulates it with these costs.
func (s *Scenario) Run(ctx context.Context, costs plan.Costs) (*Outcome, error) {
	g := s.Graph()
	missing, entries, err := g.Plan(ctx)
	if err != nil {
		return nil, err
	}
	units, helpers := plan.Share(entries, plan.Options{Missing: missing, Helpers: s.Helpers})
	alone := plan.Simulate(entries, nil, missing.Rests(entries, nil), costs, 0, 0)
	all := append(entries, helpers...)
	run := plan.Simulate(all, units, missing.Rests(entries, units), costs, 0, plan.Beat(len(all)))
	o := &Outcome{
		Name: g.Name, Derivations: missing.Count(), Jobs: len(all), Units: len(units),
		Alone: alone.Makespan, Bound: missing.Bound(len(all)) + costs.Start, Makespan: run.Makespan,
		Created: len(run.Busiest()), Waited: run.Waited / run.Billed,
	}
	o.Faster = (o.Alone - costs.Start) / (o.Makespan - costs.Start)
	path, work := missing.Path()
	o.Path, o.Work, o.WorkAlone = path, run.Worked/work, alone.Worked/work
	for i, takes := range run.Takes {
		for _, drv := range units[i].Drvs {
			o.Moved += bytes(missing.Seconds(drv)) * float64(1+takes)
		}
	}
	return o, nil
}

// bytes returns the size of a derivation's packed output, by the rule by which [Recorded] has times: they
// are the roots of sizes in KiB, of which a third is left when it is packed. The largest outputs of
// real package sets are of some hundred megabytes.
func bytes(seconds float64) float64 {
	const largest = 300 << 20
	return math.Min(largest, seconds*seconds*1024/3)
}

// Met reports whether an outcome has the goals of its scenario.
func (s *Scenario) Met(o *Outcome) bool {
	within := func(value, goal float64) bool { return goal == 0 || value <= goal }
	return o.Created < MaxCreations && within(o.Makespan/o.Bound, s.Makespan) && within(o.Work, s.Work) && o.Faster >= s.Faster
}
