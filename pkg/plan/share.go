package plan

import (
	"cmp"
	"slices"
)

// The weight of an entry is the number of derivations that it has to build; one with a longer
// known duration counts as several, see point.
const (
	// defaultJobs is the default of Options.JobsPerSystem.
	defaultJobs = 16
	// minSplitPoints is the number of points from which splitting pays.
	minSplitPoints = 8
	// searchPrecision is the precision of the longest entry's weight: one part of so many.
	searchPrecision = 64
	// runnerStartPoints is the cost of one more runner in points: some 20 s.
	runnerStartPoints = 2
)

// A split is a way to spread targets over entries.
type split struct {
	groups  [][]int // of derivations
	longest int     // weight of the heaviest group
	total   int     // weight of all groups, in which shared derivations count several times
}

// shared are targets that may share entries, and ways to split them.
type shared struct {
	byDrv  [][]int // the numbers of the targets of each derivation
	splits []split // into 1, 2, … entries, see nextCount
	chosen int     // of splits
}

// share decides how many entries targets share, see Entries. bound is the weight of the longest
// host, 0 if there is none; most is the largest number of entries.
func share(of *members, missing *Missing, bound, most int) *shared {
	s := &shared{byDrv: of.byDrv}
	closures := missing.closures(of.drvs)
	s.splits = append(s.splits, divide(closures, 1))
	most = min(most, len(of.drvs))
	for count := 2; count <= most; count = nextCount(count, most) {
		best := s.splits[s.chosen]
		started := runnerStartPoints * (count - len(best.groups))
		if best.longest <= max(bound, minSplitPoints) || bound == 0 && best.longest-s.splits[0].total/most < started {
			break // even an ideal split would not pay
		}
		more := divide(closures, count)
		s.splits = append(s.splits, more)
		pays := best.longest-more.longest >= more.total-best.total+started
		if pays || more.longest <= bound {
			s.chosen = len(s.splits) - 1
		}
	}
	return s
}

// nextCount returns the number of entries to try after count: each small number, and only some of
// the larger ones.
func nextCount(count, most int) int {
	if count == most {
		return count + 1
	}
	return min(most, max(count+1, count*4/3))
}

// parts returns the numbers of the targets of each entry, in the order of the first.
func (s *shared) parts() [][]int {
	parts := numbersOf(s.splits[s.chosen].groups, s.byDrv)
	for _, part := range parts {
		slices.Sort(part)
	}
	slices.SortStableFunc(parts, slices.Compare)
	return parts
}

// numbersOf returns the numbers of the targets of each group of derivations, those of a
// derivation in their order.
func numbersOf(groups [][]int, byDrv [][]int) [][]int {
	parts := make([][]int, len(groups))
	for i, drvs := range groups {
		for _, drv := range slices.Sorted(slices.Values(drvs)) {
			parts[i] = append(parts[i], byDrv[drv]...)
		}
	}
	return parts
}

// pack returns the numbers of the targets of each entry for hosts: one host each, or, if that
// would be more than most, at most entries, with hosts that share missing derivations together.
// most is at least the number of groups.
func pack(groups []*members, missing *Missing, most int) [][]int {
	hosts := 0
	for _, g := range groups {
		hosts += len(g.drvs)
	}
	var parts [][]int
	if hosts <= most {
		for _, g := range groups {
			parts = append(parts, g.byDrv...)
		}
		slices.SortStableFunc(parts, slices.Compare)
		return parts
	}
	closures := make([][]set, len(groups))
	takes, counts := make([]int, len(groups)), make([]int, len(groups))
	for i, g := range groups {
		closures[i], counts[i] = missing.closures(g.drvs), 1
		for _, closure := range closures[i] {
			takes[i] += closure.count()
		}
	}
	for left := most - len(groups); left > 0; left-- { // to the group with the heaviest entries
		next := -1
		for i, g := range groups {
			if counts[i] < len(g.drvs) && (next < 0 || takes[i]*counts[next] > takes[next]*counts[i]) {
				next = i
			}
		}
		counts[next]++
	}
	for i, g := range groups {
		parts = append(parts, numbersOf(divide(closures[i], counts[i]).groups, g.byDrv)...)
	}
	slices.SortStableFunc(parts, slices.Compare)
	return parts
}

// limitEntries removes entries while there are more than most: each time from the group whose
// longest entry is then the shortest.
func limitEntries(all []*shared, most int) {
	for {
		count := 0
		var least *shared
		for _, s := range all {
			count += len(s.splits[s.chosen].groups)
			if s.chosen > 0 && (least == nil || s.splits[s.chosen-1].longest < least.splits[least.chosen-1].longest) {
				least = s
			}
		}
		if count <= most || least == nil {
			return
		}
		least.chosen--
	}
}

// divide splits derivations into at most count groups, with the heaviest group as light as
// possible, and derivations that share missing ones together.
func divide(closures []set, count int) split {
	order := make([]int, len(closures))
	takes := make([]int, len(closures))
	for i, closure := range closures {
		order[i], takes[i] = i, closure.count()
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(takes[b], takes[a]) })
	all := slices.Clone(closures[0])
	for _, closure := range closures {
		all.addAll(closure)
	}
	// The bounds of a group's weight.
	high := all.count()
	low := max(takes[order[0]], (high+count-1)/count)
	best := distribute(closures, order, count, high)
	for low < high-high/searchPrecision {
		room := (low + high) / 2
		if s := distribute(closures, order, count, room); s.longest <= room {
			best, high = s, s.longest
		} else {
			low = room + 1
		}
	}
	return best
}

// distribute puts one derivation after another into the group to which it adds least, of those
// with room for it, else into the lightest.
func distribute(closures []set, order []int, count, room int) split {
	groups := make([]struct {
		drvs  []int
		needs set
		takes int
	}, count)
	for i := range groups {
		groups[i].needs = make(set, len(closures[0]))
	}
	for _, drv := range order {
		var best, bestAdds int
		for i := range groups {
			adds := groups[i].needs.lacks(closures[drv])
			takes, bestTakes := groups[i].takes+adds, groups[best].takes+bestAdds
			fits, bestFits := takes <= room, bestTakes <= room
			if i == 0 || fits && !bestFits ||
				fits == bestFits && (fits && cmp.Or(cmp.Compare(adds, bestAdds), cmp.Compare(takes, bestTakes)) < 0 || !fits && takes < bestTakes) {
				best, bestAdds = i, adds
			}
		}
		g := &groups[best]
		g.drvs = append(g.drvs, drv)
		g.needs.addAll(closures[drv])
		g.takes += bestAdds
	}
	var s split
	for _, g := range groups {
		if len(g.drvs) > 0 {
			s.groups = append(s.groups, g.drvs)
		}
		s.longest = max(s.longest, g.takes)
		s.total += g.takes
	}
	return s
}

// longest returns the points of the heaviest of different derivations.
func longest(missing *Missing, drvs []string) int {
	most := 0
	for _, closure := range missing.closures(drvs) {
		most = max(most, closure.count())
	}
	return most
}
