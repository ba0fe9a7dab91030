package plan

import (
	"cmp"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
)

// ShareStore cuts what entries have to build into units as [Share] does, for entries that are built in one
// store, jobs of them at the same time.
//
// If Nix builds several derivations of a unit at the same time, the units are as wide as the graph allows: all
// derivations that the same entries need, in up to jobs parts that need nothing of each other. With oneSlot it
// builds one at a time, and the units are those that [Share] cuts for so many machines. Neither the limits
// of a cache nor the cost of a hand-over count, and there are no helpers, because they would add no processor.
func ShareStore(entries []job.Entry, missing *Missing, jobs int, oneSlot bool) []job.Unit {
	if missing.Count() == 0 || len(entries) < 2 || jobs < 2 {
		return nil
	}
	g := newGraph(missing, entries)
	var units []job.Unit
	for _, system := range g.entrySystems {
		atOnce := min(jobs, g.jobs(system))
		clusters := g.wide
		if oneSlot {
			clusters = func(system string, jobs int) []*cluster { return g.cut(system, manner{jobs, false, 1}) }
		}
		units = appendUnits(units, newSystemUnits(g, best(clusters(system, atOnce), g.mostUnits())).describe())
	}
	return units
}

// wide returns the clusters of what several entries of a system need: at most parts of each class, each
// cluster after those that it needs. If a derivation needs one of another class, more entries need that, so
// that there is no circle.
func (g *graph) wide(system string, parts int) []*cluster {
	cuts := func(n int32) bool {
		class := g.class[n]
		return g.whole[n] && g.systems[class] == system && g.needers[class].count() > 1
	}
	classes := map[int32][]*cluster{} // the connected parts
	of := g.components(cuts)
	made := map[int32]*cluster{}
	for _, n := range g.order {
		if !cuts(n) {
			continue
		}
		c := made[of[n]]
		if c == nil {
			c = &cluster{}
			made[of[n]] = c
			classes[g.class[n]] = append(classes[g.class[n]], c)
		}
		c.drvs, c.seconds = append(c.drvs, n), c.seconds+g.seconds[n]
	}
	var all []*cluster
	for class, connected := range classes {
		for _, c := range bundle(connected, parts) {
			c.saves = c.seconds * float64(g.needers[class].count())
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *cluster) int {
		needers := func(c *cluster) int { return g.needers[g.class[c.drvs[0]]].count() }
		return cmp.Or(cmp.Compare(needers(b), needers(a)), cmp.Compare(a.drvs[0], b.drvs[0]))
	})
	return all
}

// components returns for each derivation that is cut the first one of those of its class that it is
// connected with.
func (g *graph) components(cuts func(n int32) bool) []int32 {
	of := make([]int32, len(g.paths))
	for n := range of {
		of[n] = int32(n)
	}
	root := func(n int32) int32 {
		for of[n] != n {
			of[n] = of[of[n]]
			n = of[n]
		}
		return n
	}
	for _, n := range g.order {
		for _, input := range g.inputs[n] {
			if cuts(n) && cuts(input) && g.class[n] == g.class[input] {
				of[root(n)] = root(input)
			}
		}
	}
	for n := range of {
		of[n] = root(int32(n))
	}
	return of
}

// bundle returns at most parts clusters of about the same time, each of some of the given ones.
func bundle(clusters []*cluster, parts int) []*cluster {
	if len(clusters) <= parts {
		return clusters
	}
	slices.SortStableFunc(clusters, func(a, b *cluster) int { return cmp.Compare(b.seconds, a.seconds) })
	all := make([]*cluster, parts)
	for i := range all {
		all[i] = &cluster{}
	}
	for _, c := range clusters {
		lightest := slices.MinFunc(all, func(a, b *cluster) int {
			return cmp.Or(cmp.Compare(a.seconds, b.seconds), cmp.Compare(len(a.drvs), len(b.drvs)))
		})
		lightest.drvs, lightest.seconds = append(lightest.drvs, c.drvs...), lightest.seconds+c.seconds
	}
	return all
}
