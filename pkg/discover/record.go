package discover

import (
	"context"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/push"
	"github.com/org/nix-matrix/pkg/verdict"
)

// skipProved skips the targets that the default branch has built, in a proposal that pushes nothing, such as
// a pull request from a fork.
func (d *Discovery) skipProved(ctx context.Context, targets []job.Target) {
	pushes := slices.ContainsFunc(d.Env.Destinations, func(to push.Destination) bool { return to.Lacks(d.Env.Push.Secrets) == "" })
	if !d.docs.Trust.SkipsProved() || !d.SkipProved || d.Local || pushes {
		return
	}
	if record := d.record(ctx); record != nil {
		verdict.SkipProved(targets, record)
	}
}

// record returns the record of the default branch's last run, nil if it is not known. The cache is
// asked once.
func (d *Discovery) record(ctx context.Context) *job.Record {
	if d.baseAsked || d.Local {
		return d.base
	}
	d.baseAsked = true
	var err error
	if d.base, err = d.docs.Record(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn("Cannot read the record of the default branch's last run", err)
	}
	return d.base
}
