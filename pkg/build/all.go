package build

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/job"
)

// WorkAll builds all entries of the Plan, so many jobs at a time, and returns their Results in the order of
// the Plan. fresh returns the Result of an entry before its build, and done is called with it after, by
// several goroutines at once. With failFast, the first failure stops the other builds. Units of the Plan are
// built by one of the entries each.
func (w *Worker) WorkAll(ctx context.Context, jobs int, failFast bool, fresh func(*job.Entry) *job.Result, done func(*job.Result)) []*job.Result {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	all := *w
	if jobs > 1 && len(w.Plan.Units) > 0 && w.Env.Remote == "" {
		all.near = newOneStore(len(w.Plan.Entries), failFast)
	}
	results := make([]*job.Result, len(w.Plan.Entries))
	var g errgroup.Group
	g.SetLimit(jobs)
	for i := range w.Plan.Entries {
		g.Go(func() error {
			all.near.begin()
			entry := &w.Plan.Entries[i]
			result := fresh(entry)
			results[i] = result
			all.Work(ctx, entry, result)
			done(result)
			if failFast && !result.Outcome.OK() {
				stop()
			}
			return nil
		})
	}
	_ = g.Wait()
	return results
}
