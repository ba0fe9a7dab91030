package claim

import (
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
)

// A worker that waits for a unit looks again after a sixteenth of the time that it has waited, so that the
// end of a short unit is seen soon, and the cache is not asked without end for a long one.
func TestPauses(t *testing.T) {
	m := newMachine(usualLimits(time.Minute), []job.Unit{{}}, 1, 0, []bool{true}, []bool{true}, nil, false)
	m.update()
	now, looks := time.Duration(0), 0
	for now < 10*time.Minute {
		m.saw(0, &documents.Sighting{Claimed: true, Beat: int(now / time.Minute)}, "", now)
		pause := m.state[0].due - now
		if most := min(m.minWait+now/16+time.Second, m.maxWait); pause < m.minWait || pause > most {
			t.Errorf("after %s it waits for %s, want at most %s", now, pause, most)
		}
		now += pause
		looks++
	}
	if looks > 80 {
		t.Errorf("%d looks", looks)
	}
}
