package plan

// An ordered type has elements of which one comes before another.
type ordered[T any] interface{ before(other T) bool }

var (
	_ ordered[queued]    = queued{}
	_ ordered[span]      = span{}
	_ ordered[readyUnit] = readyUnit{}
	_ ordered[event]     = event{}
)

// A heap returns the first of its elements first.
type heap[T ordered[T]] []T

func (h *heap[T]) push(x T) {
	all := append(*h, x)
	n := len(all) - 1
	for n > 0 {
		above := (n - 1) / 2
		if !x.before(all[above]) {
			break
		}
		all[n] = all[above]
		n = above
	}
	all[n] = x
	*h = all
}

// pop removes and returns the first element. The heap must have one.
func (h *heap[T]) pop() T {
	all := *h
	first, last := all[0], len(all)-1
	x := all[last]
	all = all[:last]
	*h = all
	if last == 0 {
		return first
	}
	n := 0
	for {
		below := 2*n + 1
		if below >= last {
			break
		}
		if other := below + 1; other < last && all[other].before(all[below]) {
			below = other
		}
		if !all[below].before(x) {
			break
		}
		all[n] = all[below]
		n = below
	}
	all[n] = x
	return first
}
