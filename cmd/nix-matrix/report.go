package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
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
if every target of the plan was built, or skipped for a reason in the plan; what
is missing, crashed or never started is red. Exits with 0 only if it is green.

In a workflow it wants --needs, and judges no plan but the one that the discover job
exports there as its output plan, or in the rows of its output matrix. The outputs
matrix and count, where the job exports them, must be about the same entries.

What was sealed needs the same NIX_MATRIX_ENCRYPTION_KEY here.

With --comment, the verdict is in a comment on the pull request too, which each run
brings up to date. It takes a token with the permission pull-requests: write from
` + action.GitHubVariable + `, and does nothing for a pull request from a fork.`,
		Example: `  nix-matrix report --plan plan.json --results results/
  nix-matrix report --plan plan.json --results results/ --summary report.md
  nix-matrix report --plan plan.json --results results/ --html report.html`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("report takes no %q: give the plan with --plan and the results with --results", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&r.plan, "plan", a.action.Input("plan"), "`FILE` with the plan")
	f.StringVar(&r.results, "results", a.action.Input("results"), "`DIR` with the results")
	f.StringVar(&r.needs, "needs", a.action.Input("needs"), "what became of the jobs before: toJSON(needs), as `JSON`; @FILE, or an absolute path, is a file with it")
	r.pages.flags(cmd)
	a.boolFlag(cmd, &r.comment, "comment", false, "keep the verdict in a comment on the pull request, where the token may write one")
	r.packing.limitFlag(a, cmd)
	a.boolFlag(cmd, &r.missingOK, "missing-ok", false, "")
	_ = cmd.Flags().MarkHidden("missing-ok") // for action.yml, which then fetches the artifacts
	a.idFlag(cmd)
	cmd.Flags().StringVar(&a.cache, "cache", a.action.Input("cache"), "actions (default in GitHub Actions) or dir:`PATH`, where the default branch's last run has left what to compare with")
	return cmd
}

type reporter struct {
	app     *app
	plan    string
	results string
	needs   string
	pages   pages
	comment bool
	packing packing
	// missingOK makes what the cache lacks an output of the step instead of a verdict.
	missingOK bool
}

func (r *reporter) run(ctx context.Context) error {
	a := r.app
	if err := errors.Join(a.checkID(), a.loadSeal()); err != nil {
		return err
	}
	if err := r.pages.check(); err != nil {
		return err
	}
	if r.plan == "" {
		return usagef("there is no plan: give one with --plan")
	}
	limit, err := sizeOf("store-cache-limit", r.packing.limit)
	if err != nil {
		return err
	}
	v, plan, results, err := r.judge(ctx)
	if errors.Is(err, errNoHandover) {
		a.show.Printf("%v: trying the artifacts of the run", err)
		return a.action.SetOutput("handover", "missing")
	}
	if err != nil {
		return err
	}
	v.Origin = a.origin(plan)
	if !v.Refused {
		if plan != nil {
			a.heads = plan.Heads
		}
		r.compare(ctx, v, plan, results)
		r.stock(ctx, limit, plan, results)
	}
	return r.tell(ctx, v)
}

// judge reads needs, plan and results, and returns the verdict on them. With missingOK, the
// error is errNoHandover where the artifacts of the run may have more.
func (r *reporter) judge(ctx context.Context) (*verdict.Verdict, *job.Plan, []*job.Result, error) {
	a := r.app
	needs, err := r.readNeeds()
	if err != nil {
		return nil, nil, nil, err
	}
	var c cache.Cache
	if a.action.Running() {
		if c, err = a.openCache(); err != nil {
			a.warn("The cache is not used, so plan and results must be artifacts", err)
		}
	}
	plan, key, refusal, err := r.readPlan(ctx, c, needs)
	if err != nil {
		return nil, nil, nil, err
	}
	if refusal != nil {
		return verdict.Refuse(refusal, needs), nil, nil, nil
	}
	if plan == nil && r.missingOK {
		return nil, nil, nil, fmt.Errorf("the plan was %w", errNoHandover)
	}
	results, complete := r.readResults(ctx, c, plan)
	if !complete && r.missingOK {
		return nil, nil, nil, fmt.Errorf("not all results were %w", errNoHandover)
	}
	return verdict.Judge(plan, key, results, needs), plan, results, nil
}

// readNeeds reads what became of the jobs before. In a workflow there must be some.
func (r *reporter) readNeeds() (verdict.Needs, error) {
	text := []byte(r.needs)
	file, isFile := strings.CutPrefix(r.needs, "@")
	if isFile || strings.HasPrefix(r.needs, "/") {
		var err error
		if text, err = readFile(file, maxNeeds, 0); err != nil {
			return nil, fmt.Errorf("cannot read --needs: %w", err)
		}
	}
	needs, err := verdict.ParseNeeds(text)
	if err != nil {
		return nil, &usageError{err}
	}
	if len(needs) == 0 && r.app.action.Running() {
		return nil, usagef("cannot report without --needs: nothing else says which plan this run made. Let the job that reports need the jobs that discover and build, and give it the input needs: ${{ toJSON(needs) }}")
	}
	return needs, nil
}

// readPlan reads the plan and makes its key, as one of this use of nix-matrix. In a
// workflow, a plan that is not there or can't be judged is for the verdict to say.
func (r *reporter) readPlan(ctx context.Context, c cache.Cache, needs verdict.Needs) (plan *job.Plan, key string, refusal *verdict.Refusal, err error) {
	a := r.app
	data, err := r.planData(ctx, c, needs)
	if errors.Is(err, fs.ErrNotExist) && a.action.Running() {
		return nil, "", nil, nil
	}
	if err == nil {
		plan, err = job.ParsePlan(data)
	}
	switch {
	case err != nil && !a.action.Running():
		return nil, "", nil, err
	case err != nil:
		return nil, "", verdict.Unreadable(err), nil
	}
	key = job.PlanKey(a.id, a.seal.Fingerprint(), data)(0)
	if run, attempt := a.runNumber(); a.action.Running() {
		refusal = verdict.OtherRun(plan, run, attempt)
	}
	return plan, key, refusal, nil
}

// runNumber returns GitHub's numbers of the run and of its attempt, 0 outside of one.
func (a *app) runNumber() (run int64, attempt int) {
	run, _ = strconv.ParseInt(a.getenv("GITHUB_RUN_ID"), 10, 64)
	attempt, _ = strconv.Atoi(a.getenv("GITHUB_RUN_ATTEMPT"))
	return run, attempt
}

// tell gives the verdict in all the places where it is looked for.
func (r *reporter) tell(ctx context.Context, v *verdict.Verdict) error {
	a := r.app
	options := report.SummaryOptions{RunURL: a.action.RunURL(), MaxBytes: action.MaxSummary}
	summary := report.Summary(v, options)
	if err := r.pages.write(v, options); err != nil {
		return err
	}
	if err := a.action.AddSummary(summary); err != nil {
		return fmt.Errorf("add to the job's summary: %w", err)
	}
	for _, annotation := range report.Annotations(v) {
		a.action.AnnotateAt(action.Level(annotation.Level), annotation.Title, annotation.Message, annotation.File, annotation.Line)
	}
	if err := a.action.SetOutput("success", strconv.FormatBool(v.Status == verdict.Success)); err != nil {
		return fmt.Errorf("set the output success: %w", err)
	}
	results, err := v.Output(job.MaxMatrix)
	if err != nil {
		return err
	}
	if err := a.action.SetOutput("results", string(results)); err != nil {
		return fmt.Errorf("set the output results: %w", err)
	}
	if r.comment {
		a.comment(ctx, v)
	}
	a.show.Close()
	if err := r.pages.print(a, v, options); err != nil {
		return err
	}
	if v.Status != verdict.Success {
		return &redError{string(v.Status)}
	}
	return nil
}
