package report

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// An Annotation is a message on the page of the run. Title and Message are foreign text without
// control characters, except for newlines in the Message.
type Annotation struct {
	Level   string // "error", "warning" or "notice": the name of the workflow command
	Title   string
	Message string
	// File and Line are the position in the repository, if known, as in [job.TargetResult]:
	// File is foreign text without control characters.
	File string
	Line int
}

// maxAnnotations is the most annotations of a level that GitHub shows for a step.
const maxAnnotations = 10

// Annotations returns the verdict's annotations, the most important first: the root causes, then
// errors outside of targets, and targets without a result. There are at most ten of each level;
// if there were more, the last one has their number.
func Annotations(of *verdict.Verdict) []Annotation {
	v := view{of}
	var errs, warnings, infos []Annotation
	if v.Status == verdict.Failure && v.Next != "" {
		errs = append(errs, Annotation{Title: "nix-matrix", Message: v.Reason + "\n" + v.Next})
	}
	for _, evaluation := range []bool{false, true} {
		for _, c := range v.rootCauses(evaluation) {
			errs = append(errs, c.annotation())
		}
	}
	for _, p := range v.Entries {
		if p.Status == verdict.Failure {
			errs = append(errs, Annotation{Title: text.Line(cmp.Or(p.Name, p.Entry)), Message: strings.Join(text.Lines(p.Message), "\n")})
		}
	}
	if missing := v.HostsFirst(verdict.TargetMissing); len(missing) > 0 {
		errs = append(errs, Annotation{Title: text.Plural(len(missing), "target") + " without a result", Message: nameLine(missing)})
	}
	if v.Status == verdict.Failure && len(errs) == 0 {
		errs = append(errs, Annotation{Title: "nix-matrix", Message: v.Reason})
	}
	if v.Cancelled {
		warnings = append(warnings, Annotation{Title: "Cancelled", Message: v.Reason})
	}
	warnings = append(warnings, v.optionalFailures()...)
	for _, r := range v.Ignored {
		warnings = append(warnings, Annotation{Title: "A result does not count", Message: text.Line(cmp.Or(r.Name, r.Entry)) + ": " + r.Why})
	}
	for _, notice := range notices(v.Notices, v.Emulated) {
		infos = append(infos, Annotation{Title: "nix-matrix", Message: text.Line(notice)})
	}
	return append(append(atLevel("error", errs), atLevel("warning", warnings)...), atLevel("notice", infos)...)
}

// nameLine returns the names of targets, in one line.
func nameLine(targets []*verdict.Target) string {
	const longest = 1000
	names := targetNames(targets)
	for i := range names {
		names[i] = text.Line(names[i])
	}
	return list(names, ", ", longest)
}

func (c *rootCause) annotation() Annotation {
	const logTail = 10
	var a Annotation
	a.File, a.Line = c.location()
	a.Title = c.title()
	message := []string{c.headline(func(s string) string { return s })}
	for _, group := range c.affectedTargets() {
		if group.label != "" && (len(c.targets)+len(c.alsoBlocked) > 1 || group.label == blockedByIt) {
			message = append(message, group.label+": "+nameLine(group.all()))
		}
	}
	_, detail := c.statement()
	log := c.log()
	message = append(append(message, detail...), log[max(0, len(log)-logTail):]...)
	if c.silent() {
		message = append(message, printedNothing)
	}
	if others := c.others(text.Line); len(others) > 0 {
		message = append(message, c.othersTitle()+": "+list(others, "; ", 1000))
	}
	for _, command := range c.reproduce()[:min(1, len(c.reproduce()))] {
		message = append(message, "Reproduce locally: "+command)
	}
	for _, where := range c.wholeLog() {
		message = append(message, "Its log: "+where)
	}
	a.Message = strings.Join(message, "\n")
	return a
}

// title returns the name of the failure, and the targets that it blocks.
func (c *rootCause) title() string {
	title := text.Plural(len(c.targets), "target")
	if name := c.name(); name != "" {
		title = name
	}
	blocked := ""
	for _, group := range c.affectedTargets() {
		all := group.all()
		first := text.Line(all[0].Name())
		switch {
		case group.label != blockedByIt:
			if c.drv != "" && len(all) == 1 {
				title = first // people know it better than its derivation
			}
		case len(all) == 1:
			blocked = " and blocks " + first
		default:
			blocked = " and blocks " + text.Plural(len(all), "target")
		}
	}
	return title + c.outcome() + blocked
}

// atLevel returns all annotations of a level, or as many as GitHub shows.
func atLevel(level string, all []Annotation) []Annotation {
	const longest = 4000
	if left := len(all) - maxAnnotations + 1; left > 1 {
		all = append(all[:maxAnnotations-1], Annotation{Title: "nix-matrix", Message: fmt.Sprintf("%d more are in the summary of this job", left)})
	}
	for i := range all {
		all[i].Level = level
		all[i].Title = text.Clip(all[i].Title, 200)
		all[i].Message = cmp.Or(text.Clip(all[i].Message, longest), all[i].Title)
	}
	return all
}
