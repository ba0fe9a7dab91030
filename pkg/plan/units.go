package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// UnitOptions say how to cut units.
type UnitOptions struct {
	// Helpers is the number of helpers of each system. With some, parts that only one entry needs are
	// cut too.
	Helpers int
	// Most is the most units of a system, 0 for no other limit than that of the time to cut them.
	Most int
}

// mostSeconds is the most that a Plan may have.
const mostSeconds = 1e9

// Units cuts the derivations that entries have to build into units, each after those that it needs.
//
// The derivations of a unit are needed by the same entries, by two or more if there are no helpers,
// and all of these are for one system. Units are as large as lets all jobs of a system take several,
// and no lighter than is worth a claim. A derivation whose path is known only after the build is in no
// unit, nor is one that needs such a one, nor a trifle, unless a unit alone needs it. If there would be
// too many units, those that save least are given up. What is in no unit is built wherever it is needed.
func (m *Missing) Units(entries []job.Entry, o UnitOptions) []job.Unit {
	if m.Count() == 0 {
		return nil
	}
	g := newGraph(m, entries)
	most := g.mostUnits()
	if o.Most > 0 {
		most = min(most, o.Most)
	}
	var all []job.Unit
	for _, system := range g.entrySystems {
		clusters := g.cut(system, manner{g.jobs(system) + o.Helpers, o.Helpers > 0, 1})
		all = appendUnits(all, newSystemUnits(g, best(clusters, most)).describe())
	}
	return all
}

// appendUnits adds units of another system, which need none of those.
func appendUnits(all, units []job.Unit) []job.Unit {
	before := len(all)
	for i := range units {
		for j := range units[i].After {
			units[i].After[j] += before
		}
	}
	return append(all, units...)
}

// jobs returns the number of entries of a system.
func (g *graph) jobs(system string) int {
	jobs := 0
	for i := range g.entries {
		if g.entries[i].System == system {
			jobs++
		}
	}
	return jobs
}

// systemUnits are the units of a system, each after those that it needs.
type systemUnits struct {
	*graph
	times []float64 // of each unit, in seconds
	first []int32   // a derivation of each unit
	of    []int16   // of each derivation: its unit, -1 if it is nobody's
	below sets      // of each derivation: its unit, else the units that it needs, with none between
	after sets      // of each unit: likewise
	all   sets      // of each unit: all units that it needs
}

// best returns the clusters that save most, at most most, in their order.
func best(clusters []*cluster, most int) []*cluster {
	if len(clusters) <= most {
		return clusters
	}
	order := make([]int, len(clusters))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(clusters[b].saves, clusters[a].saves) })
	var all []*cluster
	for _, i := range slices.Sorted(slices.Values(order[:most])) {
		all = append(all, clusters[i])
	}
	return all
}

// newSystemUnits makes units of clusters, without absorbing anything.
func newSystemUnits(g *graph, clusters []*cluster) *systemUnits {
	s := &systemUnits{graph: g, of: make([]int16, len(g.paths)), below: newSets(len(g.paths), len(clusters))}
	for n := range s.of {
		s.of[n] = -1
	}
	for i, c := range clusters {
		for _, n := range c.drvs {
			s.of[n] = int16(i)
		}
		s.times, s.first = append(s.times, c.seconds), append(s.first, c.drvs[0])
	}
	s.after, s.all = newSets(len(clusters), len(clusters)), newSets(len(clusters), len(clusters))
	s.connect()
	return s
}

// absorb adds derivations of nobody to units where that costs nothing, or little.
func (s *systemUnits) absorb() *systemUnits {
	s.absorbDependants()
	s.connect()
	s.absorbInputs() // of those too
	s.connect()
	return s
}

// mayJoin reports whether the unit may have a derivation of nobody.
func (s *systemUnits) mayJoin(n int32, unit int) bool {
	return s.of[n] < 0 && unit >= 0 && s.whole[n] && !s.isLast(n) && s.class[n] == s.class[s.first[unit]]
}

// isLast reports whether a derivation is all that its only entry still has to build, when everything else is
// built. No other job builds it, since nothing would be gained.
func (g *graph) isLast(n int32) bool { return g.last[n] && !g.shared[g.class[n]] }

func (s *systemUnits) join(n int32, unit int) {
	s.of[n] = int16(unit) //nolint:gosec // at most maxUnits
	s.times[unit] += s.seconds[n]
}

// absorbInputs adds to each unit the derivations that it needs and nothing else does, and those that
// need it themselves, too. It has to build them anyway.
func (s *systemUnits) absorbInputs() {
	above := newSets(len(s.paths), len(s.times)) // units that need each, with none between
	for _, n := range slices.Backward(s.order) {
		rest := false
		for _, dependant := range s.dependants[n] {
			above.of(n).addAll(above.of(dependant))
			rest = rest || s.of[dependant] < 0
		}
		unit := s.below.of(n).common(above.of(n))
		if unit < 0 && !rest && above.of(n).count() == 1 {
			unit = above.of(n).last()
		}
		if s.mayJoin(n, unit) {
			s.join(n, unit)
		}
		if unit := s.of[n]; unit >= 0 {
			above.of(n).only(int(unit))
		}
	}
}

// connect sets what is below and after.
func (s *systemUnits) connect() {
	clear(s.after.words)
	for _, n := range s.order {
		s.look(n)
		if unit := s.of[n]; unit >= 0 {
			s.after.of(int32(unit)).addAll(s.below.of(n))
			s.below.of(n).only(int(unit))
		}
	}
	for unit := range int32(len(s.times)) { //nolint:gosec // at most maxUnits
		s.after.of(unit).remove(int(unit))
		copy(s.all.of(unit), s.after.of(unit))
		for before := range s.after.of(unit).members() {
			s.all.of(unit).addAll(s.all.of(int32(before))) //nolint:gosec // at most maxUnits
		}
	}
}

// look sets what is below the inputs of a derivation.
func (s *systemUnits) look(n int32) {
	below := s.below.of(n)
	clear(below)
	for _, input := range s.inputs[n] {
		below.addAll(s.below.of(input))
	}
}

// absorbDependants adds to each unit derivations that need it and nothing that it does not need
// itself: they can be built at its end, so that not all others have to build them. It
// becomes longer for all that wait for it, so that it gets only light ones, and few.
func (s *systemUnits) absorbDependants() {
	added := make([]float64, len(s.times))
	for _, n := range s.order {
		if s.of[n] >= 0 {
			continue
		}
		s.look(n)
		unit := s.below.of(n).last()
		if !s.mayJoin(n, unit) || s.seconds[n] == 0 || added[unit]+s.seconds[n] > claimSeconds {
			continue
		}
		before := s.all.of(int32(unit))       //nolint:gosec // at most maxUnits
		if before.lacks(s.below.of(n)) == 1 { // the unit
			added[unit] += s.seconds[n]
			s.join(n, unit)
			s.below.of(n).only(unit)
		}
	}
}

// sketch returns the units as far as a simulation needs them.
func (s *systemUnits) sketch() []job.Unit {
	units := make([]job.Unit, len(s.times))
	for i := range units {
		class := s.class[s.first[i]]
		u := &units[i]
		u.System, u.For = s.systems[class], slices.Collect(s.needers[class].members())
		for after := range s.after.of(int32(i)).members() {
			u.After = append(u.After, after)
		}
		u.Seconds, u.Tail = min(s.times[i], mostSeconds), s.tail[s.first[i]]
	}
	return units
}

// describe returns the units for a Plan.
func (s *systemUnits) describe() []job.Unit {
	s.absorb()
	units := s.sketch()
	heaviest := slices.Clone(s.first)
	for n, unit := range s.of {
		if unit < 0 {
			continue
		}
		u := &units[unit]
		u.Drvs = append(u.Drvs, s.paths[n])
		if s.wanted(int32(n)) {
			u.Wanted = append(u.Wanted, job.Wanted{DrvPath: s.paths[n], Outputs: s.outputs[n]})
		}
		if s.seconds[n] > s.seconds[heaviest[unit]] {
			heaviest[unit] = int32(n)
		}
	}
	for n, direct := range s.neededBeyond(s.entries, func(n int) bool { return s.of[n] >= 0 }) {
		if unit := s.of[n]; unit >= 0 {
			for e := range direct.members() {
				if !slices.Contains(units[unit].Direct, e) {
					units[unit].Direct = append(units[unit].Direct, e)
				}
			}
		}
	}
	tails := s.tails()
	for i := range units {
		u := &units[i]
		u.ID = job.NewUnitID(u.Wanted)
		u.Name = strings.TrimSuffix(job.DrvName(s.paths[heaviest[i]]), ".drv")
		if more := len(u.Drvs) - 1; more > 0 {
			u.Name += fmt.Sprintf(" and %d more", more)
		}
		slices.Sort(u.Direct)
		u.Tail = min(tails.unit(i), mostSeconds)
	}
	return units
}

// wanted reports whether something outside of its unit needs a derivation.
func (s *systemUnits) wanted(n int32) bool {
	return s.isTarget[n] || slices.ContainsFunc(s.dependants[n], func(d int32) bool { return s.of[d] != s.of[n] })
}

// tails are the times from the beginning of units, and of derivations of nobody, to the end of a
// target, with each unit as a whole. They are negative until they are known.
type tails struct {
	*systemUnits
	members         [][]int32 // of each unit
	ofUnits, ofRest []float64
}

func (s *systemUnits) tails() *tails {
	t := &tails{systemUnits: s, members: make([][]int32, len(s.times)), ofUnits: make([]float64, len(s.times)), ofRest: make([]float64, len(s.paths))}
	for i := range t.ofUnits {
		t.ofUnits[i] = -1
	}
	for n, unit := range s.of {
		t.ofRest[n] = -1
		if unit >= 0 {
			t.members[unit] = append(t.members[unit], int32(n))
		}
	}
	return t
}

// unit returns that of a unit.
func (t *tails) unit(unit int) float64 { return t.from(t.first[unit]) }

// from returns that of a derivation, or of its unit.
func (t *tails) from(n int32) float64 {
	tail, seconds, drvs := &t.ofRest[n], t.seconds[n], []int32{n}
	unit := t.of[n]
	if unit >= 0 {
		tail, seconds, drvs = &t.ofUnits[unit], t.times[unit], t.members[unit]
	}
	if *tail < 0 {
		most := 0.0
		for _, drv := range drvs {
			for _, dependant := range t.dependants[drv] {
				if unit < 0 || t.of[dependant] != unit {
					most = max(most, t.from(dependant))
				}
			}
		}
		*tail = seconds + most
	}
	return *tail
}
