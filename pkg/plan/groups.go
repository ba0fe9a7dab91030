package plan

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// A group has the targets that may share entries: those of a system with the same labels of a
// runner that is named for the target or for a feature that it needs.
type group struct {
	system, runner string
	// name is the Group of the targets, and alone the derivation of a target that shares its entry
	// with no other. Either is one entry.
	name, alone string
}

func (g group) compare(other group) int {
	return cmp.Or(cmp.Compare(g.system, other.system), cmp.Compare(g.runner, other.runner), cmp.Compare(g.name, other.name), cmp.Compare(g.alone, other.alone))
}

// members are the targets of a group, by derivation; those of a host with several derivations
// are by the first one.
type members struct {
	group
	drvs  []string
	byDrv [][]int        // the numbers of the targets of each
	index map[string]int // by derivation or hostKey
}

func (m *members) add(key, drv string, n int) {
	i, ok := m.index[key]
	if !ok {
		i = len(m.drvs)
		m.index[key] = i
		m.drvs, m.byDrv = append(m.drvs, drv), append(m.byDrv, nil)
	}
	m.byDrv[i] = append(m.byDrv[i], n)
}

// numbers returns the numbers of all targets.
func (m *members) numbers() []int {
	return slices.Sorted(slices.Values(slices.Concat(m.byDrv...)))
}

// A wish is what the targets of a derivation, or of a host, ask for.
type wish struct {
	group string // the first one, if they name several
	timed bool
}

// wishes returns what the targets to build ask for, by derivation and by hostKey.
func wishes(targets []job.Target) map[string]wish {
	all := map[string]wish{}
	for i := range targets {
		t := &targets[i]
		if t.State != job.StateBuild || t.Group == "" && t.Timeout == 0 {
			continue
		}
		for _, key := range []string{t.DrvPath, hostKey(t)} {
			w := all[key]
			all[key] = wish{cmp.Or(w.group, t.Group), w.timed || t.Timeout > 0}
		}
	}
	return all
}

// groupTargets returns the targets to build by group, in the order of the groups: hosts, with all
// targets of the same derivations, all others, and those that are one entry as a whole.
func groupTargets(targets []job.Target, runners Runners) (hosts, others, whole []*members) {
	type hostOf struct {
		in  *members
		key string
	}
	wanted := wishes(targets)
	hostDrvs := map[string]hostOf{}
	host, other, one := map[group]*members{}, map[group]*members{}, map[group]*members{}
	in := func(groups map[group]*members, t *job.Target, key string) *members {
		g := group{system: t.System, runner: strings.Join(runners.named(t), ",")}
		switch w := wanted[key]; {
		case w.group != "":
			g.name, groups = w.group, one
		case w.timed && !t.Kind.IsHost():
			g.alone, groups = key, one
		}
		if groups[g] == nil {
			groups[g] = &members{group: g, index: map[string]int{}}
		}
		return groups[g]
	}
	for _, areHosts := range []bool{true, false} {
		for n := range targets {
			t := &targets[n]
			if t.State != job.StateBuild || t.Kind.IsHost() != areHosts {
				continue
			}
			h, isHost := hostDrvs[t.DrvPath]
			switch {
			case isHost:
				h.in.add(h.key, t.DrvPath, n)
			case areHosts:
				h = hostOf{in(host, t, hostKey(t)), hostKey(t)}
				hostDrvs[t.DrvPath] = h
				h.in.add(h.key, t.DrvPath, n)
			default:
				in(other, t, t.DrvPath).add(t.DrvPath, t.DrvPath, n)
			}
		}
	}
	sorted := func(groups map[group]*members) []*members {
		var all []*members
		for _, g := range slices.SortedStableFunc(maps.Keys(groups), group.compare) {
			all = append(all, groups[g])
		}
		return all
	}
	return sorted(host), sorted(other), sorted(one)
}

// timeout returns the time that the targets of an entry may take together, in seconds: that of all
// their derivations, or 0 if one of these has none.
func timeout(targets []job.Target, numbers []int) int {
	longest := map[string]int{}
	for _, n := range numbers {
		t := &targets[n]
		longest[t.DrvPath] = max(longest[t.DrvPath], t.Timeout)
	}
	sum := 0
	for _, seconds := range longest {
		if seconds == 0 {
			return 0
		}
		sum = min(sum+seconds, job.MaxTimeout)
	}
	return sum
}

// sortByPriority sorts entries by the highest priority of their targets, the highest first.
func sortByPriority(entries []job.Entry, targets []job.Target) {
	priority := func(e *job.Entry) int {
		highest := -job.MaxPriority
		for _, t := range e.Targets {
			highest = max(highest, targets[t.N].Priority)
		}
		return highest
	}
	slices.SortStableFunc(entries, func(a, b job.Entry) int { return cmp.Compare(priority(&b), priority(&a)) })
}
