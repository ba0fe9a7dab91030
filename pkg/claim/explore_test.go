package claim

import (
	"runtime/debug"
	"slices"
	"testing"
)

// explore visits all states. It fails if a rule is broken, if a state cannot reach the end, if
// somebody spins, or, with urgent time, if time passes for ever while nobody builds.
func (c *model) explore(t *testing.T) {
	type node struct {
		next  []int32
		tick  int32
		holds bool
	}
	ids := map[string]int32{}
	var nodes []node
	var queue []*world
	id := func(w *world) int32 {
		k := w.key()
		n, ok := ids[k]
		if !ok {
			n = int32(len(nodes))
			ids[k] = n
			nodes = append(nodes, node{tick: -1, holds: w.holds()})
			queue = append(queue, w)
		}
		return n
	}
	id(c.start())
	ends := 0
	var back [][]int32
	reach := []int32{}
	traces := map[int32]*traced{}
	for at := int32(0); len(queue) > 0; at++ {
		w := queue[0]
		queue[0] = nil
		queue = queue[1:]
		traces[at] = w.trace
		if err := w.check(); err != nil {
			t.Fatalf("%v\n%s", err, w.trace)
		}
		if w.over() {
			ends++
			reach = append(reach, at)
			continue
		}
		after, ticked, err := w.successors()
		if err != nil {
			t.Fatalf("%v after\n%s", err, w.trace)
		}
		for _, s := range after {
			nodes[at].next = append(nodes[at].next, id(s))
		}
		if ticked != nil {
			nodes[at].tick = id(ticked)
		}
	}
	t.Logf("%d states, %d of them ends", len(nodes), ends)

	back = make([][]int32, len(nodes))
	for n := range nodes {
		for _, m := range append(nodes[n].next, nodes[n].tick) {
			if m >= 0 {
				back[m] = append(back[m], int32(n))
			}
		}
	}
	reached := map[int32]bool{}
	for len(reach) > 0 {
		n := reach[len(reach)-1]
		reach = reach[:len(reach)-1]
		if reached[n] {
			continue
		}
		reached[n] = true
		reach = append(reach, back[n]...)
	}
	if len(reached) != len(nodes) {
		for n := range nodes {
			if !reached[int32(n)] {
				t.Fatalf("%d states cannot reach the end, such as that after\n%s", len(nodes)-len(reached), traces[int32(n)])
			}
		}
	}

	cycle := func(edges func(n int32) []int32) int32 {
		color := make([]byte, len(nodes))
		for start := range nodes {
			stack := []int32{int32(start)}
			for len(stack) > 0 {
				n := stack[len(stack)-1]
				if color[n] != 0 {
					if color[n] == 1 {
						color[n] = 2
					}
					stack = stack[:len(stack)-1]
					continue
				}
				color[n] = 1
				for _, m := range edges(n) {
					switch color[m] {
					case 0:
						stack = append(stack, m)
					case 1:
						return m
					}
				}
			}
		}
		return -1
	}
	if n := cycle(func(n int32) []int32 { return nodes[n].next }); n >= 0 {
		t.Fatalf("somebody spins after\n%s", traces[n])
	}
	if !c.urgent {
		return
	}
	idle := func(n int32) []int32 {
		if nodes[n].holds {
			return nil
		}
		all := slices.Clone(nodes[n].next)
		if nodes[n].tick >= 0 {
			all = append(all, nodes[n].tick)
		}
		return slices.DeleteFunc(all, func(m int32) bool { return nodes[m].holds })
	}
	if n := cycle(idle); n >= 0 {
		t.Fatalf("all wait for ever after\n%s", traces[n])
	}
}

func TestAllInterleavings(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	every := [][]bool{all(4), all(4), all(4)}
	chain := [][]int{{}, {0}}
	both := [][]bool{all(2), all(2), all(2)}
	for name, c := range map[string]model{
		"a crash":                 {after: diamond, needs: every, crash: true, urgent: true},
		"and lookups that lag":    {after: [][]int{{}, {0}, {0}}, needs: [][]bool{all(3), all(3), all(3)}, crash: true, urgent: true, lag: true},
		"and a failure":           {after: diamond, needs: every, crash: true, urgent: true, fails: "1"},
		"and only ends wanted":    {after: [][]int{{}, {0}, {1}}, needs: [][]bool{{false, false, true}, {false, true, true}, {false, false, true}}, crash: true, urgent: true},
		"… and a take that fails": {after: chain, needs: [][]bool{{false, true}, {false, true}, {false, true}}, crash: true, urgent: true, oddity: "take fails"},
		"and a helper":            {after: diamond, needs: [][]bool{all(4), {true, true, false, false}, nil}, crash: true, urgent: true},
		"and workers that dawdle": {after: chain, needs: both, crash: true},
		"and a take that fails":   {after: chain, needs: both, crash: true, urgent: true, oddity: "take fails"},
		"and a lost answer":       {after: chain[:1], needs: [][]bool{all(1), {false}, all(1)}, crash: true, oddity: "answer lost"},
		"and a unit given back":   {after: chain, needs: both, crash: true, urgent: true, oddity: "given back"},
	} {
		t.Run(name, c.explore)
	}
}
