package plan

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Whatever was pushed comes out in order.
func TestHeap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var h heap[span]
		var want []span
		for n := range random.IntN(50) {
			s := span{float64(random.IntN(10)), n}
			h.push(s)
			want = append(want, s)
			if random.IntN(3) == 0 {
				slices.SortFunc(want, func(a, b span) int {
					if a.before(b) {
						return -1
					}
					return 1
				})
				if got := h.pop(); got != want[0] {
					t.Fatalf("got %v, want %v", got, want[0])
				}
				want = want[1:]
			}
		}
	}
}
