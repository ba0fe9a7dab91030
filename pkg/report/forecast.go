package report

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// ForecastText returns the forecast of a Plan as tables for a terminal.
func ForecastText(f *plan.Forecast) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { fmt.Fprintln(w, text.NoCommands(fmt.Sprintf(format, args...))) }
	if len(f.Units) > 0 {
		line("UNIT\tTIME\tTO THE END\tFOR\tAFTER")
		for i := range f.Units {
			u := &f.Units[i]
			line("%d %s\t%s\t%s\t%s\t%s", i, text.Line(u.Name), took(u.Seconds), took(u.Tail), text.Plural(len(u.For), "entry", "entries"), numbers(u.After))
		}
		line("")
	}
	if len(f.Path) > 0 {
		line("CRITICAL PATH\tTIME")
		for i := range f.Path {
			line("%s\t%s", text.Line(f.Path[i].Name()), took(f.Path[i].Seconds))
		}
		line("all %d of it\t%s", len(f.Path), took(f.PathSeconds))
		line("all %s to build\t%s", text.Plural(f.Derivations, "derivation"), took(f.Work))
		line("")
	}
	line("JOBS AT ONCE\tTIME\tAT BEST\tRUNNER TIME\tOF WHICH WAITING\tBILLED MINUTES")
	for _, r := range f.Runners {
		line("%d\t%s\t%s\t%s\t%s\t%s", r.Runners, took(r.Makespan), took(r.Bound), took(r.Billed), took(r.Waited), inShort(r.Minutes))
	}
	if rows := costRows(&f.Bill); len(rows) > 0 {
		line("")
		line("RUNNER\tJOBS\tMINUTES\tPRICE\tBILLED")
		for _, r := range rows {
			line("%s\t%s\t%s\t%s\t%s", r.Runner, r.Jobs, r.Minutes, r.Factor, r.Billed)
		}
	}
	_ = w.Flush() // a strings.Builder has no errors
	for i, l := range forecastNotes(f) {
		if i == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintln(&b, l)
	}
	return b.String()
}

// forecastNotes returns lines about what the cost consists of, and what is saved.
func forecastNotes(f *plan.Forecast) []string {
	var all []string
	if len(f.Bill.Lines) > 0 {
		all = append(all, billed(&f.Bill, nil)+". Discovery and report come on top, with at least a minute each.")
		if f.Timed < f.Derivations {
			all = append(all, fmt.Sprintf("The times of %d of %s are known; each of the others counts as 10s.", f.Timed, text.Plural(f.Derivations, "derivation")))
		}
	}
	if f.Saved.Skipped > 0 {
		all = append(all, "Saved by skipping "+skippedTime(f.Saved.Skipped, f.Saved.SkippedUnknown, f.Saved.SkippedSeconds)+".")
	}
	if f.Saved.ReusedSeconds > 0 {
		all = append(all, "Saved by reuse: "+took(f.Saved.ReusedSeconds)+" of builds, at least, whose outputs earlier runs have left.")
	}
	if f.SharedSeconds > 0 {
		all = append(all, "Saved by sharing: "+took(f.SharedSeconds)+" of runner time, as jobs build for each other.")
	}
	return all
}

func took(seconds float64) string { return text.Duration(verdict.Seconds(seconds)) }

// numbers returns a few of the numbers of units.
func numbers(all []int) string {
	const most = 8
	words := make([]string, len(all))
	for i, n := range all {
		words[i] = fmt.Sprint(n)
	}
	return text.Some(words, most)
}

// ForecastMermaid returns the graph of units and entries as a Mermaid diagram. Mermaid draws at most 500 edges, so that of
// many units only those with the longest ways to the end are in it.
func ForecastMermaid(f *plan.Forecast) string {
	const mostUnits, mostEdges = 100, 480
	order := make([]int, len(f.Units))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(f.Units[b].Tail - f.Units[a].Tail) })
	shown := map[int]bool{}
	for _, i := range order[:min(mostUnits, len(order))] {
		shown[i] = true
	}
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	entries := map[int]bool{}
	edges := 0
	edge := func(from, to string) {
		if edges++; edges <= mostEdges {
			fmt.Fprintf(&b, "  %s --> %s\n", from, to)
		}
	}
	for i := range f.Units {
		u := &f.Units[i]
		if !shown[i] {
			continue
		}
		fmt.Fprintf(&b, "  u%d[\"%s<br>%s\"]\n", i, mermaidLabel(u.Name), took(u.Seconds))
		for _, before := range u.After {
			if shown[before] {
				edge(fmt.Sprint("u", before), fmt.Sprint("u", i))
			}
		}
		for _, e := range u.For {
			if !f.NeededBefore(i, e) {
				entries[e] = true
				edge(fmt.Sprint("u", i), fmt.Sprint("e", e))
			}
		}
	}
	for e, name := range f.Entries {
		if entries[e] {
			fmt.Fprintf(&b, "  e%d([\"%s\"])\n", e, mermaidLabel(name))
		}
	}
	if hidden := len(f.Units) - len(shown); hidden > 0 {
		fmt.Fprintf(&b, "  more[\"and %s\"]\n", text.Plural(hidden, "unit"))
	}
	return b.String()
}
