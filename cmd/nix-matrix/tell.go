package main

import (
	"strings"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/build"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/text"
)

// announce logs the outcome of an entry in a line, and annotates the run's page with its failures.
func (a *app) announce(r *job.Result) {
	took := text.Duration(r.Finished.Sub(r.Started))
	if r.Outcome.OK() {
		a.log.Good("%s: %s, %s built in %s", r.Name, r.Outcome, text.Plural(len(r.Builds), "derivation"), took)
	} else {
		a.log.Bad("%s: %s after %s", r.Name, r.Outcome, took)
	}
	if r.Error != "" {
		a.action.Annotate(action.LevelError, r.Name, r.Error)
	}
	for i := range r.Targets {
		if t := &r.Targets[i]; t.Outcome == job.OutcomeFailed {
			a.action.AnnotateAt(action.LevelError, t.Attr, report.Failure(r, t), t.File, t.Line)
		}
	}
}

// explain logs the details of the failures of an entry.
func (a *app) explain(r *job.Result) {
	if lines := report.TimeLine(r); lines != "" {
		a.log.Printf("%s", lines)
	}
	if r.Error != "" {
		a.log.Printf("%s", indent(r.Error))
	}
	for i := range r.Targets {
		if t := &r.Targets[i]; !t.Outcome.OK() {
			a.log.Printf("%s", indent(t.Attr+": "+report.Failure(r, t)))
		}
	}
}

func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

// newResult returns the Result of an entry that this job builds.
func (a *app) newResult(e *job.Entry, plan string) *job.Result {
	return build.NewResult(e, plan, a.getenv("RUNNER_NAME"), a.action.JobURL())
}
