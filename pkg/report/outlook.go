package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// An Outlook shows a Plan in a few lines, before anything is built. No line has characters that
// control a terminal, or a workflow command that works anywhere in a line; those of Failed begin
// with foreign text.
type Outlook struct {
	Counts  []string // a table of the numbers of targets
	Failed  []string // causes for which targets cannot be evaluated, each in several lines
	Skipped []string // targets that are skipped, and why
	Entries []string // entries with their targets
	Total   string
}

// Limits of an Outlook. The Plan has all.
const (
	mostSkipped = 20  // lines
	mostEntries = 60  // lines
	mostNames   = 20  // in a line
	ownLine     = 3   // targets skipped for the same reason with a line each
	logWidth    = 180 // columns of a log
	longestName = 100 // bytes
)

// NewOutlook returns the outlook of a Plan for a terminal of so many columns, to which it fits
// lists of names; 0 is a log.
func NewOutlook(p *job.Plan, width int) Outlook {
	width = cmp.Or(width, logWidth)
	o := Outlook{Total: total(p)}
	if len(p.Targets) > 1 {
		var table strings.Builder
		w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "KIND\tSYSTEM\tBUILD\tSKIPPED\tFAILED\tENTRIES")
		for _, c := range countTargets(p) {
			fmt.Fprintf(w, "%s\t%s\t%5d\t%7d\t%6d\t%7d\n", c.kind, cmp.Or(inlineText(c.system, longestName), text.None), c.build, c.skipped, c.failed, len(c.entries))
		}
		_ = w.Flush() // a strings.Builder has no errors
		o.Counts = strings.Split(strings.TrimSuffix(table.String(), "\n"), "\n")
	}
	o.Failed = failedToEvaluate(p).causeLines()
	for _, g := range skippedGroups(p) {
		reason := inlineText(g.reason, 300)
		if len(g.names) <= ownLine {
			for _, name := range g.names {
				o.Skipped = append(o.Skipped, fmt.Sprintf("  skip   %s: %s", shownName(name), reason))
			}
			continue
		}
		o.Skipped = append(o.Skipped, fitNames(fmt.Sprintf("  skip   %d, %s: ", len(g.names), reason), g.names, width))
	}
	o.Skipped = firstLines(o.Skipped, mostSkipped, "  ")
	for i := range p.Entries {
		e := &p.Entries[i]
		verb := "build"
		if e.Helper {
			verb = "help "
		}
		about := append([]string{cmp.Or(inlineText(e.System, longestName), text.None)}, entryNotes(p, e)...)
		line := fmt.Sprintf("  %s  %s (%s)", verb, shownName(e.Name), strings.Join(about, ", "))
		if names := entryNames(p, e); len(names) > 0 {
			line = fitNames(line+": ", names, width)
		}
		o.Entries = append(o.Entries, line)
	}
	o.Entries = firstLines(o.Entries, mostEntries, "  ")
	return o
}

// OutlookMarkdown returns the outlook as Markdown of at most limit bytes, but at least 4 KiB.
func OutlookMarkdown(p *job.Plan, limit int) string {
	limit = max(limit, 4<<10) - 1<<10 // for headings
	var b strings.Builder
	fmt.Fprintf(&b, "## nix-matrix: %s\n\n", total(p))
	var counts, entries []string
	for _, c := range countTargets(p) {
		counts = append(counts, fmt.Sprintf("| %s | %s | %d | %d | %d | %d |\n", c.kind, text.Cell(c.system, 40), c.build, c.skipped, c.failed, len(c.entries)))
	}
	b.WriteString(cutRows("| Kind | System | Build | Skipped | Failed | Entries |\n|---|---|--:|--:|--:|--:|\n", counts, limit/8, "kind"))
	b.WriteString(failedToEvaluate(p).causeSection(limit * 3 / 8))
	var skipped []string
	for _, g := range skippedGroups(p) {
		skipped = append(skipped, fmt.Sprintf("- %s: %s", text.Code(g.reason, 300), markdownNames(g.names)))
	}
	if len(skipped) > 0 {
		b.WriteString(folded(text.Plural(count(p, job.StateSkip), "target")+" skipped", list(skipped, "\n", limit/4)+"\n\n"))
	}
	for i := range p.Entries {
		e := &p.Entries[i]
		names := markdownNames(entryNames(p, e))
		if e.Helper {
			names = "none: it builds parts for the others"
		}
		entries = append(entries, fmt.Sprintf("| %s | %s | %s | %s |\n", text.EscapePipes(text.CodeName(e.Name, 200)), text.Cell(e.System, 40), strings.Join(entryNotes(p, e), ", "), text.EscapePipes(names)))
	}
	if len(entries) > 0 {
		b.WriteString(folded(text.Plural(len(entries), "entry", "entries"), cutRows("| Entry | System | Notes | Targets |\n|---|---|---|---|\n", entries, limit/4, "entry")))
	}
	return b.String()
}

// total returns the Plan in a line.
func total(p *job.Plan) string {
	helpers := 0
	for i := range p.Entries {
		if p.Entries[i].Helper {
			helpers++
		}
	}
	in := text.Plural(len(p.Entries)-helpers, "entry", "entries")
	if helpers > 0 {
		in += " with " + text.Plural(helpers, "helper")
	}
	return fmt.Sprintf("%d to build in %s, %d skipped, %d failed to evaluate", count(p, job.StateBuild), in, count(p, job.StateSkip), count(p, job.StateFailed))
}

func count(p *job.Plan, state job.State) int {
	n := 0
	for i := range p.Targets {
		if p.Targets[i].State == state {
			n++
		}
	}
	return n
}

// targetCounts are the targets of a kind and a system.
type targetCounts struct {
	kind                   job.Kind
	system                 string // foreign
	build, skipped, failed int
	entries                map[int]bool
}

var kinds = []job.Kind{job.NixOS, job.Darwin, job.Home, job.Package, job.Check, job.Other}

func countTargets(p *job.Plan) []*targetCounts {
	var all []*targetCounts
	of := make([]*targetCounts, len(p.Targets))
	for n := range p.Targets {
		t := &p.Targets[n]
		i := slices.IndexFunc(all, func(c *targetCounts) bool { return c.kind == t.Kind && c.system == t.System })
		if i < 0 {
			i = len(all)
			all = append(all, &targetCounts{kind: t.Kind, system: t.System, entries: map[int]bool{}})
		}
		of[n] = all[i]
		switch t.State {
		case job.StateBuild:
			of[n].build++
		case job.StateSkip:
			of[n].skipped++
		case job.StateFailed:
			of[n].failed++
		}
	}
	for i := range p.Entries {
		for _, ref := range p.Entries[i].Targets {
			of[ref.N].entries[i] = true
		}
	}
	slices.SortStableFunc(all, func(a, b *targetCounts) int {
		return cmp.Compare(slices.Index(kinds, a.kind), slices.Index(kinds, b.kind))
	})
	return all
}

// A skippedGroup is a group of targets that are skipped for the same reason.
type skippedGroup struct {
	reason string
	names  []string
}

// skippedGroups returns the groups of skipped targets, the largest first.
func skippedGroups(p *job.Plan) []skippedGroup {
	var groups []skippedGroup
	at := map[string]int{}
	for i := range p.Targets {
		t := &p.Targets[i]
		if t.State != job.StateSkip {
			continue
		}
		n, ok := at[t.Reason]
		if !ok {
			n = len(groups)
			at[t.Reason] = n
			groups = append(groups, skippedGroup{reason: t.Reason})
		}
		groups[n].names = append(groups[n].names, cmp.Or(t.Name, t.Attr))
	}
	slices.SortStableFunc(groups, func(a, b skippedGroup) int { return cmp.Compare(len(b.names), len(a.names)) })
	return groups
}

// entryNotes returns whether an entry is emulated, and its duration the last time.
func entryNotes(p *job.Plan, e *job.Entry) []string {
	var all []string
	if e.QEMU {
		all = append(all, "emulated")
	}
	if e.Timeout > 0 {
		all = append(all, "at most "+duration(float64(e.Timeout)))
	}
	if took := p.Took[e.ID]; took.Seconds > 0 {
		note := "last time " + duration(took.Seconds)
		if took.Fetched > 0 {
			note += " and " + size(took.Fetched) + " fetched"
		}
		all = append(all, note)
	}
	return all
}

// entryNames returns the names of an entry's targets, none if it has the name of its only target.
func entryNames(p *job.Plan, e *job.Entry) []string {
	var all []string
	for _, ref := range e.Targets {
		all = append(all, cmp.Or(p.Targets[ref.N].Name, p.Targets[ref.N].Attr))
	}
	if len(all) == 1 && all[0] == e.Name {
		return nil
	}
	return all
}

// inlineText returns foreign text for the inside of a line, of at most limit bytes.
func inlineText(s string, limit int) string {
	return text.NoCommandsWithin(text.Clip(text.Line(s), limit))
}

func shownName(name string) string {
	return cmp.Or(text.NoCommandsWithin(text.ClipName(text.Line(name), longestName)), text.None)
}

// fitNames adds as many names as fit into so many columns to a line, but at least one.
func fitNames(line string, names []string, width int) string {
	const more = len(" and 1234 more")
	columns := len([]rune(line))
	for i, name := range names {
		name = shownName(name)
		if i > 0 {
			name = ", " + name
		}
		columns += len([]rune(name))
		last := i == len(names)-1
		if i > 0 && (i >= mostNames || columns > width || !last && columns > width-more) {
			return fmt.Sprintf("%s and %d more", line, len(names)-i)
		}
		line += name
	}
	return line
}

// firstLines returns the first lines, and the number of the others.
func firstLines(all []string, most int, indent string) []string {
	if len(all) <= most {
		return all
	}
	return append(slices.Clone(all[:most]), fmt.Sprintf("%sand %d more", indent, len(all)-most))
}

func markdownNames(names []string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = text.CodeName(name, longestName)
	}
	return text.Some(all, mostNames)
}
