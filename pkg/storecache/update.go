package storecache

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// An Update has the changes to the packs of an index since it was stored.
type Update struct {
	Now   time.Time
	Saved []*Pack
	Used  []string // keys of packs that paths were restored from
	Lost  []string // keys of packs that are missing or corrupt
	// Forget is the time without use after which the paths of a pack are removed from the index; 0 is never.
	// The pack leaves it too, unless another leans on it.
	Forget time.Duration
	Limit  int64 // bytes of all packs together, see Within
	NARs   int64 // bytes of the NARs of all paths together, see Within
}

// staleUse is how old a pack's time of use in an index may be before a new index is stored.
const staleUse = 24 * time.Hour

// Update returns the index after an update, with the saved packs first, and reports whether it
// is worth storing. The index itself does not change. The error is the end of the context.
func (ix *Index) Update(ctx context.Context, u Update) (updated *Index, changed bool, err error) {
	rest, err := ix.Without(ctx, u.Lost...)
	if err != nil {
		return nil, false, err
	}
	changed = len(u.Saved) > 0 || len(rest.Packs) < len(ix.Packs)
	packs := slices.Clone(u.Saved)
	for _, p := range rest.Packs {
		current := p.clone()
		if slices.Contains(u.Used, p.Key) {
			changed = changed || u.Now.Sub(p.Used) > staleUse
			current.Used = u.Now
		}
		if u.Forget != 0 && current.Used.Before(u.Now.Add(-u.Forget)) {
			current.paths = nil
		}
		packs = append(packs, current)
	}
	return ix.With(packs...).Within(u.Limit, u.NARs), changed, nil
}

// needs returns a pack and those that it leans on.
func (ix *Index) needs(p *Pack) []*Pack {
	all := []*Pack{p}
	for _, l := range p.leans {
		if q := ix.bySum[l.sum]; q != nil && q != p {
			all = append(all, q)
		}
	}
	return all
}

// Needed returns for each pack, by its key, when it was last needed for paths of its own or of packs that
// lean on it. The time is zero for a pack without both.
func (ix *Index) Needed() map[string]time.Time {
	needed := map[string]time.Time{}
	for _, p := range ix.Packs {
		for _, q := range ix.needs(p) {
			last := needed[q.Key]
			if len(p.paths) > 0 && p.Used.After(last) {
				last = p.Used
			}
			needed[q.Key] = last
		}
	}
	return needed
}

// Within returns an index of the packs whose paths were needed last and that together, with those that they
// lean on, have at most limit bytes, and their NARs at most nars. If a pack does not fit, smaller ones may. A
// limit of 0 means no limit; packs without paths, on which none leans, are left out in any case.
func (ix *Index) Within(limit, nars int64) *Index {
	packs := slices.Clone(ix.Packs)
	slices.SortStableFunc(packs, func(a, b *Pack) int { return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.Key, b.Key)) })
	room, left := limit, nars
	kept := map[*Pack]bool{}   // with its paths
	needed := map[*Pack]bool{} // for the chunks of these
	for _, p := range packs {
		if len(p.paths) == 0 {
			continue
		}
		var more int64
		all := ix.needs(p)
		for _, q := range all {
			if !needed[q] {
				more += q.Size
			}
		}
		if limit > 0 && more > room || nars > 0 && p.unpacked > left {
			continue
		}
		room, left = room-more, left-p.unpacked
		kept[p] = true
		for _, q := range all {
			needed[q] = true
		}
	}
	var within []*Pack
	for _, p := range packs {
		switch {
		case kept[p]:
			within = append(within, p)
		case needed[p]:
			within = append(within, p.bare())
		}
	}
	return ix.With(within...)
}

// live returns about how many of the bytes of the chunks of each pack, decompressed, paths need.
func (ix *Index) live() map[*Pack]int64 {
	live := map[*Pack]int64{}
	for _, p := range ix.Packs {
		if len(p.paths) == 0 {
			continue
		}
		live[p] = p.chunks
		for _, l := range p.leans { // generations of paths need mostly the same
			if q := ix.bySum[l.sum]; q != nil {
				live[q] = max(live[q], l.bytes)
			}
		}
	}
	return live
}

// A pack of which little is live is abandoned: a save does not lean on it, but saves that little again, so
// that the pack can go when its last user does.
const (
	abandonShare  = 4        // if less than one of so many bytes is live
	abandonBudget = 64 << 20 // the most bytes, decompressed, that a save may save again for it
)

// maxKnown is about the most bytes of hashes of chunks that a save reads and keeps: those of about 20 GB of packs.
var maxKnown int64 = 16 << 20

// Supports returns the packs that new packs may lean on, those of which most is live first.
func (ix *Index) Supports() []*Pack {
	var little, rest []*Pack
	live := ix.live()
	for _, p := range ix.Packs {
		switch {
		case p.sum == "":
		case live[p] < p.chunks/abandonShare:
			little = append(little, p)
		default:
			rest = append(rest, p)
		}
	}
	slices.SortStableFunc(little, func(a, b *Pack) int { return cmp.Compare(live[a], live[b]) })
	budget := int64(abandonBudget)
	for i, p := range little {
		if budget -= live[p]; budget < 0 {
			rest = append(rest, little[i:]...)
			break
		}
	}
	slices.SortStableFunc(rest, func(a, b *Pack) int { return cmp.Compare(live[b], live[a]) })
	room := maxKnown
	return slices.DeleteFunc(rest, func(p *Pack) bool {
		hashes := p.save - p.restore
		if hashes <= room {
			room -= hashes
			return false
		}
		return true
	})
}
