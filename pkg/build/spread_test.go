package build

import (
	"testing"
	"testing/synctest"
	"time"
)

// Many jobs that end together do not all create cache entries in the same minute; few do not wait.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		spread(t.Context(), 100)
		if took := time.Since(start); took != 0 {
			t.Errorf("a hundred entries wait %v", took)
		}
		longest := time.Duration(0)
		for range 100 {
			start := time.Now()
			spread(t.Context(), 256)
			longest = max(longest, time.Since(start))
		}
		if longest < 30*time.Second || longest > 94*time.Second {
			t.Errorf("of 256 entries, one waits %v", longest)
		}
	})
}
