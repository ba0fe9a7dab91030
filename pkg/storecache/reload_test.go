package storecache

import (
	"bytes"
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/cache/cachetest"
)

// A server that runs for long finds what was saved since it began, and does not look for lost packs again.
func TestReload(t *testing.T) {
	before := reloadPause
	reloadPause = time.Millisecond
	t.Cleanup(func() { reloadPause = before })
	c := open(t)
	s := &shop{}
	for n, name := range []string{"first", "gone", "later"} {
		s.put(t, name, big(n))
	}
	first, gone, later := s.save(t, c, nil, "first"), s.save(t, c, nil, "gone"), s.save(t, c, nil, "later")
	var loads atomic.Int64
	lossy := cachetest.Burnt{Cache: c, Key: gone[0].Key}
	d, lost := onDemand(t, lossy, stored(t, lossy, NewIndex(first[0], gone[0])), func(o *OnDemandOptions) {
		o.Reload = func(context.Context) *Index {
			loads.Add(1)
			return stored(t, lossy, NewIndex(later[0], gone[0]))
		}
	})
	if _, err := readNAR(t.Context(), d, pathOf("gone")); err == nil {
		t.Error("a path of a lost pack is there")
	}
	for { // the reload runs beside this
		if _, err := d.Find(t.Context(), hashOf(pathOf("later"))); err == nil {
			break
		}
	}
	for _, name := range []string{"first", "later"} {
		if got, err := readNAR(t.Context(), d, pathOf(name)); err != nil || !bytes.Equal(got, s.nars[pathOf(name)]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := readNAR(t.Context(), d, pathOf("gone")); err == nil {
		t.Error("a path of a lost pack is there again")
	}
	if l := lost(); !slices.Equal(l, []string{gone[0].Key}) || loads.Load() == 0 {
		t.Errorf("lost %q after %d loads", l, loads.Load())
	}
}
