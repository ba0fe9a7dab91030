// Package gc decides what of a cache nobody will look for any more. It is pure: the
// same entries give the same decisions.
package gc

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// Rules say what may go.
type Rules struct {
	ID   string // only what was stored with it may
	Now  time.Time
	Keep time.Duration // what was used within this time stays, but for the budget
	// Budget is how many bytes may stay, 0 for any number.
	Budget int64
	// DefaultRef is that of the default branch. Its entries are the last that the budget
	// removes, and its newest record and index stay in any case.
	DefaultRef string
	// Proposed reports whether a ref has a change that is not merged. The entries of such
	// refs are the first that the budget removes. It may be nil.
	Proposed func(ref string) bool
	// Named are the keys of the packs that the newest indexes of a ref name, by ref. Packs
	// of another one stay as long as it has an index at all, since that might name them.
	Named map[string]map[string]bool
}

// settled is how old a pack must be before it counts that no index names it: an index
// is stored after its packs.
const settled = 24 * time.Hour

// A Decision is what becomes of an entry.
type Decision struct {
	action.CacheEntry
	Kind job.KeyKind
	Why  string // it goes; empty if it stays
}

// Decide returns a decision on each entry of the rules' id, the least recently used entry
// first.
func Decide(entries []action.CacheEntry, rules Rules) []Decision {
	var decisions []Decision
	for _, e := range entries {
		if kind, ok := job.ParseKey(rules.ID, e.Key); ok {
			if e.Used.Before(e.Created) {
				e.Used = e.Created
			}
			decisions = append(decisions, Decision{CacheEntry: e, Kind: kind})
		}
	}
	slices.SortFunc(decisions, func(a, b Decision) int {
		return cmp.Or(a.Used.Compare(b.Used), a.Created.Compare(b.Created), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.ID, b.ID))
	})
	newest := newestOf(decisions)
	indexed := map[string]bool{} // refs
	for _, d := range decisions {
		indexed[d.Ref] = indexed[d.Ref] || d.Kind == job.KeyIndex
	}
	for i := range decisions {
		d := &decisions[i]
		d.Why = rules.why(d, newest[placeOf(d)] == i, indexed[d.Ref])
	}
	rules.fit(decisions, newest)
	return decisions
}

// Indexes are those of the entries that are of an id and the newest ones of their ref and
// what they are an index of: they alone are read.
func Indexes(entries []action.CacheEntry, id string) []action.CacheEntry {
	var all []Decision
	for _, e := range entries {
		if kind, ok := job.ParseKey(id, e.Key); ok && kind == job.KeyIndex {
			all = append(all, Decision{CacheEntry: e, Kind: kind})
		}
	}
	var newest []action.CacheEntry
	for _, n := range newestOf(all) {
		newest = append(newest, all[n].CacheEntry)
	}
	return newest
}

// A place is where of several entries only the newest is looked for.
type place struct {
	kind   job.KeyKind
	ref    string
	series string // of indexes
}

func placeOf(d *Decision) place {
	at := place{kind: d.Kind, ref: d.Ref}
	// The part behind the last "+" of the key of an index says which run it is of.
	if n := strings.LastIndex(d.Key, "+"); d.Kind == job.KeyIndex && n >= 0 {
		at.series = d.Key[:n]
	}
	return at
}

// newestOf returns the numbers of the decisions on what was created last.
func newestOf(decisions []Decision) map[place]int {
	newest := map[place]int{}
	for i, d := range decisions {
		at := placeOf(&d)
		if n, ok := newest[at]; !ok || !d.Created.Before(decisions[n].Created) {
			newest[at] = i
		}
	}
	return newest
}

// why says why an entry goes, whatever the budget.
func (r *Rules) why(d *Decision, newest, indexed bool) string {
	unused := r.Now.Sub(d.Used)
	old := unused > r.Keep
	switch d.Kind {
	case job.KeyPlan, job.KeyDrvs, job.KeyResult:
		if old {
			return "not used for " + age(unused)
		}
	case job.KeyEvaluation, job.KeyInputs, job.KeyRecord, job.KeyIndex:
		if old && !newest {
			return fmt.Sprintf("not used for %s, and there is a newer one", age(unused))
		}
	case job.KeyPack:
		named, known := r.Named[d.Ref]
		if (known || !indexed) && !named[d.Key] && unused > min(settled, r.Keep) {
			return "no index names it"
		}
	}
	return ""
}

// fit removes entries until the rest is within the budget: those of proposals first and
// those of the default branch last, and among these what was not used for longest. So
// nobody's proposals push out what all others reuse.
func (r *Rules) fit(decisions []Decision, newest map[place]int) {
	if r.Budget <= 0 {
		return
	}
	var total int64
	for _, d := range decisions {
		if d.Why == "" {
			total += d.Size
		}
	}
	order := make([]int, len(decisions))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(r.rank(decisions[a].Ref), r.rank(decisions[b].Ref)) })
	for _, i := range order {
		d := &decisions[i]
		base := (d.Kind == job.KeyRecord || d.Kind == job.KeyIndex) && d.Ref == r.DefaultRef && newest[placeOf(d)] == i
		if total <= r.Budget {
			return
		}
		if d.Why == "" && !base {
			d.Why = fmt.Sprintf("over the budget of %s, and not used for %s", text.Size(r.Budget), age(r.Now.Sub(d.Used)))
			total -= d.Size
		}
	}
}

// rank says when the entries of a ref are removed for the budget, the least first.
func (r *Rules) rank(ref string) int {
	switch {
	case ref == r.DefaultRef:
		return 2
	case r.Proposed != nil && r.Proposed(ref):
		return 0
	default:
		return 1
	}
}

// age shows a duration as people speak of it.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	default:
		return fmt.Sprintf("%d minutes", max(0, d/time.Minute))
	}
}
