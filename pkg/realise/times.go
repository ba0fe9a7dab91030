package realise

import (
	"slices"
	"time"
)

// A span is the time in which a derivation was built or a path fetched.
type span struct {
	path     string
	from, to time.Time
}

// ownTimes fills in the time of each target: in which a derivation or path that it needs was
// built or fetched.
func (r *realisation) ownTimes(now time.Time) {
	spans := r.watch.spansUntil(now)
	if len(spans) == 0 {
		return
	}
	alone := len(r.targets) == 1 // its derivations need not be read
	for _, t := range r.targets {
		if !alone {
			r.failures.needs(t.DrvPath)
		}
	}
	for i, t := range r.targets {
		r.outcome.Targets[i].Seconds = covered(spans, func(path string) bool {
			if alone {
				return true
			}
			needs := r.failures.needs(t.DrvPath)
			return slices.ContainsFunc(r.failures.owners(path), func(drv string) bool { return len(r.failures.matching(needs, drv)) > 0 })
		}).Seconds()
	}
}

// covered returns the time that is in at least one span whose path counts. The spans are sorted
// by their start.
func covered(spans []span, counts func(path string) bool) time.Duration {
	var total time.Duration
	var until time.Time
	for _, s := range spans {
		if !s.to.After(until) || !counts(s.path) {
			continue
		}
		if s.from.Before(until) {
			s.from = until
		}
		total += s.to.Sub(s.from)
		until = s.to
	}
	return total
}
