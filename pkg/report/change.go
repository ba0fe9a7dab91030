package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// A Change is what is different from the Record of the default branch.
type Change struct {
	Commit string `json:"commit,omitempty"` // of the Record
	Branch string `json:"branch,omitempty"`
	URL    string `json:"url,omitempty"`
	// Rebuild is how many derivations nobody had when this run began, -1 where that is
	// not known.
	Rebuild   int             `json:"rebuild"`
	Added     []string        `json:"added,omitempty"` // names of targets
	Removed   []string        `json:"removed,omitempty"`
	Changed   []ChangedTarget `json:"changed,omitempty"`
	Unchanged int             `json:"unchanged"`
}

// A ChangedTarget is one that is another derivation now.
type ChangedTarget struct {
	Name   string `json:"name"`
	Broken bool   `json:"broken,omitempty"` // it evaluated before, and does not now
	Mended bool   `json:"mended,omitempty"` // the other way round
	// Before and After are the bytes of its closures, 0 where they are not known.
	Before int64 `json:"before,omitempty"`
	After  int64 `json:"after,omitempty"`
	// Growths are the packages that have become larger or smaller, those first that
	// have most.
	Growths []Growth `json:"growths,omitempty"`
}

// A Growth is a package that takes more or less of a closure.
type Growth struct {
	Package string `json:"package"`
	Before  int64  `json:"before"`
	After   int64  `json:"after"`
}

// by is how much it has grown.
func (g Growth) by() int64 { return g.After - g.Before }

const changeTitle = "What this rebuilds"

// maxGrowths is how many packages are named of a target.
const maxGrowths = 5

// Compare says what is different from the Record of another run.
func (v *Verdict) Compare(base *job.Record, rebuild int) *Change {
	c := &Change{Commit: base.Commit, Branch: base.Branch, URL: base.URL, Rebuild: rebuild}
	before := make(map[string]*job.RecordTarget, len(base.Targets))
	for i := range base.Targets {
		before[base.Targets[i].Attr] = &base.Targets[i]
	}
	for _, t := range v.hostsFirst() {
		was := before[t.Target.Attr]
		delete(before, t.Target.Attr)
		switch {
		case was == nil:
			c.Added = append(c.Added, t.name())
		case was.DrvPath == t.Target.DrvPath:
			c.Unchanged++
		default:
			c.Changed = append(c.Changed, t.changed(was))
		}
	}
	for i := range base.Targets {
		if t := &base.Targets[i]; before[t.Attr] != nil {
			c.Removed = append(c.Removed, cmp.Or(t.Name, t.Attr))
		}
	}
	return c
}

func (t *TargetVerdict) changed(was *job.RecordTarget) ChangedTarget {
	c := ChangedTarget{Name: t.name(), Broken: t.Target.DrvPath == "", Mended: was.DrvPath == "", Before: was.Closure}
	out := t.output()
	c.After = out.Closure
	if c.Before <= 0 || c.After <= 0 {
		return c
	}
	for name, after := range out.Parts {
		c.Growths = append(c.Growths, Growth{name, was.Parts[name], after})
	}
	for name, before := range was.Parts {
		if _, there := out.Parts[name]; !there {
			c.Growths = append(c.Growths, Growth{name, before, 0})
		}
	}
	c.Growths = slices.DeleteFunc(c.Growths, func(g Growth) bool { return g.by() == 0 })
	slices.SortFunc(c.Growths, func(a, b Growth) int {
		return cmp.Or(cmp.Compare(max(b.by(), -b.by()), max(a.by(), -a.by())), cmp.Compare(a.Package, b.Package))
	})
	c.Growths = c.Growths[:min(len(c.Growths), maxGrowths)]
	return c
}

// Markdown gives the change as a section of at most about limit bytes.
func (c *Change) Markdown(limit int, o SummaryOptions) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\nAgainst %s: %s.\n\n", changeTitle, c.base(o), c.tally())
	limit -= b.Len()
	const longest = 120
	if len(c.Changed) > 0 {
		rows := make([]string, len(c.Changed))
		for i, t := range c.Changed {
			rows[i] = fmt.Sprintf("| %s | %s | %s |\n", text.Cell(t.Name, longest), t.sizes(), t.growths(func(name string) string { return text.Cell(name, longest/2) }))
		}
		b.WriteString("| Changed | Closure | What grew and shrank |\n|---|---|---|\n" + tableRows(rows, limit/2) + "\n")
	}
	for _, group := range []struct {
		what  string
		names []string
	}{{"Added", c.Added}, {"Removed", c.Removed}} {
		if len(group.names) == 0 {
			continue
		}
		names := make([]string, len(group.names))
		for i, name := range group.names {
			names[i] = text.Code(name, longest)
		}
		fmt.Fprintf(&b, "%s: %s\n\n", group.what, list(names, ", ", limit/4))
	}
	return b.String()
}

// tableRows are as many as fit into limit bytes, and one that says how many do not.
func tableRows(rows []string, limit int) string {
	var b strings.Builder
	for i, row := range rows {
		if b.Len()+len(row) > limit {
			fmt.Fprintf(&b, "| and %d more | | |\n", len(rows)-i)
			break
		}
		b.WriteString(row)
	}
	return b.String()
}

// tally is the change in numbers.
func (c *Change) tally() string {
	var parts []string
	for _, count := range []struct {
		n    int
		what string
	}{{len(c.Changed), "changed"}, {len(c.Added), "added"}, {len(c.Removed), "removed"}, {c.Unchanged, "unchanged"}} {
		if count.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count.n, count.what))
		}
	}
	line := cmp.Or(strings.Join(parts, ", "), "nothing is there")
	if c.Rebuild >= 0 {
		line += fmt.Sprintf("; %s to build that nobody had", text.Plural(c.Rebuild, "derivation"))
	}
	return line
}

// of names what it is compared with.
func (c *Change) of(name func(string) string) string {
	const short = 8
	line := name(cmp.Or(c.Branch, "the default branch"))
	if c.Commit != "" {
		line += " at " + name(start(c.Commit, short))
	}
	return line
}

func (c *Change) base(o SummaryOptions) string {
	line := c.of(func(name string) string { return text.Code(name, 100) })
	if o.owns(c.URL) {
		line = "[" + line + "](" + c.URL + ")"
	}
	return line
}

func (t *ChangedTarget) sizes() string {
	switch {
	case t.Broken:
		return "can't be evaluated any more"
	case t.Mended:
		return "can be evaluated again; " + size(t.After)
	case t.Before <= 0 || t.After <= 0:
		return size(t.After)
	}
	return fmt.Sprintf("%s → %s (%s)", size(t.Before), size(t.After), signed(t.After-t.Before))
}

func (t *ChangedTarget) growths(name func(string) string) string {
	var parts []string
	for _, g := range t.Growths {
		parts = append(parts, name(g.Package)+" "+signed(g.by()))
	}
	return cmp.Or(strings.Join(parts, ", "), text.None)
}

// signed is a difference of bytes.
func signed(bytes int64) string {
	switch {
	case bytes > 0:
		return "+" + text.Size(bytes)
	case bytes < 0:
		return "−" + text.Size(-bytes)
	}
	return "±0"
}
