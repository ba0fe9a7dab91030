package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/push"
)

// finishPush sends the outputs of what succeeded to all destinations, as far as
// they are not there yet, and records what became of it. promised are outputs that were
// built because a substituter did not deliver them.
func (w *worker) finishPush(ctx context.Context, session *push.Session, result *job.Result, promised []string) {
	var paths []string
	for _, t := range result.Targets {
		for _, o := range t.Outputs {
			if t.Outcome.OK() {
				paths = append(paths, o.Path)
			}
			if t.Outcome == job.OutcomeBuilt {
				promised = append(promised, o.Path)
			}
		}
		if t.Outcome.OK() && len(w.plan.Targets[t.N].OutPaths) < len(t.Outputs) {
			session.Built(t.DrvPath) // for what is known of it only now
		}
	}
	w.app.show.Doing("pushing")
	defer w.app.show.Doing("")
	for _, r := range session.Finish(paths) {
		p := job.Push{Destination: r.Destination, Paths: r.Paths, Sent: r.Sent.Paths, Bytes: r.Sent.Bytes, Seconds: r.Seconds}
		if r.Err == nil && ctx.Err() == nil {
			r.Err = w.repair(ctx, &p, promised)
		}
		if r.Err != nil {
			w.site.unpushed(&p, r.Err)
			w.app.warn("Not all was pushed", r.Err)
		}
		result.Pushes = append(result.Pushes, p)
	}
}

// repair looks whether a destination has what was built here: a binary cache that says it
// has a path takes it no second time, also where its contents are lost. They are pushed
// again, or it is told what to do.
func (w *worker) repair(ctx context.Context, p *job.Push, paths []string) error {
	i := slices.IndexFunc(w.site.to, func(d push.Destination) bool { return d.Name == p.Destination })
	if i < 0 || !push.IsBinaryCache(w.site.to[i].Substituter) {
		return nil
	}
	to := &w.site.to[i]
	paths = slices.Compact(slices.Sorted(slices.Values(paths)))
	limited, cancel := context.WithTimeout(ctx, lookedTime)
	defer cancel()
	lost, _ := w.site.undelivered(limited, paths[:min(len(paths), maxLooked)], to.Substituter) // else it is not known to have lost them
	if len(lost) == 0 {
		return nil
	}
	switch done, err := to.Withdraw(lost); {
	case err != nil:
		return fmt.Errorf("push again what %s has lost: %w", to.Name, err)
	case !done:
		p.Error = fmt.Sprintf("%s says that it has these paths, does not deliver them, and takes them no second time: %s. Remove their narinfo files from it", to.Name, some(lost))
		p.Optional = true
		w.app.warn("A binary cache has lost contents", fmt.Errorf("%s", p.Error))
		return nil
	}
	sent, err := to.Push(ctx, w.site.store, lost, w.site.push.Secrets)
	p.Sent, p.Bytes = p.Sent+sent.Paths, p.Bytes+sent.Bytes
	if err == nil {
		w.app.show.Printf("%s had lost the contents of %s: pushed again", to.Name, some(lost))
	}
	return err
}
