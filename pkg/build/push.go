package build

import (
	"context"
	"fmt"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push"
	"github.com/org/nix-matrix/pkg/text"
)

// finishPush sends the outputs of what succeeded to all destinations, as far as
// they are not there yet, and records what became of it. promised are outputs that were
// built because a substituter did not deliver them.
func (w *Worker) finishPush(ctx context.Context, session *push.Session, result *job.Result, promised []string) {
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
		if t.Outcome.OK() && len(w.Plan.Targets[t.N].OutPaths) < len(t.Outputs) {
			session.Built(t.DrvPath) // for what is known of it only now
		}
	}
	w.Log.Doing("pushing")
	defer w.Log.Doing("")
	for _, r := range session.Finish(paths) {
		p := job.Push{Destination: r.Destination, Paths: r.Paths, Sent: r.Sent.Paths, Bytes: r.Sent.Bytes, Seconds: r.Seconds}
		if r.Err == nil && ctx.Err() == nil {
			r.Err = w.repair(ctx, &p, promised)
		}
		if r.Err != nil {
			w.Env.Unpushed(&p, r.Err)
			w.Log.Warn("Not all was pushed", r.Err)
		}
		result.Pushes = append(result.Pushes, p)
	}
}

// repair looks whether a destination has what was built here: a binary cache that says it
// has a path takes it no second time, also where its contents are lost. They are pushed
// again, or it is told what to do.
func (w *Worker) repair(ctx context.Context, p *job.Push, paths []string) error {
	i := slices.IndexFunc(w.Env.Destinations, func(d push.Destination) bool { return d.Name == p.Destination })
	if i < 0 || !nix.IsBinaryCache(w.Env.Destinations[i].Substituter) {
		return nil
	}
	to := &w.Env.Destinations[i]
	paths = slices.Compact(slices.Sorted(slices.Values(paths)))
	lost, _ := w.finder().Undelivered(ctx, paths, to.Substituter) // else it is not known to have lost them
	if len(lost) == 0 {
		return nil
	}
	switch done, err := to.Withdraw(lost); {
	case err != nil:
		return fmt.Errorf("push again what %s has lost: %w", to.Name, err)
	case !done:
		p.Error = fmt.Sprintf("%s says that it has these paths, does not deliver them, and takes them no second time: %s. Remove their narinfo files from it", to.Name, text.Some(lost, 20))
		p.Optional = true
		w.Log.Warn("A binary cache has lost contents", fmt.Errorf("%s", p.Error))
		return nil
	}
	sent, err := to.Push(ctx, w.Env.Store, lost, w.Env.Push.Secrets)
	p.Sent, p.Bytes = p.Sent+sent.Paths, p.Bytes+sent.Bytes
	if err == nil {
		w.Log.Printf("%s had lost the contents of %s: pushed again", to.Name, text.Some(lost, 20))
	}
	return err
}
