package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/store"
	"github.com/org/nix-matrix/pkg/verdict"
)

// The jobs of a run hand each other the plan and the Results through the cache first, and as
// artifacts of the run where that fails: artifacts of an earlier attempt may be gone when failed
// jobs run again, their steps don't retry a dropped connection, and a GitHub Enterprise Server
// has none.

// errNoHandover says that neither the cache nor a file has what an earlier job has left.
var errNoHandover = errors.New("not handed over")

// resultPrefix begins the keys of the Results of an entry in this run.
func (a *app) resultPrefix(entry string) string {
	run, _ := a.runNumber()
	return fmt.Sprintf("%s-result-%d-%s-", a.id, run, entry)
}

// saveResult hands a Result to the report. Where that fails, the artifact has to do.
func (a *app) saveResult(ctx context.Context, c cache.Cache, result *job.Result) {
	if c == nil || ctx.Err() != nil {
		return
	}
	data, err := result.Marshal()
	if err == nil {
		_, attempt := a.runNumber()
		data = a.seal.Seal(resultDocument, data)
		_, err = store.SaveOnce(ctx, c, func(try int) string {
			return fmt.Sprintf("%s%d-%d", a.resultPrefix(result.Entry), attempt, try)
		}, bytes.NewReader(data), int64(len(data)), func(cache.Blob) bool { return false })
	}
	if err != nil && ctx.Err() == nil {
		a.spare("Cannot save the result in the Actions cache, so the report takes the artifact", err)
	}
}

// spread waits for a random part of the time in which so many jobs may each create two cache
// entries: GitHub takes 200 a minute of a repository.
func spread(ctx context.Context, entries int) {
	const atOnce, perMinute = 100, 100
	if entries <= atOnce || ctx.Err() != nil {
		return
	}
	most := time.Duration(entries-atOnce) * time.Minute / perMinute
	select {
	case <-ctx.Done():
	case <-time.After(rand.N(most)): //nolint:gosec // nobody gains by guessing it
	}
}

// planData returns the JSON of the plan that the discover job names in needs: from the cache,
// else from the file that the artifact is in.
func (r *reporter) planData(ctx context.Context, c cache.Cache, needs verdict.Needs) ([]byte, error) {
	if key := needs.PlanKey(r.app.id); key != "" && c != nil {
		data, err := fromCache(ctx, c, key)
		if err == nil {
			data, err = r.app.seal.Open(planDocument, data)
		}
		if err == nil {
			err = job.CheckPlanKey(key, data)
		}
		if err == nil {
			return data, nil
		}
		if !errors.Is(err, cache.ErrMiss) && ctx.Err() == nil {
			r.app.warn("Cannot read the plan from the Actions cache, so the report takes the artifact", err)
		}
	}
	data, err := readFile(r.plan, maxPlan, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot read the plan: %w", err)
	}
	return r.app.seal.Open(planDocument, data)
}

// results returns the Results of a plan's entries, from the cache and from the directory that
// the artifacts are in. complete says that the cache alone has one of each entry.
func (r *reporter) readResults(ctx context.Context, c cache.Cache, plan *job.Plan) (results []*job.Result, complete bool) {
	a := r.app
	results, err := readResults(or(r.results, "."), a.seal)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.warn("Results that can't be read count as missing", err)
	}
	if c == nil || plan == nil {
		return results, false
	}
	cached := make([]*job.Result, len(plan.Entries))
	errs := make([]error, len(plan.Entries))
	var g errgroup.Group
	const atOnce = 8
	g.SetLimit(atOnce)
	for i := range plan.Entries {
		g.Go(func() error {
			cached[i], errs[i] = a.cachedResult(ctx, c, plan.Entries[i].ID)
			return nil
		})
	}
	_ = g.Wait()
	if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
		a.spare("Cannot read all results from the Actions cache, so the report takes the artifacts", err)
	}
	complete = !slices.Contains(cached, nil)
	return append(results, slices.DeleteFunc(cached, func(r *job.Result) bool { return r == nil })...), complete
}

// cachedResult returns the Result of an entry that its latest attempt has saved, nil if there
// is none.
func (a *app) cachedResult(ctx context.Context, c cache.Cache, entry string) (*job.Result, error) {
	prefix := a.resultPrefix(entry)
	blob, err := c.Open(ctx, prefix, prefix)
	if errors.Is(err, cache.ErrMiss) {
		return nil, nil //nolint:nilnil // none is one of the answers
	}
	if err != nil {
		return nil, err
	}
	data, err := cache.ReadAll(ctx, blob, maxResult)
	if err == nil {
		data, err = a.seal.Open(resultDocument, data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", blob.Key(), err)
	}
	result, err := job.ParseResult(data)
	if err == nil && result.Entry != entry {
		err = fmt.Errorf("it is about the entry %s", result.Entry)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", blob.Key(), err)
	}
	return result, nil
}
