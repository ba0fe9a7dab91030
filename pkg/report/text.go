package report

import (
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// Text returns the verdict for a terminal or a log: a table of the targets, or of those that are
// not done if there are many, the failures, and the verdict in the last line. Foreign text in it
// starts no workflow command of GitHub Actions.
func Text(of *verdict.Verdict) string {
	v := view{of}
	var b strings.Builder
	v.textTable(&b)
	v.textCauses(&b, v.rootCauses(false))
	v.textCauses(&b, v.rootCauses(true))
	size := b.Len()
	for _, p := range v.Entries {
		fmt.Fprintf(&b, "error: %s\n", plain(cmp.Or(p.Name, p.Entry)))
		quote(&b, text.Lines(p.Message))
	}
	for _, p := range v.Jobs {
		fmt.Fprintf(&b, "job %s: %s\n", plain(p.Job), plain(string(p.Result)))
	}
	v.textShared(&b)
	v.textPushed(&b)
	v.textCost(&b)
	for _, r := range v.Ignored {
		fmt.Fprintf(&b, "ignored: the result of %s: %s\n", plain(cmp.Or(r.Name, r.Entry)), r.Why)
	}
	for _, notice := range v.notes(plain) {
		fmt.Fprintf(&b, "notice: %s\n", notice)
	}
	if b.Len() > size {
		b.WriteString("\n")
	}
	if v.Next != "" {
		fmt.Fprintf(&b, "%s\n\n", text.NoCommandsWithin(v.Next))
	}
	verdict := string(v.Status) + ": " + v.Reason
	if counts := v.counts(); counts != "" {
		verdict += " (" + strings.ReplaceAll(counts, " ·", ",") + ")"
	}
	return b.String() + verdict + "\n"
}

func (v view) textTable(b *strings.Builder) {
	const many = 100
	targets := v.HostsFirst()
	if len(targets) > many {
		targets = v.HostsFirst(verdict.TargetFailed, verdict.TargetMissing, verdict.TargetCancelled)
	}
	if len(targets) == 0 {
		return
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "OUTCOME\tTIME\tCLOSURE\tSYSTEM\tTARGET")
	for _, t := range targets {
		r := rowOf(t)
		because := plain(r.Because)
		if t.Status == verdict.TargetMissing || t.Status == verdict.TargetCancelled {
			because = t.Why
		}
		if because != "" {
			because = " (" + because + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s%s\n", r.Outcome, r.Time, r.Closure, cmp.Or(plain(r.System), text.None), cmp.Or(plain(r.Name), text.None), because)
	}
	_ = w.Flush() // a strings.Builder has no errors
	if done := len(v.Targets) - len(targets); done > 0 {
		fmt.Fprintf(b, "and %s\n", text.Plural(done, "more target is done", "more targets are done"))
	}
	b.WriteString("\n")
}

// textCauses writes the root causes, in short after the first many.
func (v view) textCauses(b *strings.Builder, causes []*rootCause) {
	const (
		many    = 20
		logTail = 10 // lines
	)
	for i, c := range causes {
		fmt.Fprintf(b, "✗ %s\n", c.headline(plain))
		for _, group := range c.affectedTargets() {
			if group.label != "" {
				fmt.Fprintf(b, "  %s: %s\n", group.label, text.NoCommandsWithin(text.Line(strings.Join(targetNames(group.all()), ", "))))
			}
		}
		if i >= many {
			continue
		}
		for _, line := range c.lines(logTail) {
			fmt.Fprintln(b, strings.TrimRight("  "+line, " "))
		}
		b.WriteString("\n")
	}
	if len(causes) > many {
		b.WriteString("\n")
	}
}

// lines returns the details of the root cause, with the last lines of its log, for a log or a terminal.
func (c *rootCause) lines(logTail int) []string {
	const (
		manyOthers = 100
		longText   = 4 << 10 // bytes
	)
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if c.drv != "" {
		add("derivation: %s", plain(c.drv))
	}
	if file, line := c.location(); file != "" {
		add("the log names: %s", plain(position(file, line)))
	}
	_, detail := c.statement()
	all = append(all, quoted(clipped(detail, longText, true))...)
	if log := c.log(); len(log) > 0 {
		add("the end of its log:")
		all = append(all, quoted(log[max(0, len(log)-logTail):])...)
	}
	if c.silent() {
		add("it printed nothing")
	}
	if len(c.further) > 0 {
		add("%s:", c.othersTitle())
		others := c.others(plain)
		for _, other := range others[:min(len(others), manyOthers)] {
			add("- %s", other)
		}
		if len(others) > manyOthers {
			add("- and %d more", len(others)-manyOthers)
		}
	}
	for _, command := range c.reproduce() {
		add("reproduce locally: %s", plain(command))
	}
	for _, where := range c.wholeLog() {
		add("its log: %s", plain(where))
	}
	return all
}

func quote(b *strings.Builder, all []string) {
	for _, l := range quoted(all) {
		fmt.Fprintln(b, "  "+l)
	}
}

// quoted returns lines of foreign text as a quotation in a log.
func quoted(all []string) []string {
	lines := make([]string, len(all))
	for i, l := range all {
		lines[i] = strings.TrimRight("| "+text.NoCommandsWithin(text.Clip(l, 2000)), " ")
	}
	return lines
}

// plain returns foreign text for the inside of a line.
func plain(s string) string { return text.NoCommandsWithin(text.Clip(text.Line(s), 2000)) }
