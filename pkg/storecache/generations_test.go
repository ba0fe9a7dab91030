package storecache

import (
	"fmt"
	"slices"
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
		u := Update{Now: saved[0].Used.Add(-time.Minute), Saved: saved, Limit: 1 << 20, NARs: 3*s.list[n].NarSize + 100}
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

// A save does not read the hashes of all chunks of a cache without bounds, but those of the packs of which most
// is needed.
func TestKnownIsBounded(t *testing.T) {
	c := open(t)
	s := &shop{}
	var packs []*Pack
	for n, content := range []string{big(1), big(2) + big(3) + big(4), big(5) + big(6)} {
		name := fmt.Sprint("path", n)
		s.put(t, name, content)
		packs = append(packs, s.save(t, c, nil, name)...)
	}
	ix := stored(t, c, NewIndex(packs...))
	before := maxKnown
	t.Cleanup(func() { maxKnown = before })
	for _, test := range []struct {
		room int64
		want []string
	}{
		{before, []string{packs[1].Key, packs[2].Key, packs[0].Key}},
		{packs[1].save - packs[1].restore + packs[0].save - packs[0].restore, []string{packs[1].Key, packs[0].Key}},
		{1, nil},
	} {
		maxKnown = test.room
		if got := keysOf(NewIndex(ix.Supports()...)); !slices.Equal(got, test.want) {
			t.Errorf("within %d bytes, %v, want %v", test.room, got, test.want)
		}
	}
}
