package plan

import (
	"cmp"
	"maps"
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
		all[i] = newSet(m.units())
	}
	start := 0
	for n, by := range m.neededBy(drvs) {
		for i := range by.members() {
			for unit := start; unit < m.ends[n]; unit++ {
				all[i].add(unit)
			}
		}
		start = m.ends[n]
	}
	return all
}

// neededBy returns, for each missing derivation by its number, those of some different
// derivations whose closure has it, nil if there are none.
func (m *Missing) neededBy(drvs []string) []set {
	// One pass in topological order is enough for all of them.
	needed := make([]set, len(m.inputs))
	visited := make([]bool, len(m.inputs))
	order := make([]int32, 0, len(m.inputs))
	var visit func(n int32)
	visit = func(n int32) {
		visited[n] = true
		for _, input := range m.inputs[n] {
			if !visited[input] {
				visit(input)
			}
		}
		order = append(order, n)
	}
	for i, drv := range drvs {
		n, ok := m.numbers[drv]
		if !ok {
			continue
		}
		if !visited[n] {
			visit(n)
		}
		if needed[n] == nil {
			needed[n] = newSet(len(drvs))
		}
		needed[n].add(i)
	}
	for i := len(order) - 1; i >= 0; i-- {
		n := order[i]
		for _, input := range m.inputs[n] {
			if needed[input] == nil {
				needed[input] = newSet(len(drvs))
			}
			needed[input].addAll(needed[n])
		}
	}
	return needed
}

// Savers returns, for each derivation path that several entries have to build, the entry that
// saves the build for later runs. Each entry has about as many.
func (m *Missing) Savers(entries []job.Entry) map[string]string {
	if m == nil || len(entries) < 2 {
		return nil
	}
	var drvs []string
	var of []int // entries
	for i, e := range entries {
		for _, t := range e.Targets {
			drvs, of = append(drvs, t.DrvPath), append(of, i)
		}
	}
	// Targets of several entries may be the same derivation.
	at := map[string]int{}
	var different []string
	by := map[int][]int{}
	for i, drv := range drvs {
		n, ok := at[drv]
		if !ok {
			n = len(different)
			at[drv] = n
			different = append(different, drv)
		}
		by[n] = append(by[n], of[i])
	}
	needed := m.neededBy(different)
	load := make([]int, len(entries))
	savers := map[string]string{}
	for _, drv := range slices.Sorted(maps.Keys(m.numbers)) {
		n := m.numbers[drv]
		start := 0
		if n > 0 {
			start = m.ends[n-1]
		}
		sharing := newSet(len(entries))
		for i := range needed[n].members() {
			for _, e := range by[i] {
				sharing.add(e)
			}
		}
		if sharing.count() < 2 {
			continue
		}
		least := -1
		for e := range sharing.members() {
			if least < 0 || load[e] < load[least] {
				least = e
			}
		}
		load[least] += m.ends[n] - start
		savers[drv] = entries[least].ID
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
		all := newSet(m.units())
		for _, t := range e.Targets {
			all.addAll(closures[at[t.DrvPath]])
		}
		takes[&e.Targets[0]] = all.count()
	}
	slices.SortStableFunc(entries, func(a, b job.Entry) int { return cmp.Compare(takes[&b.Targets[0]], takes[&a.Targets[0]]) })
	return true
}
