package storecache

import (
	"testing"
	"time"
)

// A pack that cannot be read for a while when another is lost stays in the index that is stored, and its paths
// that need the lost one are no longer there once it can be read.
func TestLostWhileUnreadable(t *testing.T) {
	c := &counted{Cache: open(t)}
	s := &shop{}
	s.put(t, "base", big(1))
	s.put(t, "top", big(1)+"x")
	s.put(t, "other", "y")
	base := s.save(t, c, nil, "base")
	ix := NewIndex(append(s.save(t, c, NewIndex(base...), "top", "other"), base...)...)
	c.fail.Store(true)
	updated, changed, err := stored(t, c, ix).Update(t.Context(), Update{Now: time.Now(), Lost: []string{base[0].Key}})
	must(t, err)
	if !changed || !updated.Has(pathOf("other")) || updated.Has(pathOf("base")) {
		t.Errorf("%v, changed: %v", keysOf(updated), changed)
	}
	updated = stored(t, c, updated)
	if got, err := newMemory().restore(t, c, updated); got.Paths > 0 || len(got.Lost) > 0 || err == nil {
		t.Errorf("%+v, %v", got, err)
	}
	c.fail.Store(false)
	updated, err = stored(t, c, updated).Settled(t.Context())
	must(t, err)
	if updated.Has(pathOf("top")) || !updated.Has(pathOf("other")) {
		t.Error("the paths are not those that can be restored")
	}
	if got, err := newMemory().restore(t, c, stored(t, c, updated)); err != nil || got.Paths != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}
