package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// A row of the table of targets, in any format.
type row struct {
	Entry, Name   string
	System        string
	Status        verdict.TargetStatus
	Outcome       string // ours
	Because       string // foreign
	Time, Closure string
	Caches        string // foreign
	OutPath       string
}

// rows returns the rows of all targets, each with the binary caches that it was pushed to.
func (v view) rows() []row {
	went := map[string][]string{}
	for _, p := range v.Pushes {
		if p.Error == "" && !slices.Contains(went[p.Entry], p.Destination) {
			went[p.Entry] = append(went[p.Entry], p.Destination)
		}
	}
	rows := make([]row, 0, len(v.Targets))
	for _, t := range v.HostsFirst() {
		r := rowOf(t)
		if t.Result != nil && t.Result.Outcome.OK() {
			r.Caches = strings.Join(went[t.Entry], ", ")
		}
		rows = append(rows, r)
	}
	return rows
}

// rowOf returns the row of a target.
func rowOf(t *verdict.Target) row {
	r := row{Entry: t.Entry, Name: t.Name(), System: t.Target.System, Status: t.Status, Time: text.None, Closure: text.None}
	switch t.Status {
	case verdict.TargetPresent:
		r.Outcome = "in the store"
	case verdict.TargetSkipped:
		r.Outcome, r.Because = "skipped", t.Why
	case verdict.TargetFailed:
		r.Outcome = "failed"
		switch cause := t.BlockedBy(); {
		case t.Unevaluated():
			r.Outcome = "can't be evaluated"
		case t.StepFailed():
			r.Outcome = postBuildFailed
		case t.TimedOut:
			r.Outcome = "stopped at its deadline"
		case cause != "":
			r.Outcome, r.Because = "blocked", cmp.Or(text.Line(job.DrvName(cause)), text.None)+" failed"
			if more := len(t.Result.Causes) - 1; more > 0 {
				r.Because += fmt.Sprintf(", and %d more", more)
			}
		}
	case verdict.TargetMissing:
		r.Outcome = "no result"
	default:
		r.Outcome = string(t.Status)
	}
	if t.Emulated {
		r.Outcome += ", emulated"
	}
	if skippedStep(t) != "" {
		r.Outcome += ", post_build skipped"
	}
	out := t.Output()
	r.OutPath, r.Closure = out.Path, size(out.Closure)
	if t.Result != nil {
		r.Time = duration(t.Result.Seconds)
	}
	return r
}

// tableFrame is the size of the table without its rows, in bytes.
const tableFrame = 400

// table returns the table of all targets, or of as many as fit into limit bytes.
func (v view) table(limit int, l map[string]string) string {
	const (
		many   = 30
		header = "| Target | System | Outcome | Time | Closure | Binary cache |\n|---|---|---|--:|--:|---|\n"
	)
	if len(v.Targets) == 0 {
		return ""
	}
	rows := make([]string, 0, len(v.Targets))
	for _, r := range v.rows() {
		outcome := r.Outcome
		if r.Status == verdict.TargetFailed || r.Status == verdict.TargetMissing {
			outcome = "**" + outcome + "**"
			if address := l[r.Entry]; address != "" {
				outcome = "[" + outcome + "](" + address + ")"
			}
		}
		if r.Because != "" {
			outcome += ": " + text.Cell(r.Because, 200)
		}
		name := text.EscapePipes(text.CodeName(r.Name, 200))
		if r.OutPath != "" {
			name += "<br>" + text.Cell(r.OutPath, 300)
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s | %s | %s |\n", name, text.Cell(r.System, 40), outcome, r.Time, r.Closure, text.Cell(r.Caches, 200)))
	}
	md := cutRows(header, rows, limit, "target")
	if len(rows) > many {
		return folded(text.Plural(len(rows), "target"), md)
	}
	return "### Targets\n\n" + md
}

// cutRows returns a table of as many rows as fit into limit bytes, and the number of
// the others.
func cutRows(header string, rows []string, limit int, what string) string {
	shown, size := 0, 0
	for shown < len(rows) && size+len(rows[shown]) <= limit {
		size += len(rows[shown])
		shown++
	}
	md := ""
	if shown > 0 {
		md = header + strings.Join(rows[:shown], "") + "\n"
	}
	if left := len(rows) - shown; left > 0 {
		md += fmt.Sprintf("%s left out, because there are too many.\n\n", text.Plural(left, "more "+what+" is", "more "+what+"s are"))
	}
	return md
}
