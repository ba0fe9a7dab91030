package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/org/nix-matrix/pkg/job"
)

const (
	// HelpersAuto are as many helpers as shorten the run by more than their start costs.
	HelpersAuto = -1
	// HelpersByRepository is HelpersAuto in a public repository, where runners cost nothing, and none in
	// a private one.
	HelpersByRepository = -2
	// maxAutoHelpers is the most of a system then.
	maxAutoHelpers = 16
	// maxCreations is the most keys of the cache that may be created in a minute for units, of 200 that
	// GitHub allows in a repository. If it would be more, those of the busiest minutes that save least
	// are given up, unless there are no more than fewUnits.
	maxCreations = 145
	fewUnits     = 32
)

// ParseHelpers returns the number of helpers that a text is for: a number, or auto. An empty text is
// [HelpersByRepository].
func ParseHelpers(text string) (int, error) {
	switch text {
	case "":
		return HelpersByRepository, nil
	case "auto":
		return HelpersAuto, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n >= MaxEntries {
		return 0, fmt.Errorf("must be auto or a number from 0 to %d", MaxEntries-1)
	}
	return n, nil
}

// Share cuts what the entries of a plan have to build into units, and returns the rows of helpers, which
// come after the entries.
func Share(entries []job.Entry, o Options) (units []job.Unit, helpers []job.Entry) {
	if o.Missing.Count() == 0 || len(entries) == 0 {
		return nil, nil
	}
	g := newGraph(o.Missing, entries)
	names := map[string]bool{}
	for i := range entries {
		names[entries[i].Name], names[entries[i].ID] = true, true
	}
	room := max(0, min(cmp.Or(o.MaxEntries, MaxEntries), cmp.Or(o.MaxParallel, MaxEntries))-len(entries))
	for _, system := range g.entrySystems {
		count := min(max(0, o.Helpers), room)
		if o.Helpers == HelpersAuto {
			count = g.autoHelpers(system, min(maxAutoHelpers, room))
		}
		s := g.share(system, count)
		for n := 1; s.helpers > 0; n++ {
			if helper := newHelper(n, s.like); !names[helper.Name] && !names[helper.ID] {
				helpers = append(helpers, helper)
				s.helpers--
				room--
			}
		}
		units = appendUnits(units, s.units)
	}
	return units, helpers
}

// A sharing are the units of a system with a number of helpers.
type sharing struct {
	system   string
	units    []job.Unit
	helpers  int
	like     *job.Entry // on whose runner they are
	makespan float64
	cut      int  // units that were cut
	thinned  bool // some of them were given up
}

// autoHelpers returns as many helpers as pay: each step up has to shorten the run by more than the start of
// the added runners takes together. It only estimates, as if the cache had no limits.
func (g *graph) autoHelpers(system string, most int) int {
	best, failed := g.estimate(system, 0), 0
	if best.cut > scattered*g.mostUnits() {
		return 0
	}
	start := ExpectedCosts.Start
	if !g.hasTimes {
		start *= unsure
	}
	for count := 1; count <= most && failed < 2; count *= 2 {
		cost := func(helpers int) float64 { return start * float64(helpers-best.helpers) }
		if best.makespan <= cost(best.helpers+1) {
			break // not even an ideal one would pay
		}
		if s := g.estimate(system, count); best.makespan-s.makespan > cost(s.helpers) {
			best, failed = s, 0
		} else {
			failed++
		}
	}
	return best.helpers
}

// unsure is how many times as much a helper has to shorten a run by where no duration is known: most builds are
// shorter than is guessed.
const unsure = 3

// scattered is how many times more units there would have to be than can be, so that most of the work is in
// none of them, and each entry builds its own: then helpers have little to do.
const scattered = 4

func (g *graph) estimate(system string, helpers int) *sharing {
	const most = 1024 // units are enough to tell
	clusters := g.cut(system, manner{g.jobs(system) + helpers, helpers > 0, 1})
	s, _ := g.try(system, helpers, best(clusters, min(most, g.mostUnits())))
	s.cut = len(clusters)
	return s
}

const (
	// gain is what cutting private parts without helpers has to shorten a run by, in parts of it, and at least
	// by the start of a runner: units that entries could as well build themselves cost entries of the cache.
	gain = 0.05
	// guessed is how many times as much it has to be where no duration is known.
	guessed = 10
	// coarser is what coarser units have to shorten it by, unless the limit leaves no room for the finer ones: finer
	// ones do better where builds take longer than was expected.
	coarser = 0.05
	// many derivations have more units than the cache allows anyway, and each try takes long.
	many = 20_000
	// maxSpent is the most work of all tries for a system: derivations times units.
	maxSpent = 200_000_000
)

// share returns the sharing with a number of helpers, but no more than can work beside an entry: of some
// ways to cut, the one with which the run takes the least time. Coarser units create fewer
// entries of the cache, whose limit else is what makes others build the same again.
func (g *graph) share(system string, helpers int) *sharing {
	jobs := g.jobs(system) + helpers
	least, finest := ExpectedCosts.Start, 0.25
	if !g.hasTimes {
		least *= guessed
	}
	if !g.hasTimes || len(g.paths) > many {
		finest = 1
	}
	var found *sharing
	spent := 0
	for _, private := range []bool{false, true} {
		if private && (jobs == 1 || !g.hasPrivate(system)) {
			break
		}
		before := found
		for coarse := finest; coarse <= 8 && spent < maxSpent; coarse *= 2 {
			s := g.simulate(system, helpers, manner{jobs, private, coarse})
			spent += len(g.paths) * max(1, s.cut)
			better := found == nil || s.makespan < found.makespan
			switch {
			case private && helpers == 0 && found == before:
				better = before.makespan-s.makespan > max(gain*before.makespan, least)
			case coarse > finest && !found.thinned:
				better = s.makespan < (1-coarser)*found.makespan
			}
			if better {
				found = s
			}
			// Where no duration is known, only the limit is a reason to build several together.
			if !s.thinned && (!better && coarse > 1 || !g.hasTimes) {
				break
			}
		}
	}
	return found
}

// hasPrivate reports whether an entry of a system alone needs something that can be a unit.
func (g *graph) hasPrivate(system string) bool {
	private := 0.0
	for n, class := range g.class {
		if g.seconds[n] > 0 && g.whole[n] && !g.shared[class] && g.systems[class] == system && !g.isLast(int32(n)) {
			private += g.seconds[n]
		}
	}
	return private >= claimSeconds
}

// simulate returns the sharing with as many units as the cache allows.
func (g *graph) simulate(system string, helpers int, how manner) *sharing {
	clusters := g.cut(system, how)
	cut := len(clusters)
	clusters = best(clusters, g.mostUnits())
	limit := maxCreations / len(g.entrySystems)
	for tries := 1; ; tries = min(tries+1, 8) {
		s, run := g.try(system, helpers, clusters)
		few := len(clusters) <= fewUnits
		if few || len(run.Busiest()) <= limit {
			made := newSystemUnits(g, clusters)
			s.units = made.describe()
			if run = g.run(s, made); few || len(run.Busiest()) <= limit {
				s.cut, s.thinned = cut, len(clusters) < cut
				return s
			}
		}
		// With other units the times are others, so that a little more has to go each time.
		clusters = thin(clusters, run, limit-limit*tries/16)
	}
}

// thin returns the clusters without those that save least in each minute of a run with more than limit
// creations.
func thin(clusters []*cluster, run *Run, limit int) []*cluster {
	left := slices.Clone(clusters)
	for {
		busiest := run.Busiest()
		excess := len(busiest) - limit
		if excess <= 0 {
			return slices.DeleteFunc(left, func(c *cluster) bool { return c == nil })
		}
		var units []int
		for _, created := range busiest {
			units = append(units, created.Unit)
		}
		slices.SortFunc(units, func(a, b int) int {
			return cmp.Or(cmp.Compare(clusters[a].saves, clusters[b].saves), cmp.Compare(a, b))
		})
		for _, unit := range units[:excess] {
			left[unit] = nil
		}
		run.Created = slices.DeleteFunc(run.Created, func(c Creation) bool { return left[c.Unit] == nil })
	}
}

// try returns the sharing with a sketch of a unit for each cluster, and what becomes of it.
func (g *graph) try(system string, helpers int, clusters []*cluster) (*sharing, *Run) {
	made := newSystemUnits(g, clusters)
	s := &sharing{system: system, units: made.sketch()}
	for i := range s.units {
		s.units[i].Direct = s.units[i].For // at most
	}
	s.helpers = min(helpers, max(0, len(s.units)-1))
	s.like = likeMost(g.entries, s.units, system)
	return s, g.run(s, made)
}

// run simulates a sharing, and sets its makespan.
func (g *graph) run(s *sharing, made *systemUnits) *Run {
	in := make([]bool, len(g.paths))
	for n, unit := range made.of {
		in[n] = unit >= 0
	}
	all, rests := slices.Clone(g.entries), g.restsBeside(in)
	for i := range all {
		if all[i].System != s.system { // it has none of these units
			rests[i] = Rest{}
		}
	}
	for n := range s.helpers {
		all = append(all, newHelper(n, s.like))
	}
	run := Simulate(all, s.units, rests, ExpectedCosts, 0, Beat(len(all)))
	s.makespan = run.Makespan
	return run
}

// likeMost returns the first entry of a system on a runner for which there are the most units.
func likeMost(entries []job.Entry, units []job.Unit, system string) *job.Entry {
	counts, runners := map[string]int{}, make([]string, len(entries))
	for i := range entries {
		runners[i] = runnerOf(&entries[i])
	}
	for i := range units {
		seen := map[string]bool{}
		for _, e := range units[i].For {
			if runner := runners[e]; !seen[runner] {
				seen[runner] = true
				counts[runner]++
			}
		}
	}
	best := -1
	for i := range entries {
		if e := &entries[i]; e.System == system && (best < 0 || counts[runners[i]] > counts[runners[best]]) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	return &entries[best]
}

// newHelper returns a helper on the runner of an entry.
func newHelper(n int, like *job.Entry) job.Entry {
	name := fmt.Sprintf("helper %d %s", n, like.System)
	return job.Entry{
		Name: name, ID: job.NewEntryID(name), Platform: like.Platform, System: like.System, Outputs: []string{},
		Runner: like.Runner, QEMU: like.QEMU, Helper: true, Targets: []job.Ref{},
	}
}

// Beat returns the seconds after which each of so many jobs renews its claim, so that all together create
// no more than 40 keys a minute in the cache, which allows 200: the fewer, the more units there can be.
// After three without a renewal others take over, so that a job that dies costs more time in a larger run.
func Beat(jobs int) int {
	const least, most = 15, 240
	return min(max(jobs*60/40, least), most)
}
