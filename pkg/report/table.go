package report

import (
	"cmp"
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
		switch cause := t.blockedBy(); {
		case t.unevaluated():
			r.outcome = "can't be evaluated"
		case t.stepFailed():
			r.outcome = postBuildFailed
		case t.stopped():
			r.outcome = "stopped at its deadline"
		case cause != "":
			r.outcome, r.because = "blocked", cmp.Or(oneLine(job.DrvName(cause)), none)+" failed"
		}
	case TargetMissing:
		r.outcome = "no result"
	default:
		r.outcome = string(t.Status)
	}
	if t.Emulated && t.Result != nil {
		r.outcome += ", emulated"
	}
	if t.skippedStep() != "" {
		r.outcome += ", post_build skipped"
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
