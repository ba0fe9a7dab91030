package verdict

import (
	"cmp"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
)

// A Change is the difference from the Record of the default branch.
type Change struct {
	Commit string `json:"commit,omitempty"` // of the Record
	Branch string `json:"branch,omitempty"`
	URL    string `json:"url,omitempty"`
	// Rebuild is the number of derivations that were missing when this run began, -1 if unknown.
	Rebuild   int             `json:"rebuild"`
	Added     []string        `json:"added,omitempty"` // names of targets
	Removed   []string        `json:"removed,omitempty"`
	Changed   []ChangedTarget `json:"changed,omitempty"`
	Unchanged int             `json:"unchanged"`
}

// A ChangedTarget is a target with another derivation than before.
type ChangedTarget struct {
	Name   string `json:"name"`
	Broken bool   `json:"broken,omitempty"` // it evaluated before, and does not now
	Mended bool   `json:"mended,omitempty"` // the other way round
	// Build is the number of derivations that have to be built for it, 0 if unknown. Only the
	// outlook on an update has it.
	Build int `json:"build,omitempty"`
	// Before and After are the sizes of its closures in bytes, 0 if unknown.
	Before int64 `json:"before,omitempty"`
	After  int64 `json:"after,omitempty"`
	// Growths are the packages that have become larger or smaller, the largest difference
	// first.
	Growths []Growth `json:"growths,omitempty"`
}

// A Growth is a package whose size in a closure has changed.
type Growth struct {
	Package string `json:"package"`
	Before  int64  `json:"before"`
	After   int64  `json:"after"`
}

// By returns the growth in bytes.
func (g Growth) By() int64 { return g.After - g.Before }

// maxGrowths is the most packages of a target.
const maxGrowths = 5

// Compare returns the difference of the Plan's run from the Record of another run.
func (v *Verdict) Compare(base *job.Record, plan *job.Plan) *Change {
	c := &Change{Commit: base.Commit, Branch: base.Branch, URL: base.URL, Rebuild: plan.Missing}
	if plan.Missing == 0 && len(plan.Entries) > 0 {
		c.Rebuild = -1
	}
	var targets []job.RecordTarget
	for _, t := range v.HostsFirst() {
		target := t.record(nil)
		target.Name = t.Name()
		targets = append(targets, target)
	}
	c.compare(base.Targets, targets)
	return c
}

// compare adds the difference between targets that were and those that are, in their order, and returns those of
// Changed.
func (c *Change) compare(were, are []job.RecordTarget) (changed []*job.RecordTarget) {
	before := make(map[string]*job.RecordTarget, len(were))
	for i := range were {
		before[were[i].Key()] = &were[i]
	}
	for i := range are {
		t := &are[i]
		was := before[t.Key()]
		delete(before, t.Key())
		switch {
		case was == nil:
			c.Added = append(c.Added, cmp.Or(t.Name, t.Attr))
		case was.DrvPath == t.DrvPath:
			c.Unchanged++
		default:
			c.Changed = append(c.Changed, changedTarget(was, t))
			changed = append(changed, t)
		}
	}
	for i := range were {
		if t := &were[i]; before[t.Key()] != nil {
			c.Removed = append(c.Removed, cmp.Or(t.Name, t.Attr))
		}
	}
	return changed
}

func changedTarget(was, is *job.RecordTarget) ChangedTarget {
	c := ChangedTarget{Name: cmp.Or(is.Name, is.Attr), Broken: is.DrvPath == "", Mended: was.DrvPath == "", Before: was.Closure, After: is.Closure}
	if c.Before <= 0 || c.After <= 0 {
		return c
	}
	for name, after := range is.Parts {
		c.Growths = append(c.Growths, Growth{name, was.Parts[name], after})
	}
	for name, before := range was.Parts {
		if _, there := is.Parts[name]; !there {
			c.Growths = append(c.Growths, Growth{name, before, 0})
		}
	}
	c.Growths = slices.DeleteFunc(c.Growths, func(g Growth) bool { return g.By() == 0 })
	slices.SortStableFunc(c.Growths, func(a, b Growth) int {
		return cmp.Or(cmp.Compare(max(b.By(), -b.By()), max(a.By(), -a.By())), cmp.Compare(a.Package, b.Package))
	})
	c.Growths = c.Growths[:min(len(c.Growths), maxGrowths)]
	return c
}
