package report

import (
	"fmt"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

const sharedTitle = "Built once"

// sharedLines returns lines about the work that jobs did for each other, none if there is none. quote
// makes foreign text safe.
func (v view) sharedLines(quote func(string) string) []string {
	s := v.Shared
	if s == nil {
		return nil
	}
	var built, taken int
	var read int64
	for _, u := range s.Units {
		if !u.Failed {
			built += min(len(u.By), 1)
		}
		taken += len(u.Taken)
		read += u.Bytes
	}
	if built+taken == 0 {
		return nil
	}
	all := []string{fmt.Sprintf("%s built for all jobs and taken %s by others", text.Plural(built, "unit of derivations was", "units of derivations were"), text.Plural(taken, "time"))}
	if read > 0 { // not in one store
		all[0] += fmt.Sprintf(", %s read", size(read))
	}
	if s.UniqueSeconds > 0 {
		all = append(all, fmt.Sprintf("%s of builds, %s if each derivation counts once (%.2f×)", duration(s.BuildSeconds), duration(s.UniqueSeconds), s.BuildSeconds/s.UniqueSeconds))
	}
	if waited := verdict.Seconds(s.Waited); waited > 0 {
		all = append(all, "jobs waited "+text.Duration(waited)+" for units, all together")
	}
	if len(s.Chain) > 1 {
		const most = 5
		chain := s.Chain
		if more := len(chain) - most; more > 0 {
			chain = append([]string{fmt.Sprintf("%d more", more)}, chain[more:]...)
		}
		names := make([]string, len(chain))
		for i, name := range chain {
			names[i] = quote(name)
		}
		all = append(all, fmt.Sprintf("the longest chain took %s: %s", duration(s.ChainSeconds), strings.Join(names, " → ")))
	}
	return all
}

// A sharedRow is a unit in the table.
type sharedRow struct{ Name, Took, By, Taken string }

// sharedRows returns the units that some job had. quote makes foreign text safe.
func (v view) sharedRows(quote func(string) string) []sharedRow {
	if v.Shared == nil {
		return nil
	}
	names := func(entries []string) string {
		if len(entries) == 0 {
			return text.None
		}
		const most = 3
		return quote(text.Some(entries, most))
	}
	var rows []sharedRow
	for _, u := range v.Shared.Units {
		if len(u.By)+len(u.Taken) == 0 {
			continue
		}
		r := sharedRow{Name: quote(u.Name), Took: duration(u.Seconds), By: names(u.By), Taken: names(u.Taken)}
		if u.Failed {
			r.Took = "failed"
		}
		rows = append(rows, r)
	}
	return rows
}

// sharedSection returns the section about the work that jobs did for each other, in about twice
// limit bytes.
func (v view) sharedSection(limit int) string {
	lines := v.sharedLines(func(s string) string { return text.Code(s, 100) })
	if len(lines) == 0 {
		return ""
	}
	for i := range lines {
		lines[i] = "- " + lines[i]
	}
	var rows []string
	for _, r := range v.sharedRows(func(s string) string { return text.Cell(s, 200) }) {
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s |\n", r.Name, r.Took, r.By, r.Taken))
	}
	const header = "| Unit | Time | Built by | Taken by |\n|---|--:|---|---|\n"
	return bullets(sharedTitle, lines, limit) + folded(text.Plural(len(rows), "unit"), cutRows(header, rows, limit, "unit"))
}

// textShared writes the lines for a log.
func (v view) textShared(b *strings.Builder) {
	for _, line := range v.sharedLines(plain) {
		fmt.Fprintln(b, line)
	}
}
