package storecache

import (
	"slices"
	"time"
)

// An Update is what became of the packs of an index since it was stored.
type Update struct {
	Now   time.Time
	Saved []*Pack
	Used  []string // keys of packs that paths were restored from
	Lost  []string // keys of packs that are gone, or do not have what the index says
	// Forget is after what time a pack leaves the index if no path of it was needed; never,
	// if it is 0.
	Forget time.Duration
	Limit  int64 // bytes of all packs together, see Within
}

// staleUse is how old the time of use of a pack in an index may be before that is a reason
// to store a new one.
const staleUse = 24 * time.Hour

// Update returns the index after an update, with the saved packs first, and reports whether
// it says more than the stored one. The index itself stays as it is.
func (ix *Index) Update(u Update) (updated *Index, changed bool) {
	changed = len(u.Saved) > 0
	packs := slices.Clone(u.Saved)
	for _, p := range ix.Packs {
		if slices.Contains(u.Lost, p.Key) {
			changed = true
			continue
		}
		current := *p
		if slices.Contains(u.Used, p.Key) {
			changed = changed || u.Now.Sub(p.Used) > staleUse
			current.Used = u.Now
		}
		if u.Forget == 0 || !current.Used.Before(u.Now.Add(-u.Forget)) {
			packs = append(packs, &current)
		}
	}
	return NewIndex(packs...).Within(u.Limit), changed
}
