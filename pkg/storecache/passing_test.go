package storecache

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
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

// away is a cache in which one key cannot be opened for a passing reason.
type away struct {
	cache.Cache
	key   string
	tries atomic.Int64
}

func (a *away) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	if key == a.key {
		a.tries.Add(1)
		return nil, errPassing
	}
	return a.Cache.Open(ctx, key, prefixes...)
}

// A pack that was unreadable a moment ago is not asked for again by each path whose closure needs it, while
// others wait for their turn.
func TestPrefetchOfUnreadable(t *testing.T) {
	s := &shop{}
	s.put(t, "low", big(1))
	c := &away{Cache: open(t)}
	low := s.save(t, c, nil, "low")
	var names []string
	for n := range 20 {
		names = append(names, fmt.Sprint("top", n))
		s.put(t, names[n], big(2+n))
		s.list[n+1].References = []string{pathOf("low")}
	}
	c.key = low[0].Key
	d, lost := onDemand(t, c, stored(t, c, NewIndex(append(s.save(t, c, nil, names...), low...)...)))
	for _, name := range names {
		if len(d.closure(hashOf(pathOf(name)))) == 0 {
			t.Errorf("nothing of %s is prefetched", name)
		}
	}
	if n := c.tries.Load(); n != 1 {
		t.Errorf("the pack was asked for %d times", n)
	}
	clear(d.pauses)
	c.key = ""
	if got, err := readNAR(t.Context(), d, pathOf("low")); err != nil || !bytes.Equal(got, s.nars[pathOf("low")]) {
		t.Error(err)
	}
	if l := lost(); len(l) > 0 {
		t.Errorf("lost %q", l)
	}
}
