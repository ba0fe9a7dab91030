package plan

import (
	"cmp"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
)

// closures returns the missing derivations in the closure of each of some different derivations;
// for nil, each derivation alone.
func (m *Missing) closures(drvs []string) []set {
	all := make([]set, len(drvs))
	if m == nil {
		for i := range drvs {
			all[i] = newSet(len(drvs))
			all[i].add(i)
		}
		return all
	}
	for i := range all {
		all[i] = newSet(m.points())
	}
	start := 0
	for n, by := range m.neededBy(drvs) {
		for i := range by.members() {
			for point := start; point < m.ends[n]; point++ {
				all[i].add(point)
			}
		}
		start = m.ends[n]
	}
	return all
}

// neededBy returns, for each missing derivation by its number, those of some different
// derivations whose closure has it, nil if there are none.
func (m *Missing) neededBy(drvs []string) []set {
	return m.reach(len(drvs), func(int) bool { return false }, func(seed func(drv string, number int)) {
		for i, drv := range drvs {
			seed(drv, i)
		}
	})
}

// neededByEntries returns, for each missing derivation by its number, the numbers of the entries
// that need it.
func (m *Missing) neededByEntries(entries []job.Entry) []set {
	return m.neededBeyond(entries, func(int) bool { return false })
}

// neededBeyond returns, for each missing derivation by its number, the numbers of the entries that
// need it for a target or for a derivation that is not over.
func (m *Missing) neededBeyond(entries []job.Entry, over func(n int) bool) []set {
	return m.reach(len(entries), over, func(seed func(drv string, number int)) {
		for i := range entries {
			for _, t := range entries[i].Targets {
				seed(t.DrvPath, i)
			}
		}
	})
}

// reach returns, for each missing derivation by its number, the numbers below count that seeds sets
// for it and for all that need it and are not over, nil if there are none.
func (m *Missing) reach(count int, over func(n int) bool, seeds func(seed func(drv string, number int))) []set {
	needed := make([]set, len(m.inputs))
	seeds(func(drv string, number int) {
		if n, ok := m.numbers[drv]; ok {
			if needed[n] == nil {
				needed[n] = newSet(count)
			}
			needed[n].add(number)
		}
	})
	// One pass from the top to the bottom is enough for all of them.
	for _, n := range slices.Backward(m.order) {
		if needed[n] == nil || over(int(n)) {
			continue
		}
		for _, input := range m.inputs[n] {
			if needed[input] == nil {
				needed[input] = newSet(count)
			}
			needed[input].addAll(needed[n])
		}
	}
	return needed
}

// Savers returns, for each derivation path that several entries have to build and no unit has, the
// entry that saves the build for later runs. Each entry has about as many.
func (m *Missing) Savers(entries []job.Entry, units []job.Unit) map[string]string {
	if m == nil || len(entries) < 2 {
		return nil
	}
	inUnit := make([]bool, len(m.paths))
	for i := range units {
		for _, drv := range units[i].Drvs {
			inUnit[m.numbers[drv]] = true
		}
	}
	load := make([]int, len(entries))
	savers := map[string]string{}
	start := 0
	for n, sharing := range m.neededByEntries(entries) {
		takes := m.ends[n] - start
		start = m.ends[n]
		if inUnit[n] || sharing.count() < 2 {
			continue
		}
		least := -1
		for e := range sharing.members() {
			if least < 0 || load[e] < load[least] {
				least = e
			}
		}
		load[least] += takes
		savers[m.paths[n]] = entries[least].ID
	}
	return savers
}

// longestFirst sorts entries by their expected time, the longest first, if any duration is
// known. It reports whether it has.
func (m *Missing) longestFirst(entries []job.Entry) bool {
	if m == nil || !m.hasTimes {
		return false
	}
	at := map[string]int{}
	var drvs []string
	for _, e := range entries {
		for _, t := range e.Targets {
			if _, ok := at[t.DrvPath]; !ok {
				at[t.DrvPath] = len(drvs)
				drvs = append(drvs, t.DrvPath)
			}
		}
	}
	closures := m.closures(drvs)
	takes := map[*job.Ref]int{} // by the first of an entry
	for _, e := range entries {
		all := newSet(m.points())
		for _, t := range e.Targets {
			all.addAll(closures[at[t.DrvPath]])
		}
		takes[&e.Targets[0]] = all.count()
	}
	slices.SortStableFunc(entries, func(a, b job.Entry) int { return cmp.Compare(takes[&b.Targets[0]], takes[&a.Targets[0]]) })
	return true
}
