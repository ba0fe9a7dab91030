package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// bars returns the entries that took longest, at most so many, in the order of their start, and
// the number of the others. It returns none for a single entry.
func (v view) bars(most int) (bars []verdict.Work, left int) {
	for _, w := range v.Work {
		if w.Seconds > 0 {
			bars = append(bars, w)
		}
	}
	if len(bars) < 2 {
		return nil, 0
	}
	left = max(0, len(bars)-most)
	slices.SortStableFunc(bars, func(a, b verdict.Work) int { return cmp.Compare(b.Seconds, a.Seconds) })
	bars = bars[:len(bars)-left]
	slices.SortStableFunc(bars, func(a, b verdict.Work) int { return cmp.Compare(a.Start, b.Start) })
	return bars, left
}

// mark returns the sign for the outcome of an entry.
func mark(w verdict.Work) string {
	switch {
	case w.Outcome.OK():
		return "✓"
	case w.Outcome == job.OutcomeCancelled:
		return "○"
	default:
		return "✗"
	}
}

// gantt returns the times of the entries as a Mermaid diagram of at most limit bytes. Its axis
// counts from the start of the first entry.
func (v view) gantt(limit int) string {
	const (
		most  = 30
		bar   = 150 // bytes of one, at most
		frame = 300
	)
	bars, left := v.bars(max(0, min(most, (limit-frame)/bar)))
	if len(bars) == 0 {
		return ""
	}
	// Mermaid reads and shows local times: this is midnight everywhere.
	midnight := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	axis := "%M:%S"
	switch {
	case v.Seconds > 24*60*60:
		axis = "day %-d, %H:%M"
	case v.Seconds > 60*60:
		axis = "%H:%M"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "### Time line\n\n```mermaid\ngantt\n    dateFormat YYYY-MM-DD HH:mm:ss\n    axisFormat %s\n", axis)
	for _, w := range bars {
		tag := "done"
		switch w.Outcome {
		case job.OutcomeBuilt:
			tag = "active"
		case job.OutcomeFailed:
			tag = "crit"
		}
		// With the mark at the front, a name is no keyword of Mermaid.
		fmt.Fprintf(&b, "    %s %s, %s :%s, %s, %ds\n", mark(w), mermaidLabel(w.Entry), text.Duration(verdict.Seconds(w.Seconds)),
			tag, midnight.Add(verdict.Seconds(w.Start)).Format(time.DateTime), max(1, int(verdict.Seconds(w.Seconds).Seconds())))
	}
	b.WriteString("```\n\n")
	if left > 0 {
		fmt.Fprintf(&b, "And %s.\n\n", text.Plural(left, "entry that took less", "entries that took less"))
	}
	return b.String()
}

// mermaidLabel returns foreign text as a label for Mermaid, in quotes or not, with only letters, digits and
// a few other characters, which have no meaning.
func mermaidLabel(s string) string {
	const longest = 48
	return text.ClipName(strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(" ._-+/@", r) {
			return r
		}
		return '_'
	}, text.Line(s)), longest)
}
