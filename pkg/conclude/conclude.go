// Package conclude makes the verdict of a run from what its jobs have left. It reads needs, Plan and
// Results, compares the verdict with the default branch, and leaves the record and the index of store
// packs for later runs.
package conclude

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/reuse"
	"github.com/org/nix-matrix/pkg/verdict"
)

// A Conclusion is that of a run.
type Conclusion struct {
	Docs    *documents.Store
	Running bool   // in GitHub Actions, where a plan that cannot be judged is for the verdict to say
	Needs   string // JSON, or a file that has it: @FILE or an absolute path
	Plan    string // file
	Results string // directory
	// HandedOver says that no artifact has more than the cache: a missing plan or Result is final.
	HandedOver bool
	Log        Log

	plan    *job.Plan
	results []*job.Result
}

// Log is where a person sees what happens.
type Log interface {
	Doing(format string, args ...any)
	Printf(format string, args ...any)
	Warn(title string, err error)
}

// Judge reads needs, Plan and Results, and returns the verdict on them, with the Plan unless it is
// missing. The error is [documents.ErrMissing] where the artifacts of the run may have more.
func (c *Conclusion) Judge(ctx context.Context) (*verdict.Verdict, *job.Plan, error) {
	needs, err := c.readNeeds()
	if err != nil {
		return nil, nil, err
	}
	plan, key, refusal, err := c.readPlan(ctx, needs)
	if err != nil {
		return nil, nil, err
	}
	if refusal != nil {
		return verdict.Refuse(refusal, needs), nil, nil
	}
	if plan == nil && !c.HandedOver {
		return nil, nil, fmt.Errorf("the plan was %w", documents.ErrMissing)
	}
	results, complete := c.readResults(ctx, plan)
	if !complete && !c.HandedOver {
		return nil, nil, fmt.Errorf("some results were %w", documents.ErrMissing)
	}
	c.plan, c.results = plan, results
	return verdict.Judge(plan, key, results, needs), plan, nil
}

// readNeeds returns the outcomes of the earlier jobs. In a workflow there must be some.
func (c *Conclusion) readNeeds() (verdict.Needs, error) {
	text := []byte(c.Needs)
	file, isFile := strings.CutPrefix(c.Needs, "@")
	if isFile || strings.HasPrefix(c.Needs, "/") {
		var err error
		if text, err = documents.ReadFile(file, maxNeeds); err != nil {
			return nil, fmt.Errorf("cannot read --needs: %w", err)
		}
	}
	needs, err := verdict.ParseNeeds(text)
	if err != nil {
		return nil, usage.Wrap(err)
	}
	if len(needs) == 0 && c.Running {
		return nil, usage.Errorf("cannot report without --needs: nothing else says which plan this run made. Let the job that reports need the jobs that discover and build, and give it the input needs: ${{ toJSON(needs) }}")
	}
	return needs, nil
}

// readPlan returns the plan and its key for this use of nix-matrix. In a workflow, a plan that is missing or
// cannot be judged is a refusal and no error.
func (c *Conclusion) readPlan(ctx context.Context, needs verdict.Needs) (plan *job.Plan, key string, refusal *verdict.Refusal, err error) {
	data, err := c.planData(ctx, needs)
	if errors.Is(err, fs.ErrNotExist) && c.Running {
		return nil, "", nil, nil
	}
	if err == nil {
		plan, err = job.ParsePlan(data)
	}
	switch {
	case err != nil && !c.Running:
		return nil, "", nil, err
	case err != nil:
		return nil, "", verdict.Unreadable(err), nil
	}
	key = job.PlanKey(c.Docs.ID, c.Docs.Seal.Fingerprint(), data)(0)
	if c.Running {
		refusal = verdict.OtherRun(plan, c.Docs.Run, c.Docs.Attempt)
	}
	return plan, key, refusal, nil
}

// planData returns the JSON of the plan that the discover job names in needs: from the cache, else from the
// file of the artifact.
func (c *Conclusion) planData(ctx context.Context, needs verdict.Needs) ([]byte, error) {
	if key := needs.PlanKey(c.Docs.ID); key != "" && c.Docs.Cache != nil {
		data, err := c.Docs.Plan(ctx, key)
		if err == nil {
			return data, nil
		}
		if !errors.Is(err, cache.ErrMiss) && ctx.Err() == nil {
			c.Log.Warn("Cannot read the plan from the Actions cache, so the report takes the artifact", err)
		}
	}
	data, err := documents.ReadFile(c.Plan, documents.MaxPlan)
	if err != nil {
		return nil, fmt.Errorf("cannot read the plan: %w", err)
	}
	return c.Docs.OpenPlan(data, "")
}

// readResults returns the Results of a plan's entries, from the cache and from the directory of the
// artifacts. complete says that the cache alone has one for each entry.
func (c *Conclusion) readResults(ctx context.Context, plan *job.Plan) (results []*job.Result, complete bool) {
	results, err := c.Docs.ReadResults(cmp.Or(c.Results, "."))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Log.Warn("Cannot read some results, which count as missing", err)
	}
	if c.Docs.Cache == nil || plan == nil {
		return results, false
	}
	cached := make([]*job.Result, len(plan.Entries))
	errs := make([]error, len(plan.Entries))
	var g errgroup.Group
	const atOnce = 8
	g.SetLimit(atOnce)
	for i := range plan.Entries {
		g.Go(func() error {
			cached[i], errs[i] = c.Docs.Result(ctx, plan.Entries[i].ID)
			return nil
		})
	}
	_ = g.Wait()
	if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
		reuse.WarnCache(c.Log, "Cannot read all results from the Actions cache, so the report takes the artifacts", err)
	}
	complete = !slices.Contains(cached, nil)
	return append(results, slices.DeleteFunc(cached, func(r *job.Result) bool { return r == nil })...), complete
}

// maxNeeds is the largest file with needs, in bytes: GitHub limits all outputs of a run to 50 MB.
const maxNeeds = 64 << 20

// Keep compares the verdict of Judge with the default branch's last run, and leaves for later runs a
// record, which about describes, and the index of what the entries have saved. All packs together stay
// within limit bytes. A failure changes no verdict.
func (c *Conclusion) Keep(ctx context.Context, v *verdict.Verdict, about job.Record, limit int64) {
	if c.plan == nil || c.Docs.Cache == nil {
		return
	}
	c.Docs.Trust.Heads = c.plan.Heads
	c.compare(ctx, v, about)
	(&reuse.Cache{Docs: c.Docs, Log: c.Log}).Merge(ctx, limit, c.plan, c.results)
}

// compare adds to the verdict the changes since the default branch's last run, and saves a new record in a
// run of the default branch.
func (c *Conclusion) compare(ctx context.Context, v *verdict.Verdict, about job.Record) {
	before, err := c.Docs.Record(ctx)
	if err != nil && ctx.Err() == nil {
		c.Log.Warn("Cannot read the record of the default branch's last run", err)
	}
	if before != nil {
		v.Change = v.Compare(before, c.plan)
	} else if err == nil && c.Docs.Trust.Proposed() {
		v.Notices = append(v.Notices, "Nothing to compare with: the cache has no record of the default branch for this workflow, id and encryption_key. The next run there leaves one.")
	}
	branch, own := c.Docs.Trust.LeavesRecord()
	if !own {
		return
	}
	about.ID, about.Run, about.Branch, about.Created = c.Docs.ID, c.Docs.Run, branch, time.Now().UTC().Truncate(time.Second)
	if err := c.Docs.SaveRecord(ctx, v.Record(about, c.plan, c.results, before)); err != nil && ctx.Err() == nil {
		c.Log.Warn("Cannot save the record, so pull requests compare with an earlier run", err)
	}
}
