// Package gc selects cache entries that no later run will look for. It is pure: the same
// entries give the same decisions.
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

// Rules select the entries to remove.
type Rules struct {
	ID   string // only its entries are removed
	Now  time.Time
	Keep time.Duration // entries that were used within this time stay, except for the budget
	// Budget is how many bytes may stay, 0 for any number.
	Budget int64
	// DefaultRef is the ref of the default branch. The budget removes its entries last, and its
	// newest record and index stay in any case.
	DefaultRef string
	// Proposed reports whether a ref is a proposal. The budget removes the entries of proposals
	// first. It may be nil.
	Proposed func(ref string) bool
	// Expires reports whether all entries of a ref are removed once none of them was used within
	// Keep, as a cache does that evicts entries itself. It may be nil.
	Expires func(ref string) bool
	// Named are the packs that the newest indexes of a ref name, by ref and key, with the time when each
	// was last needed, for its own store paths or for those of packs that lean on it. Packs of
	// other refs stay as long as the ref has an index, because it might name them.
	Named map[string]map[string]time.Time
}

// minPackAge is the least age at which a pack without an index is removed: an index is stored
// after its packs.
const minPackAge = 24 * time.Hour

// A Decision says whether an entry is removed.
type Decision struct {
	action.CacheEntry
	Kind job.KeyKind
	Why  string // the reason to remove it; empty if it stays
}

// Decide returns a decision on each entry of the rules' id, the least recently used first.
func Decide(entries []action.CacheEntry, rules Rules) []Decision {
	var decisions []Decision
	for _, e := range entries {
		if kind, ok := job.ParseKey(rules.ID, e.Key); ok {
			e.Used = latest(e.Used, e.Created, rules.Named[e.Ref][e.Key])
			decisions = append(decisions, Decision{CacheEntry: e, Kind: kind})
		}
	}
	slices.SortStableFunc(decisions, func(a, b Decision) int {
		created := a.Created.Compare(b.Created)
		if a.Kind == job.KeyPack && b.Kind == job.KeyPack {
			created = -created // packs lean on older ones
		}
		return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(a.Kind, b.Kind), created, cmp.Compare(a.Key, b.Key), cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.ID, b.ID))
	})
	newest := newestOf(decisions, rules.seriesOf)
	indexed := map[string]bool{} // refs
	used := map[string]time.Time{}
	for _, d := range decisions {
		used[d.Ref] = d.Used // in the order of time
		indexed[d.Ref] = indexed[d.Ref] || d.Kind == job.KeyIndex
	}
	for i := range decisions {
		d := &decisions[i]
		d.Why = rules.reason(d, newest[rules.seriesOf(d)] == i, indexed[d.Ref])
		if unused := rules.Now.Sub(used[d.Ref]); rules.Expires != nil && rules.Expires(d.Ref) && unused > rules.Keep {
			d.Why = "nothing of its branch or pull request was used for " + age(unused)
		}
	}
	rules.applyBudget(decisions, newest)
	return decisions
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// Indexes returns the newest index of each version and series of an id, among the entries. No run reads
// older ones.
func Indexes(entries []action.CacheEntry, id string) []action.CacheEntry {
	var all []Decision
	for _, e := range entries {
		if kind, ok := job.ParseKey(id, e.Key); ok && kind == job.KeyIndex {
			all = append(all, Decision{CacheEntry: e, Kind: kind})
		}
	}
	var newest []action.CacheEntry
	for _, n := range newestOf(all, versionOf) {
		newest = append(newest, all[n].CacheEntry)
	}
	return newest
}

// A series is a group of entries of which runs read only the newest.
type series struct {
	kind job.KeyKind
	ref  string
	name string // of indexes
}

// seriesOf returns the series of an entry, which for indexes of all versions of the format is the same: an
// older one is read only where there is no newer one.
func (r *Rules) seriesOf(d *Decision) series {
	s := versionOf(d)
	if _, name, ok := strings.Cut(strings.TrimPrefix(s.name, job.IndexPrefix(r.ID)), "+"); ok {
		s.name = name
	}
	return s
}

// versionOf returns the series of an entry in a version of the format.
func versionOf(d *Decision) series {
	s := series{kind: d.Kind, ref: d.Ref}
	// The part after the last "+" of an index's key is its run.
	if n := strings.LastIndex(d.Key, "+"); d.Kind == job.KeyIndex && n >= 0 {
		s.name = d.Key[:n]
	}
	return s
}

// newestOf returns the number of the decision on the newest entry of each series.
func newestOf(decisions []Decision, seriesOf func(*Decision) series) map[series]int {
	newest := map[series]int{}
	for i, d := range decisions {
		s := seriesOf(&d)
		if n, ok := newest[s]; !ok || !d.Created.Before(decisions[n].Created) {
			newest[s] = i
		}
	}
	return newest
}

// reason returns why an entry is removed regardless of the budget, or "".
func (r *Rules) reason(d *Decision, newest, indexed bool) string {
	unused := r.Now.Sub(d.Used)
	old := unused > r.Keep
	switch d.Kind {
	case job.KeyPlan, job.KeyDrvs, job.KeyResult, job.KeyClaim, job.KeyDone:
		if old {
			return "not used for " + age(unused)
		}
	case job.KeyEvaluation, job.KeyInputs, job.KeyRecord, job.KeyIndex:
		if old && !newest {
			return fmt.Sprintf("not used for %s, and there is a newer one", age(unused))
		}
	case job.KeyPack:
		packs, known := r.Named[d.Ref]
		_, named := packs[d.Key]
		if (known || !indexed) && !named && unused > min(minPackAge, r.Keep) {
			return "no index names it"
		}
	}
	return ""
}

// applyBudget removes entries until the rest is within the budget: those of proposals first,
// those of the default branch last, and the least recently used first among them. So
// proposals cannot evict entries that all runs reuse.
func (r *Rules) applyBudget(decisions []Decision, newest map[series]int) {
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
		base := (d.Kind == job.KeyRecord || d.Kind == job.KeyIndex) && d.Ref == r.DefaultRef && newest[r.seriesOf(d)] == i
		if total <= r.Budget {
			return
		}
		if d.Why == "" && !base {
			d.Why = fmt.Sprintf("over the budget of %s, and not used for %s", text.Size(r.Budget), age(r.Now.Sub(d.Used)))
			total -= d.Size
		}
	}
}

// rank returns the order in which the budget removes the entries of a ref, the least first.
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

// age returns a duration in days, hours or minutes.
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
