package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// A row of the table of targets, before it is written for somebody.
type row struct {
	name, system  string
	outcome       string // ours
	because       string // foreign
	time, closure string
	outPath       string
}

// row describes a target.
func (t *TargetVerdict) row() row {
	r := row{name: t.name(), system: t.Target.System, time: none, closure: none}
	switch t.Status {
	case TargetPresent:
		r.outcome = "in the store"
	case TargetSkipped:
		r.outcome, r.because = "skipped", t.Why
	case TargetFailed:
		r.outcome = "failed"
		if t.unevaluated() {
			r.outcome = "can't be evaluated"
		}
	case TargetMissing:
		r.outcome = "no result"
	default:
		r.outcome = string(t.Status)
	}
	if t.Emulated && t.Result != nil {
		r.outcome += ", emulated"
	}
	out := t.output()
	r.outPath, r.closure = out.Path, size(out.Closure)
	if t.Result != nil {
		r.time = duration(t.Result.Seconds)
	}
	return r
}

// output gives the output that stands for a target: "out", or else the first.
func (t *TargetVerdict) output() job.Output {
	if t.Result != nil && len(t.Result.Outputs) > 0 {
		outputs := t.Result.Outputs
		return outputs[max(0, slices.IndexFunc(outputs, func(o job.Output) bool { return o.Name == "out" }))]
	}
	if t.Status != TargetSkipped {
		return job.Output{}
	}
	for _, name := range append([]string{"out"}, slices.Sorted(maps.Keys(t.Target.OutPaths))...) {
		if path := t.Target.OutPaths[name]; path != "" {
			return job.Output{Name: name, Path: path}
		}
	}
	return job.Output{}
}

// tableFrame is what the table takes around its rows, in bytes.
const tableFrame = 400

// table shows all targets, or as many as fit with their rows into limit bytes.
func (v *Verdict) table(limit int) string {
	const (
		many   = 30
		header = "| Target | System | Outcome | Time | Closure | Output |\n|---|---|---|--:|--:|---|\n"
	)
	if len(v.Targets) == 0 {
		return ""
	}
	rows := make([]string, 0, len(v.Targets))
	for _, t := range v.hostsFirst() {
		r := t.row()
		outcome := r.outcome
		if t.Status == TargetFailed || t.Status == TargetMissing {
			outcome = "**" + outcome + "**"
		}
		if r.because != "" {
			outcome += ": " + cell(r.because, 200)
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s | %s | %s |\n", cell(r.name, 200), cell(r.system, 40), outcome, r.time, r.closure, cell(r.outPath, 300)))
	}
	text := cutRows(header, rows, limit, "target")
	if len(rows) > many {
		return folded(plural(len(rows), "target"), text)
	}
	return "### Targets\n\n" + text
}

// cutRows is a table of as many rows as fit into limit bytes, and the number of
// the others.
func cutRows(header string, rows []string, limit int, what string) string {
	shown, size := 0, 0
	for shown < len(rows) && size+len(rows[shown]) <= limit {
		size += len(rows[shown])
		shown++
	}
	text := ""
	if shown > 0 {
		text = header + strings.Join(rows[:shown], "") + "\n"
	}
	if left := len(rows) - shown; left > 0 {
		text += fmt.Sprintf("%s left out, since there are too many.\n\n", plural(left, "more "+what+" is", "more "+what+"s are"))
	}
	return text
}

// pushed shows what went to which binary cache, in about twice limit bytes.
func (v *Verdict) pushed(limit int) string {
	if len(v.Pushes) == 0 {
		return ""
	}
	type total struct {
		entries, paths, failed int
		seconds                float64
	}
	totals := map[string]*total{}
	var destinations, rows, errs []string
	for _, p := range v.Pushes {
		t := totals[p.Destination]
		if t == nil {
			t = &total{}
			totals[p.Destination] = t
			destinations = append(destinations, p.Destination)
		}
		t.entries++
		t.seconds += max(p.Seconds, 0)
		if p.Error != "" {
			t.failed++
			errs = append(errs, fmt.Sprintf("- %s to %s: %s", code(p.Entry, 200), code(p.Destination, 200), code(p.Error, 1000)))
			continue
		}
		t.paths += max(p.Paths, 0)
	}
	for _, d := range destinations {
		t := totals[d]
		failed := none
		if t.failed > 0 {
			failed = fmt.Sprintf("**%d**", t.failed)
		}
		rows = append(rows, fmt.Sprintf("| %s | %d | %d | %s | %s |\n", cell(d, 200), t.entries, t.paths, duration(t.seconds), failed))
	}
	const header = "| Binary cache | Entries | Paths | Time | Failed |\n|---|--:|--:|--:|--:|\n"
	text := "### Pushed\n\n" + cutRows(header, rows, limit, "binary cache")
	if len(errs) > 0 {
		text += list(errs, "\n", limit) + "\n\n"
	}
	return text
}
