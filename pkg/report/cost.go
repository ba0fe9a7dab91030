package report

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/org/nix-matrix/internal/billing"
	"github.com/org/nix-matrix/pkg/text"
)

const costTitle = "Cost"

// costLines returns lines about the cost of a run and what it saved, none if that is unknown. They have no
// foreign text.
func (v view) costLines() []string {
	c := v.Cost
	if c == nil || len(c.Lines) == 0 {
		return nil
	}
	all := []string{billed(&c.Bill, c.Private)}
	if c.Untimed > 0 {
		all = append(all, text.Plural(c.Untimed, "job", "jobs")+" left no time, which is not in it")
	}
	if c.Skipped > 0 {
		all = append(all, "saved by skipping "+skippedTime(c.Skipped, c.SkippedUnknown, c.SkippedSeconds))
	}
	if c.ReusedSeconds > 0 {
		all = append(all, "saved by reuse: "+duration(c.ReusedSeconds)+" of builds, at least, whose outputs earlier runs have left")
	}
	if c.SharedSeconds > 0 {
		all = append(all, "saved by sharing: "+duration(c.SharedSeconds)+" of builds that jobs took from each other")
	}
	return all
}

// skippedTime returns the number of targets that are skipped, and the time that they took the last time.
func skippedTime(count, unknown int, seconds float64) string {
	targets := text.Plural(count, "target")
	switch {
	case seconds <= 0:
		return targets + ", whose times are unknown"
	case unknown > 0:
		return fmt.Sprintf("%s: %s, as the last time, and %d of unknown time", targets, duration(seconds), unknown)
	default:
		return fmt.Sprintf("%s: %s, as the last time", targets, duration(seconds))
	}
}

// billed returns the sum of a bill in a sentence. private is nil if it is unknown whether the repository is.
func billed(b *billing.Bill, private *bool) string {
	larger, unknown, own := 0., false, true
	for _, l := range b.Lines {
		if l.Larger {
			larger += l.Billed
		}
		unknown = unknown || l.Unknown
		own = own && l.Factor == 0
	}
	if own {
		return "GitHub bills nothing: all runners are your own"
	}
	are := func(minutes float64) string {
		if inShort(minutes) == "1" {
			return "1 minute is billed"
		}
		return inShort(minutes) + " minutes are billed"
	}
	var said string
	switch {
	case private == nil:
		said = are(b.Billed) + " if the repository is private"
	case *private:
		said = are(b.Billed)
	case larger == 0:
		said = inShort(b.Billed) + " min would be billed in a private repository; in a public one such as this, the runners are free"
	default:
		said = fmt.Sprintf("%s for larger runners; in a private repository, %s min would be", are(larger), inShort(b.Billed))
	}
	if unknown {
		said += ". Runners of unknown price count as one standard Linux runner each"
	}
	return said
}

// costMeasure says what the minutes are.
const costMeasure = "Billed are minutes of a standard Linux runner. Each job counts from its begin until nix-matrix ended, rounded up; " +
	"steps after that and earlier attempts are not in it."

// A costRow is a kind of runner in the table.
type costRow struct{ Runner, Jobs, Minutes, Factor, Billed string }

// costRows returns the kinds of runners of a bill.
func costRows(b *billing.Bill) []costRow {
	rows := make([]costRow, len(b.Lines))
	for i, l := range b.Lines {
		rows[i] = costRow{l.Runner, strconv.Itoa(l.Jobs), strconv.Itoa(l.Minutes), "× " + inShort(l.Factor), inShort(l.Billed)}
		if l.Unknown {
			rows[i].Factor = "unknown"
		}
	}
	return rows
}

// costSection returns the section about the cost, in at most limit bytes.
func (v view) costSection(limit int) string {
	lines := v.costLines()
	if len(lines) == 0 {
		return ""
	}
	for i := range lines {
		lines[i] = "- " + lines[i]
	}
	var rows []string
	for _, r := range costRows(&v.Cost.Bill) {
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s | %s |\n", r.Runner, r.Jobs, r.Minutes, r.Factor, r.Billed))
	}
	const header = "| Runner | Jobs | Minutes | Price | Billed |\n|---|--:|--:|--:|--:|\n"
	return bullets(costTitle, lines, limit/2) + folded("Minutes by runner", cutRows(header, rows, limit/4, "runner")+costMeasure+"\n\n")
}

// textCost writes the lines for a log.
func (v view) textCost(b *strings.Builder) {
	for _, line := range v.costLines() {
		fmt.Fprintln(b, line)
	}
}

// inShort returns a number with at most one digit behind the point.
func inShort(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
}

// costs returns the cost for a page; nil if it is unknown.
func (v view) costs() *pageCost {
	lines := v.costLines()
	if len(lines) == 0 {
		return nil
	}
	return &pageCost{lines, costRows(&v.Cost.Bill), costMeasure}
}

// A pageCost is the section about the cost of a page.
type pageCost struct {
	Lines   []string
	Rows    []costRow
	Measure string
}
