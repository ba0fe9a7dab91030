package report

import (
	"fmt"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// ResultLine returns the outcome of an entry in a line.
func ResultLine(r *job.Result) string {
	took := text.Duration(r.Finished.Sub(r.Started))
	if r.Outcome.OK() && len(r.Targets) == 0 { // a helper's
		return fmt.Sprintf("%s: %s built in %s", r.Name, text.Plural(len(r.Builds), "derivation"), took)
	}
	if r.Outcome.OK() {
		return fmt.Sprintf("%s: %s, %s built in %s", r.Name, r.Outcome, text.Plural(len(r.Builds), "derivation"), took)
	}
	return fmt.Sprintf("%s: %s after %s", r.Name, r.Outcome, took)
}

// ResultDetails returns paragraphs about an entry for the end of its log: the builds over time, and the
// failures, whose logs are above. In a job, the log has the annotations too: annotated says so. All of it
// is foreign text.
func ResultDetails(r *job.Result, annotated bool) []string {
	indent := func(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }
	var all []string
	if lines := timeLine(r); lines != "" {
		all = append(all, lines)
	}
	if r.Error != "" && !annotated {
		all = append(all, indent(r.Error))
	}
	for i := range r.Targets {
		if t := &r.Targets[i]; !t.Outcome.OK() && (!annotated || t.Outcome != job.OutcomeFailed) {
			all = append(all, indent(t.Attr+": "+targetFailure(r, t, false)))
		}
	}
	for _, t := range helperFailures(r) {
		if !annotated {
			all = append(all, indent(targetFailure(r, &t, false)))
		}
	}
	return all
}

// helperFailures returns the failures of a helper, which has no targets, as if each were a target.
func helperFailures(r *job.Result) []job.TargetResult {
	if len(r.Targets) > 0 {
		return nil
	}
	all := make([]job.TargetResult, len(r.Failures))
	for i, f := range r.Failures {
		all[i] = job.TargetResult{Attr: job.DrvName(f.DrvPath), Error: f.Error, Log: f.Log, Cause: f.DrvPath, File: f.File, Line: f.Line}
	}
	return all
}

// ResultAnnotations returns an annotation for each failure of an entry, with foreign text as in the Result.
// The first about a derivation has the end of its log.
func ResultAnnotations(r *job.Result) []Annotation {
	var all []Annotation
	if r.Error != "" {
		all = append(all, Annotation{Level: "error", Title: r.Name, Message: r.Error})
	}
	logged := map[string]bool{} // by the derivation that failed
	for i := range r.Targets {
		if t := &r.Targets[i]; t.Outcome == job.OutcomeFailed {
			all = append(all, Annotation{Level: "error", Title: t.Attr, Message: targetFailure(r, t, !logged[t.Cause]), File: t.File, Line: t.Line})
			logged[t.Cause] = true
		}
	}
	for _, t := range helperFailures(r) {
		all = append(all, Annotation{Level: "error", Title: t.Attr, Message: targetFailure(r, &t, true), File: t.File, Line: t.Line})
	}
	return all
}
