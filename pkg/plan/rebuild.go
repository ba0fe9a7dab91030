package plan

import (
	"cmp"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
)

// A Rebuilt is a missing derivation, with the number of targets that need it.
type Rebuilt struct {
	DrvPath string
	Targets int
}

// A Rebuild says which missing derivations some targets need.
type Rebuild struct {
	Count int            // of derivations
	Needs map[string]int // of each target, itself included, by its derivation
	// Dependencies are the missing derivations without trifles and the targets themselves: those that most targets need
	// come first, and of those the ones that take longest.
	Dependencies []Rebuilt
}

// Rebuild returns what is missing for targets.
func (m *Missing) Rebuild(targets []job.Target) *Rebuild {
	r := &Rebuild{Needs: map[string]int{}}
	if m.Count() == 0 {
		return r
	}
	own := map[int32]bool{}
	by := make([]int, len(m.paths))      // targets that need each
	visited := make([]int, len(m.paths)) // the last target that did
	stack := make([]int32, 0, len(m.paths))
	for i := range targets {
		n, missing := m.numbers[targets[i].DrvPath]
		if !missing || own[n] {
			continue
		}
		own[n] = true
		visit := len(own)
		visited[n] = visit
		for stack = append(stack, n); len(stack) > 0; {
			n := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			r.Needs[targets[i].DrvPath]++
			if by[n]++; by[n] == 1 {
				r.Count++
			}
			for _, input := range m.inputs[n] {
				if visited[input] != visit {
					visited[input] = visit
					stack = append(stack, input)
				}
			}
		}
	}
	order := make([]int, 0, len(m.paths))
	for n := range m.paths {
		if !m.light[n] && !own[int32(n)] && by[n] > 0 {
			order = append(order, n)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(by[b], by[a]), cmp.Compare(m.seconds[b], m.seconds[a]), cmp.Compare(job.DrvName(m.paths[a]), job.DrvName(m.paths[b])), cmp.Compare(a, b))
	})
	for _, n := range order {
		r.Dependencies = append(r.Dependencies, Rebuilt{m.paths[n], by[n]})
	}
	return r
}
