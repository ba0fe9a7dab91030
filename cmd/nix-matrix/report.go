package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/inputs"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/reuse"
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
				return usage.Errorf("report takes no %q: give the plan with --plan and the results with --results", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context()) },
	}
	bindAs(cmd, textValue(&r.plan, "FILE", ""), "plan", "file with the plan")
	bindAs(cmd, textValue(&r.results, "DIR", ""), "results", "directory with the results")
	bindAs(cmd, textValue(&r.needs, "JSON", ""), "needs", inputs.Help("needs")+"; @FILE, or an absolute path, is a file with it")
	r.pages.flags(cmd)
	bind(cmd, boolValue(&r.comment, false), "comment")
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
	packing packing
	// missingOK makes what the cache lacks an output of the step instead of a verdict.
	missingOK bool
}

func (r *reporter) run(ctx context.Context) error {
	a := r.app
	var err error
	if r.docs, err = a.documents(nil); err != nil {
		return err
	}
	if err := r.pages.check(); err != nil {
		return err
	}
	if r.plan == "" {
		return usage.Errorf("there is no plan: give one with --plan")
	}
	v, plan, results, err := r.judge(ctx)
	if errors.Is(err, documents.ErrMissing) {
		a.log.Printf("%v: trying the artifacts of the run", err)
		return a.action.SetOutput("handover", "missing")
	}
	if err != nil {
		return err
	}
	v.Origin = a.origin(plan)
	if !v.Refused {
		if plan != nil {
			r.docs.Trust.Heads = plan.Heads
		}
		r.reuse(ctx, v, r.packing.limit, plan, results)
	}
	return r.tell(ctx, v)
}

// judge reads needs, plan and results, and returns the verdict on them. With missingOK, the
// error is documents.ErrMissing where the artifacts of the run may have more.
func (r *reporter) judge(ctx context.Context) (*verdict.Verdict, *job.Plan, []*job.Result, error) {
	a := r.app
	needs, err := r.readNeeds()
	if err != nil {
		return nil, nil, nil, err
	}
	if a.action.Running() {
		if r.docs.Cache, err = a.openCache(); err != nil {
			a.log.Warn("The cache is not used, so plan and results must be artifacts", err)
		}
	}
	plan, key, refusal, err := r.readPlan(ctx, needs)
	if err != nil {
		return nil, nil, nil, err
	}
	if refusal != nil {
		return verdict.Refuse(refusal, needs), nil, nil, nil
	}
	if plan == nil && r.missingOK {
		return nil, nil, nil, fmt.Errorf("the plan was %w", documents.ErrMissing)
	}
	results, complete := r.readResults(ctx, plan)
	if !complete && r.missingOK {
		return nil, nil, nil, fmt.Errorf("some results were %w", documents.ErrMissing)
	}
	return verdict.Judge(plan, key, results, needs), plan, results, nil
}

// readNeeds reads what became of the jobs before. In a workflow there must be some.
func (r *reporter) readNeeds() (verdict.Needs, error) {
	text := []byte(r.needs)
	file, isFile := strings.CutPrefix(r.needs, "@")
	if isFile || strings.HasPrefix(r.needs, "/") {
		var err error
		if text, err = documents.ReadFile(file, maxNeeds); err != nil {
			return nil, fmt.Errorf("cannot read --needs: %w", err)
		}
	}
	needs, err := verdict.ParseNeeds(text)
	if err != nil {
		return nil, usage.Wrap(err)
	}
	if len(needs) == 0 && r.app.action.Running() {
		return nil, usage.Errorf("cannot report without --needs: nothing else says which plan this run made. Let the job that reports need the jobs that discover and build, and give it the input needs: ${{ toJSON(needs) }}")
	}
	return needs, nil
}

// readPlan reads the plan and makes its key, as one of this use of nix-matrix. In a
// workflow, a plan that is not there or can't be judged is for the verdict to say.
func (r *reporter) readPlan(ctx context.Context, needs verdict.Needs) (plan *job.Plan, key string, refusal *verdict.Refusal, err error) {
	a := r.app
	data, err := r.planData(ctx, needs)
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
	key = job.PlanKey(a.id, r.docs.Seal.Fingerprint(), data)(0)
	if run, attempt := a.action.RunNumber(); a.action.Running() {
		refusal = verdict.OtherRun(plan, run, attempt)
	}
	return plan, key, refusal, nil
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
	a.log.Close()
	if err := r.pages.print(a, v, options); err != nil {
		return err
	}
	if v.Status != verdict.Success {
		return &redError{string(v.Status)}
	}
	return nil
}

// planData returns the JSON of the plan that the discover job names in needs: from the cache,
// else from the file that the artifact is in.
func (r *reporter) planData(ctx context.Context, needs verdict.Needs) ([]byte, error) {
	if key := needs.PlanKey(r.app.id); key != "" && r.docs.Cache != nil {
		data, err := r.docs.Plan(ctx, key)
		if err == nil {
			return data, nil
		}
		if !errors.Is(err, cache.ErrMiss) && ctx.Err() == nil {
			r.app.log.Warn("Cannot read the plan from the Actions cache, so the report takes the artifact", err)
		}
	}
	data, err := documents.ReadFile(r.plan, documents.MaxPlan)
	if err != nil {
		return nil, fmt.Errorf("cannot read the plan: %w", err)
	}
	return r.docs.OpenPlan(data, "")
}

// results returns the Results of a plan's entries, from the cache and from the directory that
// the artifacts are in. complete says that the cache alone has one of each entry.
func (r *reporter) readResults(ctx context.Context, plan *job.Plan) (results []*job.Result, complete bool) {
	a := r.app
	results, err := r.docs.ReadResults(or(r.results, "."))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("Results that can't be read count as missing", err)
	}
	if r.docs.Cache == nil || plan == nil {
		return results, false
	}
	cached := make([]*job.Result, len(plan.Entries))
	errs := make([]error, len(plan.Entries))
	var g errgroup.Group
	const atOnce = 8
	g.SetLimit(atOnce)
	for i := range plan.Entries {
		g.Go(func() error {
			cached[i], errs[i] = r.docs.Result(ctx, plan.Entries[i].ID)
			return nil
		})
	}
	_ = g.Wait()
	if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
		reuse.WarnCache(a.log, "Cannot read all results from the Actions cache, so the report takes the artifacts", err)
	}
	complete = !slices.Contains(cached, nil)
	return append(results, slices.DeleteFunc(cached, func(r *job.Result) bool { return r == nil })...), complete
}

// maxNeeds is how many bytes are read of a file with needs: GitHub lets all outputs of a run have
// 50 MB.
const maxNeeds = 64 << 20

// reuse compares the verdict with the default branch's last run, and leaves for later runs a record
// and the index of what the entries have saved. A failure changes no verdict.
func (r *reporter) reuse(ctx context.Context, v *verdict.Verdict, limit int64, plan *job.Plan, results []*job.Result) {
	a := r.app
	if plan == nil || a.cache == "" && !a.action.Running() {
		return
	}
	if r.docs.Cache == nil {
		var err error
		if r.docs.Cache, err = a.openCache(); err != nil {
			a.log.Warn("Cannot compare with the default branch", err)
		}
		if r.docs.Cache == nil {
			return
		}
	}
	r.compare(ctx, v, plan, results)
	(&reuse.Cache{Docs: r.docs, Log: a.log}).Merge(ctx, limit, plan, results)
}

// compare adds to the verdict what differs from the default branch's last run, and, in a run of the
// default branch, leaves a new record.
func (r *reporter) compare(ctx context.Context, v *verdict.Verdict, plan *job.Plan, results []*job.Result) {
	a := r.app
	before, err := r.docs.Record(ctx)
	if err != nil && ctx.Err() == nil {
		a.log.Warn("What the default branch's last run has left can't be had", err)
	}
	if before != nil {
		v.Change = v.Compare(before, plan)
	}
	branch, own := r.docs.Trust.LeavesRecord()
	if !own {
		return
	}
	about := job.Record{
		ID: a.id, Run: r.docs.Run, Created: time.Now().UTC().Truncate(time.Second), Branch: branch, Commit: a.getenv("GITHUB_SHA"), URL: a.action.RunURL(),
	}
	if err := r.docs.SaveRecord(ctx, v.Record(about, plan, results, before)); err != nil && ctx.Err() == nil {
		a.log.Warn("Pull requests won't see what this run has found out", fmt.Errorf("keep the record: %w", err))
	}
}
