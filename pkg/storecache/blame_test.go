package storecache

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// A changed bit in one pack is held against that pack, and against no other that the path needs.
func TestBlame(t *testing.T) {
	c := open(t)
	s := &shop{}
	s.put(t, "one", big(1))
	s.put(t, "two", big(2))
	s.put(t, "all", big(1)+big(2)+big(3))
	one, two := s.save(t, c, nil, "one"), s.save(t, c, nil, "two")
	all := s.save(t, c, NewIndex(one[0], two[0]), "all")
	random := rand.New(rand.NewPCG(5, 6))
	noticed := 0
	for n := range 120 {
		p := []*Pack{one[0], two[0], all[0]}[n%3]
		broken := changed{Cache: c, key: p.Key, bit: random.Int64N(8 * p.Size)}
		if n < 3 {
			broken.bit = 8 * 250_000 // in contents that all needs
		}
		got, err := newMemory().restore(t, broken, stored(t, broken, NewIndex(one[0], two[0], all[0])))
		d, lost := onDemand(t, broken, stored(t, broken, NewIndex(one[0], two[0], all[0])))
		_, demanded := readNAR(t.Context(), d, pathOf("all"))
		if is := []string{p.Key}; err != nil && (!errors.Is(err, ErrSource) || !slices.Equal(got.Lost, is)) || demanded != nil && !slices.Equal(lost(), is) {
			t.Errorf("bit %d of %s: %v are lost, %v; on demand %v, %v", broken.bit, p.Key, got.Lost, err, lost(), demanded)
		}
		if err != nil && demanded != nil {
			noticed++
		} else if n < 3 {
			t.Errorf("bit %d of %s is not noticed", broken.bit, p.Key)
		}
	}
	if noticed < 50 {
		t.Errorf("%d changes are noticed", noticed)
	}
}
