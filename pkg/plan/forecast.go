package plan

import (
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/billing"
	"github.com/org/nix-matrix/pkg/job"
)

// A Forecast says how long the runs of a Plan will take. Times are in seconds.
type Forecast struct {
	Derivations int               `json:"derivations"` // missing ones
	Timed       int               `json:"timed"`       // those whose time is known, or is none
	Work        float64           `json:"work"`        // of all of them, each once
	Path        []Step            `json:"criticalPath"`
	PathSeconds float64           `json:"criticalPathSeconds"`
	Units       []job.Unit        `json:"units"`
	Entries     []string          `json:"entries"` // names, to which Units refer by number; the helpers come last
	Runners     []RunnersForecast `json:"runners"`
	// Bill is that of all jobs of the matrix, if all run at the same time: those of discovery and report
	// are not in it.
	Bill billing.Bill `json:"bill"`
	// Saved is the time of builds that the run does without, and SharedSeconds the time of runners that is
	// saved because jobs build for each other; it is less than 0 if that takes longer.
	Saved         job.Saved `json:"saved"`
	SharedSeconds float64   `json:"sharedSeconds"`
}

// A Step is a derivation of the critical path: the longest way through the graph.
type Step struct {
	DrvPath string  `json:"drvPath"`
	Seconds float64 `json:"seconds"`
}

// A RunnersForecast is the forecast for a number of jobs at the same time.
type RunnersForecast struct {
	Runners  int     `json:"runners"`
	Makespan float64 `json:"seconds"` // until the last entry is finished
	Billed   float64 `json:"billed"`  // of all jobs
	Waited   float64 `json:"waited"`  // of those
	Bound    float64 `json:"bound"`   // what so many jobs cannot be faster than
	Minutes  float64 `json:"minutes"` // billed, as in Bill
}

// NewForecast returns the forecast of a Plan for 1 job at once, 2, and so on up to all.
func NewForecast(p *job.Plan, m *Missing) *Forecast {
	f := &Forecast{Path: []Step{}, Units: p.Units, Entries: []string{}, Runners: []RunnersForecast{}, Bill: billing.Bill{Lines: []billing.Line{}}}
	for i := range p.Entries {
		f.Entries = append(f.Entries, p.Entries[i].Name)
	}
	if f.Units == nil {
		f.Units = []job.Unit{}
	}
	if p.Saved != nil {
		f.Saved = *p.Saved
	}
	if m.Count() == 0 {
		return f
	}
	f.Derivations, f.Timed, f.Path = m.Count(), m.known, m.longestPath()
	f.PathSeconds, f.Work = m.Path()
	rests := m.Rests(p.Entries, p.Units)
	for jobs := 1; jobs <= len(p.Entries); jobs = nextCount(jobs, len(p.Entries)) {
		run := Simulate(p.Entries, p.Units, rests, ExpectedCosts, jobs, p.Beat)
		f.Bill = bill(p.Entries, run)
		f.Runners = append(f.Runners, RunnersForecast{
			Runners: jobs, Makespan: run.Makespan, Billed: run.Billed, Waited: run.Waited, Bound: m.Bound(jobs) + ExpectedCosts.Start,
			Minutes: f.Bill.Billed,
		})
		if jobs == len(p.Entries) {
			f.SharedSeconds = m.alone(p.Entries) - run.Billed
		}
	}
	return f
}

// bill returns the bill for the jobs of a run.
func bill(entries []job.Entry, run *Run) billing.Bill {
	var b billing.Bill
	for i := range entries {
		b.Add(billing.Machine{Labels: entries[i].Runner}, time.Duration(run.Jobs[i]*float64(time.Second)))
	}
	return b
}

// alone returns the time of all jobs if each builds everything that it needs.
func (m *Missing) alone(entries []job.Entry) float64 {
	entries = slices.DeleteFunc(slices.Clone(entries), func(e job.Entry) bool { return e.Helper })
	return Simulate(entries, nil, m.Rests(entries, nil), ExpectedCosts, 0, 0).Billed
}

// longestPath returns the derivations of the longest way through the graph that take time, the first
// one first.
func (m *Missing) longestPath() []Step {
	ends := m.earliest()
	last := int32(-1)
	for n := range m.paths {
		if last < 0 || ends[n] > ends[last] {
			last = int32(n)
		}
	}
	steps := []Step{}
	for n := last; n >= 0; {
		if m.seconds[n] > 0 {
			steps = append(steps, Step{m.paths[n], m.seconds[n]})
		}
		before := int32(-1)
		for _, input := range m.inputs[n] {
			if before < 0 || ends[input] > ends[before] {
				before = input
			}
		}
		n = before
	}
	slices.Reverse(steps)
	return steps
}

// Name returns the name of a step's derivation.
func (s *Step) Name() string { return strings.TrimSuffix(job.DrvName(s.DrvPath), ".drv") }

// NeededBefore reports whether another unit that the entry needs comes after a unit.
func (f *Forecast) NeededBefore(unit, entry int) bool {
	return slices.ContainsFunc(f.Units[unit+1:], func(u job.Unit) bool {
		return slices.Contains(u.After, unit) && slices.Contains(u.For, entry)
	})
}
