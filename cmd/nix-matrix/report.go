package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/inputs"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/conclude"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/verdict"
)

func newReport(a *app) *cobra.Command {
	r := &reporter{app: a}
	cmd := &cobra.Command{
		Use:   "report --plan FILE --results DIR",
		Short: "Give the verdict on a plan and its results",
		Long: `Compares the results with the plan, target by target. The verdict is green only
if every target of the plan was built, or skipped for a reason in the plan; a target
whose job is missing, crashed or never started is red. Exits with 0 only if it is green.

In a workflow it wants --needs, and judges no plan but the one that the discover job
exports there as its output plan, or in the rows of its output matrix. The outputs
matrix and count, where the job exports them, must be about the same entries.

Sealed documents need the same NIX_MATRIX_ENCRYPTION_KEY here.

With --comment, the verdict is in a comment on the pull request too, which each run
brings up to date. It takes a token with the permission pull-requests: write from
` + action.GitHubVariable + `, and does nothing for a pull request from a fork.

With --checks, each target has a check of its own on the page of the commit and of the
pull request, and a rerun brings it up to date. The permission for that is checks: write.
Without it, or where GitHub takes no more requests, a warning says which checks are
missing; the verdict stays as it is.

The script of --post-green runs after a green verdict. NIX_MATRIX_PATHS names a file with
a JSON object: the store paths of all targets that were built or are available, by
attribute and output. It does not run for pull requests from forks and Dependabot, nor for
events that may be about anybody's change. If it fails, the exit code is 1.`,
		Example: `  nix-matrix report --plan plan.json --results results/
  nix-matrix report --plan plan.json --results results/ --summary report.md
  nix-matrix report --plan plan.json --results results/ --html report.html
  nix-matrix report --plan plan.json --results results/ --post-green 'jq . "$NIX_MATRIX_PATHS"'
  nix-matrix report --plan plan.json --results results/ --junit junit.xml`,
		Args: noArguments("report takes no %q: give the plan with --plan and the results with --results"),
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context()) },
	}
	bindAs(cmd, flagvalue.Text(&r.plan, "FILE", ""), "plan", "file with the plan")
	bindAs(cmd, flagvalue.Text(&r.results, "DIR", ""), "results", "directory with the results")
	bindAs(cmd, flagvalue.Text(&r.needs, "JSON", ""), "needs", inputs.Help("needs")+"; @FILE, or an absolute path, is a file with it")
	r.pages.flags(cmd)
	bind(cmd, flagvalue.Text(&r.pages.junit, "FILE", ""), "junit")
	bind(cmd, flagvalue.Text(&r.pages.badge, "FILE", ""), "badge")
	bind(cmd, flagvalue.Bool(&r.comment, false), "comment")
	bind(cmd, flagvalue.Text(&r.postGreen, "SCRIPT", ""), "post-green")
	bind(cmd, flagvalue.Bool(&r.checks, false), "checks")
	r.packing.limitFlag(cmd)
	missingFlag(cmd, &r.missingOK)
	a.idFlag(cmd)
	bindAs(cmd, cacheValue(&a.cache, true), "cache", inputs.Help("cache")+"; default: actions in GitHub Actions, elsewhere none, so that there is nothing to compare with")
	return cmd
}

type reporter struct {
	app     *app
	docs    *documents.Store
	plan    string
	results string
	needs   string
	pages   pages
	comment bool
	// postGreen is the user's script after a green verdict.
	postGreen string
	checks    bool
	packing   packing
	// missingOK makes documents that the cache lacks an output of the step instead of a verdict.
	missingOK bool
}

func (r *reporter) run(ctx context.Context) error {
	a := r.app
	var err error
	if r.docs, err = a.documents(); err != nil {
		return err
	}
	if err := r.pages.check(); err != nil {
		return err
	}
	if r.plan == "" {
		return usage.Errorf("cannot report without a plan. Give one with --plan")
	}
	if a.action.Running() {
		if r.docs.Cache, err = a.openCache(r.docs.Trust); err != nil {
			a.log.Warn("The cache is not used, so plan and results must be artifacts", err)
		}
	}
	c := r.conclusion()
	v, plan, err := c.Judge(ctx)
	if errors.Is(err, documents.ErrMissing) {
		a.log.Printf("%v: trying the artifacts of the run", err)
		return a.action.SetOutput("handover", "missing")
	}
	if err != nil {
		return err
	}
	v.Origin = a.origin(plan)
	if v.Cost != nil {
		v.Cost.Private = a.action.Private(ctx)
		v.AddReport(a.machine(), time.Now())
	}
	if !v.Refused && plan != nil {
		r.openCache()
		c.Keep(ctx, v, job.Record{Commit: a.getenv("GITHUB_SHA"), URL: a.action.RunURL()}, r.packing.limit)
	}
	return r.tell(ctx, v)
}

// conclusion returns what goes from the files and the cache to a verdict.
func (r *reporter) conclusion() *conclude.Conclusion {
	return &conclude.Conclusion{
		Docs: r.docs, Running: r.app.action.Running(), Needs: r.needs, Plan: r.plan, Results: r.results, HandedOver: !r.missingOK, Log: r.app.log,
	}
}

// openCache opens the cache that has what to compare with, if that was not done before.
func (r *reporter) openCache() {
	a := r.app
	if r.docs.Cache != nil || a.cache == "" && !a.action.Running() {
		return
	}
	var err error
	if r.docs.Cache, err = a.openCache(r.docs.Trust); err != nil {
		a.log.Warn("Cannot compare with the default branch", err)
	}
}

// tell writes the verdict to files, the summary, annotations, outputs and the comment, and runs the script that comes
// after a green one.
func (r *reporter) tell(ctx context.Context, v *verdict.Verdict) error {
	a := r.app
	options := report.SummaryOptions{RunURL: a.action.RunURL(), MaxBytes: action.MaxSummary}
	summary := report.Summary(v, options)
	if err := r.pages.write(v, a.id, options); err != nil {
		return err
	}
	if err := r.keepFiles(v); err != nil {
		a.log.Warn("The run has no artifact with the files of the report", err)
	}
	if err := a.action.AddSummary(summary); err != nil {
		return err
	}
	a.annotate(report.Annotations(v))
	if err := a.action.SetOutput("success", strconv.FormatBool(v.Status == verdict.Success)); err != nil {
		return err
	}
	paths, room, err := r.outputPaths(v)
	if err != nil {
		return err
	}
	results, err := v.Output(room)
	if err != nil {
		return err
	}
	if err := a.action.SetOutput("results", string(results)); err != nil {
		return err
	}
	if r.comment {
		r.conclusion().Comment(ctx, a.action, v)
	}
	if r.checks {
		r.conclusion().Checks(ctx, a.action, v)
	}
	a.log.Close()
	if err := r.pages.print(a, v, options); err != nil {
		return err
	}
	if v.Status != verdict.Success {
		return &redError{string(v.Status)}
	}
	return a.afterGreen(ctx, r.postGreen, paths)
}

// keepFiles sets the output with the files of the report, for the step that uploads them.
func (r *reporter) keepFiles(v *verdict.Verdict) error {
	if !r.app.action.Running() {
		return nil
	}
	dir, err := r.pages.keep(r.app, r.docs, v)
	if err != nil || dir == "" {
		return err
	}
	return r.app.action.SetOutput("report_dir", dir)
}
