package storecache

import (
	"bytes"
	"errors"
	"testing"

	"github.com/org/nix-matrix/pkg/pack"
)

// Recipes may make every path need every frame. After so many, paths are cache misses, no pack is blamed, and others are
// restored; an honest restore never gets there.
func TestTooManyNeeds(t *testing.T) {
	before := maxNeeds
	defer func() { maxNeeds = before }()
	c := open(t)
	s, packs := many(t, c)
	maxNeeds = 20
	m := newMemory()
	got, err := m.restore(t, c, stored(t, c, NewIndex(packs...)))
	if !errors.Is(err, ErrSource) || !errors.Is(err, pack.ErrTooMany) || got.Paths == 0 || got.Paths > maxNeeds || len(got.Lost) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
	d, lost := onDemand(t, c, stored(t, c, NewIndex(packs...)))
	for _, info := range s.list { // each alone
		if nar, err := readNAR(t.Context(), d, info.Path); err != nil || !bytes.Equal(nar, s.nars[info.Path]) {
			t.Error(err)
		}
	}
	maxNeeds = 1
	if _, err := d.Find(t.Context(), hashOf(s.list[30].Path)); !errors.Is(err, ErrAbsent) || len(lost()) > 0 {
		t.Errorf("lost %q, %v", lost(), err)
	}
	if needs := d.closure(hashOf(s.list[30].Path)); len(needs) > 0 {
		t.Errorf("%d paths are prefetched", len(needs))
	}
}
