package plan

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"slices"
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

func (s set) has(n int) bool { return s[n/wordBits]&(1<<(n%wordBits)) != 0 }

func (s set) remove(n int) { s[n/wordBits] &^= 1 << (n % wordBits) }

// only leaves it with one member.
func (s set) only(n int) {
	clear(s)
	s.add(n)
}

// last returns the largest member, -1 if there is none.
func (s set) last() int {
	for i, word := range slices.Backward(s) {
		if word != 0 {
			return i*wordBits + bits.Len64(word) - 1
		}
	}
	return -1
}

// common returns the largest member of both, -1 if there is none.
func (s set) common(other set) int {
	for i, word := range slices.Backward(s) {
		if word &= other[i]; word != 0 {
			return i*wordBits + bits.Len64(word) - 1
		}
	}
	return -1
}

// key returns a text that only an equal set has.
func (s set) key() string {
	var key []byte
	for _, word := range s {
		key = binary.LittleEndian.AppendUint64(key, word)
	}
	return string(key)
}

// sets are many sets for the numbers below a limit, in one piece of memory.
type sets struct {
	size  int32 // words of each
	words set
}

func newSets(count, limit int) sets {
	size := (limit + wordBits - 1) / wordBits
	return sets{size: int32(size), words: make(set, count*size)} //nolint:gosec // limits are small
}

func (s *sets) of(n int32) set { return s.words[n*s.size : (n+1)*s.size] }
