package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/push"
	"github.com/org/nix-matrix/pkg/verdict"
)

// recordPrefix begins the keys of the records of this use of nix-matrix, in this workflow.
func (a *app) recordPrefix() string {
	workflow, _, _ := strings.Cut(a.getenv("GITHUB_WORKFLOW_REF"), "@")
	sum := sha256.Sum256([]byte(workflow))
	return fmt.Sprintf("%s-record-%x-%s-", a.id, sum[:4], a.seal.Fingerprint())
}

// readRecord gives what the default branch's last run has left, nil if it is not
// known.
func (a *app) readRecord(ctx context.Context, c cache.Cache) *job.Record {
	if c == nil {
		return nil
	}
	record, err := a.openRecord(ctx, c)
	if err != nil && !errors.Is(err, cache.ErrMiss) && ctx.Err() == nil {
		a.warn("What the default branch's last run has left can't be had", err)
	}
	return record
}

func (a *app) openRecord(ctx context.Context, c cache.Cache) (*job.Record, error) {
	data, err := a.newest(ctx, c, recordDocument, a.recordPrefix(), maxRecord)
	if err != nil {
		return nil, err
	}
	return job.ParseRecord(data)
}

// keepRecord leaves a record for other runs.
func (a *app) keepRecord(ctx context.Context, c cache.Cache, r *job.Record) error {
	data, err := r.Marshal()
	if err != nil {
		return err
	}
	return a.keep(ctx, c, recordDocument, a.recordPrefix(), a.getenv("GITHUB_RUN_ID")+"-"+a.getenv("GITHUB_RUN_ATTEMPT"), data)
}

// skipProved leaves out of a pull request what the default branch has built already,
// where nothing is pushed: in one from a fork above all.
func (d *discovery) skipProved(ctx context.Context, at *site, c cache.Cache, targets []job.Target) {
	a := at.app
	pushes := slices.ContainsFunc(at.to, func(to push.Destination) bool { return to.Lacks(at.push.Secrets) == "" })
	if !a.trust().SkipsProved() || !d.trustProved || d.local || pushes {
		return
	}
	if record := d.record(ctx, a, c); record != nil {
		verdict.SkipProved(targets, record)
	}
}

// record is what the default branch's last run has left, nil if it is not known. It is
// looked for once.
func (d *discovery) record(ctx context.Context, a *app, c cache.Cache) *job.Record {
	if !d.looked && !d.local {
		d.left = a.readRecord(ctx, c)
	}
	d.looked = true
	return d.left
}

// compare adds to the verdict what is different from the default branch's last run,
// and, in a run of the default branch, leaves a new record. That it can't changes no
// verdict.
func (r *reporter) compare(ctx context.Context, v *verdict.Verdict, plan *job.Plan, results []*job.Result) {
	a := r.app
	if plan == nil || a.cache == "" && !a.action.Running() {
		return
	}
	c, err := a.openCache()
	if err != nil {
		a.warn("What this changes can't be said", err)
	}
	if c == nil {
		return
	}
	before := a.readRecord(ctx, c)
	if before != nil {
		v.Change = v.Compare(before, plan)
	}
	branch, own := a.trust().LeavesRecord()
	if !own {
		return
	}
	run, _ := a.runNumber()
	about := job.Record{
		ID: a.id, Run: run, Created: time.Now().UTC().Truncate(time.Second), Branch: branch, Commit: a.getenv("GITHUB_SHA"), URL: a.action.RunURL(),
	}
	if err := a.keepRecord(ctx, c, v.Record(about, plan, results, before)); err != nil && ctx.Err() == nil {
		a.warn("Pull requests won't see what this run has found out", fmt.Errorf("keep the record: %w", err))
	}
}
