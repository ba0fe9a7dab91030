package verdict

import (
	"fmt"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// Shared is the work that the jobs of a run did for each other.
type Shared struct {
	Units []SharedUnit `json:"units"` // in the order of the Plan
	// BuildSeconds is the sum of the times of all builds, and UniqueSeconds that of one build of
	// each derivation: as much as one machine would need.
	BuildSeconds  float64 `json:"buildSeconds"`
	UniqueSeconds float64 `json:"uniqueSeconds"`
	Waited        float64 `json:"waited"` // seconds in which jobs only waited for units, all together
	// Chain are the names of units of which each needs the one before, and which together took
	// longest, and ChainSeconds is that time: no number of jobs makes the run shorter.
	Chain        []string `json:"chain,omitempty"`
	ChainSeconds float64  `json:"chainSeconds,omitempty"`
}

// A SharedUnit is the way of a unit through the run.
type SharedUnit struct {
	Name    string   `json:"name"`
	System  string   `json:"system"`
	Seconds float64  `json:"seconds"`         // of the job that built it last
	By      []string `json:"by,omitempty"`    // names of the entries that built it
	Taken   []string `json:"taken,omitempty"` // names of the entries that took it from another
	Failed  bool     `json:"failed,omitempty"`
	Bytes   int64    `json:"bytes,omitempty"` // that all of Taken read
}

// shared sets the work that the jobs did for each other, if the Plan has units.
func (j *judgement) shared() {
	if len(j.plan.Units) == 0 {
		return
	}
	s := &Shared{Units: make([]SharedUnit, len(j.plan.Units))}
	numbers := map[string]int{}
	for n, u := range j.plan.Units {
		s.Units[n] = SharedUnit{Name: u.Name, System: u.System}
		numbers[u.ID] = n
	}
	unique := map[string]float64{}
	for i := range j.plan.Entries {
		e := &j.plan.Entries[i]
		r := j.results[e.ID]
		if r == nil {
			continue
		}
		s.Waited += Seconds(r.Waited).Seconds()
		for _, b := range r.Builds {
			took := Seconds(b.Seconds).Seconds()
			s.BuildSeconds += took
			if before, twice := unique[b.DrvPath]; !twice || took < before {
				unique[b.DrvPath] = took
			}
		}
		for _, u := range r.Units {
			if n, ok := numbers[u.ID]; ok {
				s.Units[n].add(e.Name, u)
			}
		}
	}
	for _, took := range unique {
		s.UniqueSeconds += took
	}
	s.findChain(j.plan.Units)
	j.v.Shared = s
	var lost []string
	for i := range j.plan.Entries {
		if e := &j.plan.Entries[i]; e.Helper && j.lost(e) {
			lost = append(lost, e.Name)
		}
	}
	if len(lost) > 0 {
		j.v.Notices = append(slices.Clone(j.v.Notices), fmt.Sprintf("Without a result, and not needed for the verdict: %s.", text.Some(lost, fewHelpers)))
	}
}

// fewHelpers is the most names of helpers in a notice.
const fewHelpers = 5

// lost reports whether a job ended without telling what it did.
func (j *judgement) lost(e *job.Entry) bool {
	return j.results[e.ID] == nil || unfinished(j.results[e.ID])
}

// findChain sets the chain that took longest. Each unit comes after those that it needs.
func (s *Shared) findChain(units []job.Unit) {
	until, before, last := make([]float64, len(units)), make([]int, len(units)), -1
	for n := range units {
		before[n] = -1
		for _, needed := range units[n].After {
			if before[n] < 0 || until[needed] > until[before[n]] {
				before[n] = needed
			}
		}
		if until[n] = s.Units[n].Seconds; before[n] >= 0 {
			until[n] += until[before[n]]
		}
		if last < 0 || until[n] > until[last] {
			last = n
		}
	}
	for n := last; n >= 0; n = before[n] {
		s.Chain = append(s.Chain, units[n].Name)
	}
	slices.Reverse(s.Chain)
	s.ChainSeconds = until[last]
}

func (u *SharedUnit) add(entry string, r job.UnitResult) {
	switch r.How {
	case job.UnitBuilt, job.UnitAlone, job.UnitFailed:
		u.By = append(u.By, entry)
		u.Seconds = Seconds(r.Seconds).Seconds()
		u.Failed = u.Failed || r.How == job.UnitFailed
	case job.UnitTaken:
		u.Taken = append(u.Taken, entry)
		u.Bytes += max(0, r.Bytes)
	case job.UnitBlocked:
		u.Failed = true
	}
}

// helperLost reports whether a helper left no good Result. No target depends on it: the jobs that
// needed its units have built them, or are red themselves.
func (j *judgement) helperLost() bool {
	return slices.ContainsFunc(j.plan.Entries, func(e job.Entry) bool {
		return e.Helper && (j.lost(&e) || !j.results[e.ID].Outcome.OK())
	})
}

// helperError returns the error of a helper that is one of the run: a push that was asked for.
func helperError(r *job.Result) string {
	if unfinished(r) || r.TimedOut {
		return ""
	}
	return pushError(r)
}
