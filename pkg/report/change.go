package report

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

const changeTitle = "Changes"

// A change shows the difference from another run.
type change struct{ *verdict.Change }

// markdown returns the change as a section of at most about limit bytes.
func (c change) markdown(limit int, o SummaryOptions) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\nCompared with %s: %s.\n\n", changeTitle, c.baseLink(o), c.counts())
	limit -= b.Len()
	const longest = 120
	if len(c.Changed) > 0 {
		rows := make([]string, len(c.Changed))
		for i, t := range c.Changed {
			rows[i] = fmt.Sprintf("| %s | %s | %s |\n", text.EscapePipes(text.CodeName(t.Name, longest)), sizes(t), growths(t, func(name string) string { return text.EscapePipes(text.CodeName(name, longest/2)) }))
		}
		b.WriteString("| Changed | Closure | Size differences |\n|---|---|---|\n" + tableRows(rows, limit/2) + "\n")
	}
	b.WriteString(c.addedAndRemoved(limit))
	return b.String()
}

// addedAndRemoved returns the names of the targets that are new and of those that are gone.
func (c change) addedAndRemoved(limit int) string {
	const longest = 120
	var b strings.Builder
	for _, group := range []struct {
		what  string
		names []string
	}{{"Added", c.Added}, {"Removed", c.Removed}} {
		if len(group.names) == 0 {
			continue
		}
		names := make([]string, len(group.names))
		for i, name := range group.names {
			names[i] = text.CodeName(name, longest)
		}
		fmt.Fprintf(&b, "%s: %s\n\n", group.what, list(names, ", ", limit/4))
	}
	return b.String()
}

// tableRows returns as many rows as fit into limit bytes, and a row with the number of the
// others.
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

// counts returns the numbers of the change.
func (c change) counts() string {
	var parts []string
	for _, count := range []struct {
		n    int
		what string
	}{{len(c.Changed), "changed"}, {len(c.Added), "added"}, {len(c.Removed), "removed"}, {c.Unchanged, "unchanged"}} {
		if count.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count.n, count.what))
		}
	}
	line := cmp.Or(strings.Join(parts, ", "), "no targets")
	if c.Rebuild >= 0 {
		line += fmt.Sprintf("; %s to build", text.Plural(c.Rebuild, "missing derivation"))
	}
	return line
}

// baseName returns the branch and the commit of the other run.
func (c change) baseName(name func(string) string) string {
	const short = 8
	line := name(cmp.Or(c.Branch, "the default branch"))
	if c.Commit != "" {
		line += " at " + name(start(c.Commit, short))
	}
	return line
}

func (c change) baseLink(o SummaryOptions) string {
	line := c.baseName(func(name string) string { return text.Code(name, 100) })
	if o.owns(c.URL) {
		line = "[" + line + "](" + c.URL + ")"
	}
	return line
}

func sizes(t verdict.ChangedTarget) string {
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

func growths(t verdict.ChangedTarget, name func(string) string) string {
	var parts []string
	for _, g := range t.Growths {
		parts = append(parts, name(g.Package)+" "+signed(g.By()))
	}
	return cmp.Or(strings.Join(parts, ", "), text.None)
}

// signed returns a difference of bytes with its sign.
func signed(bytes int64) string {
	switch {
	case bytes > 0:
		return "+" + text.Size(bytes)
	case bytes < 0:
		return "−" + text.Size(-bytes)
	}
	return "±0"
}
