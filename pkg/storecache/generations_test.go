package storecache

import (
	"fmt"
	"testing"
	"time"
)

// Generations of a path have most contents in common, so that packs within a limit may have hundreds of them. How much
// they are when they are restored is limited, too: the last ones stay, and those that were needed since.
func TestGenerations(t *testing.T) {
	c := open(t)
	s := &shop{}
	ix := NewIndex()
	const most = 20
	now := time.Now().UTC()
	for n := range most {
		name := fmt.Sprint("bump", n)
		s.put(t, name, big(1)+name)
		saved := s.save(t, c, ix, name)
		saved[0].Used = now.Add(time.Duration(n) * time.Hour)
		u := Update{Now: saved[0].Used, Saved: saved, Limit: 1 << 20, NARs: 3*s.list[n].NarSize + 100}
		if n > 2 {
			u.Used = ix.Having([]string{pathOf("bump2")})
		}
		updated, changed, err := ix.Update(t.Context(), u)
		must(t, err)
		if !changed {
			t.Fatal("the update is not worth it")
		}
		ix = stored(t, c, updated)
	}
	if ix.Len() != 3 || !ix.Has(pathOf("bump2")) || !ix.Has(pathOf("bump18")) || !ix.Has(pathOf("bump19")) {
		t.Errorf("%d paths stay", ix.Len())
	}
	if got, err := newMemory().restore(t, c, ix); err != nil || got.Paths != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	newest := ix.Within(0, s.list[most-1].NarSize)
	if got, err := newMemory().restore(t, c, newest); err != nil || got.Paths != 1 || !newest.Has(pathOf("bump19")) {
		t.Errorf("%+v, %v", got, err)
	}
	if ix.Within(0, 1).Len() != 0 {
		t.Error("a path has no room")
	}
}
