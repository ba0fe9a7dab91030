package documents

import (
	"errors"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/cachetest"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
)

const unit = "00000000000000aa"

func newDone(outcome job.Outcome) *job.Done {
	return &job.Done{Version: job.Version, Unit: unit, Attempt: 1, Outcome: outcome, Entry: "host"}
}

// A claim is one job's, is renewed, and gives way to what became of the unit.
func TestUnits(t *testing.T) {
	eachSeal(t, func(t *testing.T, seal *pack.Key) {
		s := newStore(newCache(t), seal)
		see := func(look func() (*Sighting, error), claimed bool, try, beat int, done bool) *Sighting {
			t.Helper()
			seen, err := look()
			if err != nil || seen.Claimed != claimed || seen.Try != try || seen.Beat != beat || (seen.Done != nil) != done || seen.Broken != nil {
				t.Errorf("%+v, %v", seen, err)
			}
			return seen
		}
		look := func() (*Sighting, error) { return s.Unit(t.Context(), unit) }
		claim := func() (*Sighting, error) { return s.UnitClaim(t.Context(), unit) }
		see(look, false, 0, 0, false)
		holder := &job.Claim{Holder: "random", Entry: "host", URL: "https://example.org"}
		if err := s.SaveClaim(t.Context(), unit, 0, 0, holder); err != nil {
			t.Fatal(err)
		}
		if err := s.SaveClaim(t.Context(), unit, 0, 0, holder); !errors.Is(err, cache.ErrExists) {
			t.Errorf("a second claim: %v", err)
		}
		if seen := see(look, true, 0, 0, false); *seen.Holder != *holder {
			t.Errorf("%+v", seen.Holder)
		}
		if err := s.SaveClaim(t.Context(), unit, 0, 1, holder); err != nil {
			t.Fatal(err)
		}
		see(look, true, 0, 1, false)
		if err := s.SaveDone(t.Context(), 0, newDone(job.OutcomeBuilt)); err != nil {
			t.Fatal(err)
		}
		if seen := see(look, false, 0, 0, true); seen.DoneAttempt != 1 || seen.DoneTry != 0 || seen.DoneKey != "nix-matrix-done-7-"+unit+"-1-0" {
			t.Errorf("%+v", seen)
		}
		see(claim, true, 0, 1, false)
		s.Attempt = 2 // sees what the first one has done, and none of its claims
		see(look, false, 0, 0, true)
		see(claim, false, 0, 0, false)
	})
}

// Documents of others, or under a key that is not theirs, are no done documents, and a claim that
// cannot be read is somebody's.
func TestForeignUnits(t *testing.T) {
	c := newCache(t)
	ours, theirs := newStore(c, ourKey(t)), newStore(c, otherKey(t))
	if err := theirs.SaveClaim(t.Context(), unit, 3, 0, &job.Claim{Holder: "x", Entry: "y"}); err != nil {
		t.Fatal(err)
	}
	if seen, err := ours.Unit(t.Context(), unit); err != nil || !seen.Claimed || seen.Try != 3 || seen.Holder != nil {
		t.Errorf("%+v, %v", seen, err)
	}
	if err := theirs.SaveDone(t.Context(), 4, newDone(job.OutcomeBuilt)); err != nil {
		t.Fatal(err)
	}
	if seen, err := ours.Unit(t.Context(), unit); err != nil || seen.Done != nil || seen.Broken == nil || seen.DoneTry != 4 {
		t.Errorf("%+v, %v", seen, err)
	}
}

// A unit that is built is handed over although its key is lost, and one that is given back is not.
func TestLostDoneKey(t *testing.T) {
	s := newStore(nil, nil)
	s.Cache = cachetest.Burnt{Cache: newCache(t), Key: "nix-matrix-done-7-" + unit + "-1-0"}
	for outcome, try := range map[job.Outcome]int{job.OutcomeCancelled: 0, job.OutcomeBuilt: 1} {
		if err := s.SaveDone(t.Context(), 0, newDone(outcome)); err != nil {
			t.Fatal(err)
		}
		seen, err := s.Unit(t.Context(), unit)
		if built := outcome == job.OutcomeBuilt; err != nil || built && (seen.Done == nil || seen.DoneTry != try) {
			t.Errorf("%s: %+v, %v", outcome, seen, err)
		}
	}
}
