package reuse

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/storecache"
)

// Merge updates the indexes with the packs that the entries of a run have saved, used and not found. All
// packs together stay within limit bytes, if it is not 0.
func (c *Cache) Merge(ctx context.Context, limit int64, p *job.Plan, results []*job.Result) {
	bySystem := map[string][]*job.Result{}
	for _, result := range results {
		entry, ok := p.EntryByID(result.Entry)
		if ok && (result.Restored != nil || len(result.Saved) > 0) {
			bySystem[entry.System] = append(bySystem[entry.System], result)
		}
	}
	if len(bySystem) == 0 || !c.Docs.Keeps() {
		return
	}
	var err error
	for _, system := range slices.Sorted(maps.Keys(bySystem)) {
		if err == nil {
			err = c.mergeIndex(ctx, system, bySystem[system], limit)
		}
	}
	if err != nil && ctx.Err() == nil {
		c.warn("Cannot update the index, so the next run does not find all packs of this one", err)
	}
}

// forgotten is the time after which an unused pack leaves the index of the Actions cache, which evicts it
// then. Otherwise, each run that saves little would make the index grow.
const forgotten = 7 * 24 * time.Hour

func (c *Cache) mergeIndex(ctx context.Context, system string, results []*job.Result, limit int64) error {
	c.Log.Doing("updating the index of packs")
	defer c.Log.Doing("")
	var saved []job.Pack
	done := storecache.Update{Now: now(), Limit: limit}
	if c.Docs.Evicts {
		done.Forget = forgotten
	}
	for _, r := range results {
		saved = append(saved, r.Saved...)
		if r.Restored != nil {
			done.Lost = append(done.Lost, r.Restored.Lost...)
			done.Used = append(done.Used, r.Restored.Packs...)
		}
	}
	packs := make([]*storecache.Pack, len(saved))
	errs := make([]error, len(saved))
	var g errgroup.Group
	const atOnce = 8
	g.SetLimit(atOnce)
	for i, p := range saved {
		g.Go(func() error {
			packs[i], errs[i] = storecache.FindPack(ctx, c.Docs.Cache, p.Key, c.Docs.Seal)
			return nil
		})
	}
	_ = g.Wait()
	done.Saved = slices.DeleteFunc(packs, func(p *storecache.Pack) bool { return p == nil })
	return errors.Join(append(errs, c.updateIndex(ctx, system, done))...)
}

// now returns the time as an index has it.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
