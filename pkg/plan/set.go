package plan

import (
	"iter"
	"math/bits"
)

// A set is a set of small numbers.
type set []uint64

const wordBits = 64

// newSet returns an empty set for the numbers below limit.
func newSet(limit int) set { return make(set, (limit+wordBits-1)/wordBits) }

func (s set) add(n int) { s[n/wordBits] |= 1 << (n % wordBits) }

func (s set) addAll(other set) {
	for i, word := range other {
		s[i] |= word
	}
}

func (s set) count() int {
	n := 0
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

// lacks returns how many members of other are not in s.
func (s set) lacks(other set) int {
	n := 0
	for i, word := range other {
		n += bits.OnesCount64(word &^ s[i])
	}
	return n
}

func (s set) members() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, word := range s {
			for ; word != 0; word &= word - 1 {
				if !yield(i*wordBits + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}
