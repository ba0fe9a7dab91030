package main

import (
	"runtime"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/build"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/report"
)

// announce logs the outcome of an entry in a line, and annotates the run's page with its failures.
func (a *app) announce(r *job.Result) {
	show := a.log.Bad
	if r.Outcome.OK() {
		show = a.log.Good
	}
	show("%s", report.ResultLine(r))
	a.annotate(report.ResultAnnotations(r))
}

// annotate puts annotations on the run's page.
func (a *app) annotate(all []report.Annotation) {
	for _, n := range all {
		a.action.AnnotateAt(action.Level(n.Level), n.Title, n.Message, n.File, n.Line)
	}
}

// newResult returns the Result of an entry that this job builds.
func (a *app) newResult(e *job.Entry, plan string) *job.Result {
	r := build.NewResult(e, plan, a.getenv("RUNNER_NAME"), a.action.JobURL())
	r.Machine = a.machine()
	return r
}

// machine returns the runner of this job, nil outside of GitHub Actions.
func (a *app) machine() *job.Machine {
	if !a.action.Running() {
		return nil
	}
	return &job.Machine{
		OS: a.getenv("RUNNER_OS"), Arch: a.getenv("RUNNER_ARCH"), Hosted: a.getenv("RUNNER_ENVIRONMENT") == "github-hosted",
		Cores: runtime.NumCPU(), Began: a.action.Began(),
	}
}
