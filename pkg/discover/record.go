package discover

import (
	"context"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/push"
	"github.com/org/nix-matrix/pkg/verdict"
)

// skipProved leaves out of a proposal what the default branch has built already, if nothing is
// pushed: in a pull request from a fork above all.
func (d *Discovery) skipProved(ctx context.Context, targets []job.Target) {
	pushes := slices.ContainsFunc(d.env.Destinations, func(to push.Destination) bool { return to.Lacks(d.env.Push.Secrets) == "" })
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
		d.log.Warn("What the default branch's last run has left can't be had", err)
	}
	return d.base
}
