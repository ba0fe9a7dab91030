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

// Merge brings the indexes up to date with what the entries of a run have saved, restored and not
// found. All packs together stay within limit bytes, if it is not 0.
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
		c.warn("The next run won't find all that this one has saved", err)
	}
}

// forgotten is after what time a pack of which nothing was needed leaves the index of
// the Actions cache, which removes it then: else the index would grow with every run that
// saves little.
const forgotten = 7 * 24 * time.Hour

func (c *Cache) mergeIndex(ctx context.Context, system string, results []*job.Result, limit int64) error {
	c.Log.Doing("bringing the index of packs up to date")
	defer c.Log.Doing("")
	ix, _, err := c.ownIndex(ctx, system)
	if err != nil {
		return err
	}
	var saved []job.Pack
	done := storecache.Update{Now: time.Now().UTC().Truncate(time.Second), Limit: limit}
	if !c.Docs.Trust.Shared {
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
	if updated, changed := ix.Update(done); changed {
		errs = append(errs, c.keepIndex(ctx, system, updated))
	}
	return errors.Join(errs...)
}
