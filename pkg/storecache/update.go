package storecache

import (
	"slices"
	"time"
)

// An Update has the changes to the packs of an index since it was stored.
type Update struct {
	Now   time.Time
	Saved []*Pack
	Used  []string // keys of packs that paths were restored from
	Lost  []string // keys of packs that are missing or corrupt
	// Forget is the time without use after which a pack is removed from the index; 0 is never.
	Forget time.Duration
	Limit  int64 // bytes of all packs together, see Within
}

// staleUse is how old a pack's time of use in an index may be before a new index is stored.
const staleUse = 24 * time.Hour

// Update returns the index after an update, with the saved packs first, and reports whether it
// is worth storing. The index itself does not change.
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
