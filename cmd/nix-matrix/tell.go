package main

import (
	"fmt"
	"strings"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/build"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/text"
)

// announce shows in a line what became of an entry, and puts what went wrong on
// the run's page.
func (a *app) announce(r *job.Result) {
	took := job.Duration(r.Finished.Sub(r.Started))
	if r.Outcome.OK() {
		a.log.Good("%s: %s, %d %s built in %s", r.Name, r.Outcome, len(r.Builds), text.Noun(len(r.Builds), "derivation", "derivations"), took)
	} else {
		a.log.Bad("%s: %s after %s", r.Name, r.Outcome, took)
	}
	if r.Error != "" {
		a.action.Annotate(action.LevelError, r.Name, r.Error)
	}
	for i := range r.Targets {
		if t := &r.Targets[i]; t.Outcome == job.Broken {
			a.action.AnnotateAt(action.LevelError, t.Attr, failure(r, t), t.File, t.Line)
		}
	}
}

// explain shows all that is known of what went wrong in an entry.
func (a *app) explain(r *job.Result) {
	if lines := report.TimeLine(r); lines != "" {
		a.log.Printf("%s", lines)
	}
	if r.Error != "" {
		a.log.Printf("%s", indent(r.Error))
	}
	for i := range r.Targets {
		if t := &r.Targets[i]; !t.Outcome.OK() {
			a.log.Printf("%s", indent(t.Attr+": "+failure(r, t)))
		}
	}
}

func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

// failure says in one paragraph why a target of a Result failed.
func failure(r *job.Result, t *job.TargetResult) string {
	text := t.Error
	if len(t.Log) > 0 {
		text += "\n> " + strings.Join(t.Log[max(0, len(t.Log)-10):], "\n> ")
	}
	if len(t.Causes) > 1 {
		const most = 20
		others := build.Names(t.Causes[1:])
		text += "\nFailed too: " + strings.Join(others[:min(len(others), most)], ", ")
		if len(others) > most {
			text += fmt.Sprintf(" and %d more", len(others)-most)
		}
	}
	if t.Reproduce != "" && t.Outcome == job.Broken {
		text += "\nReproduce locally: " + t.Reproduce
	}
	for i := range r.Failures {
		if f := &r.Failures[i]; f.DrvPath == t.Cause {
			for _, where := range report.WholeLog(f) {
				text += "\nIts log: " + where
			}
		}
	}
	return text
}

// newResult returns the Result of an entry that this job builds.
func (a *app) newResult(e *job.Entry, plan string) *job.Result {
	return build.NewResult(e, plan, a.getenv("RUNNER_NAME"), a.action.JobURL())
}
