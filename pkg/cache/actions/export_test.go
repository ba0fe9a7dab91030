package actions

import (
	"slices"
	"sync"
	"time"

	"github.com/org/nix-matrix/pkg/httpcall"
)

// Stalls takes the place of the clock by which a client notices that a connection stalls:
// only Now makes one stall.
type Stalls struct {
	mu   sync.Mutex
	dogs []*dog
}

// In sets s in a config.
func (s *Stalls) In(c *Config) {
	c.Stall = time.Hour
	c.afterFunc = func(_ time.Duration, bark func()) httpcall.Timer {
		d := &dog{s, bark}
		d.Reset(0)
		return d
	}
}

// Now makes all transfers that are waiting at the moment stall.
func (s *Stalls) Now() {
	s.mu.Lock()
	dogs := s.dogs
	s.dogs = nil
	s.mu.Unlock()
	for _, d := range dogs {
		d.bark()
	}
}

type dog struct {
	stalls *Stalls
	bark   func()
}

func (d *dog) Reset(time.Duration) bool {
	d.stalls.mu.Lock()
	defer d.stalls.mu.Unlock()
	waits := slices.Contains(d.stalls.dogs, d)
	if !waits {
		d.stalls.dogs = append(d.stalls.dogs, d)
	}
	return waits
}

func (d *dog) Stop() bool {
	d.stalls.mu.Lock()
	defer d.stalls.mu.Unlock()
	waits := slices.Contains(d.stalls.dogs, d)
	d.stalls.dogs = slices.DeleteFunc(d.stalls.dogs, func(other *dog) bool { return other == d })
	return waits
}
