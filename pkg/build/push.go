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

// finishPush sends the outputs of good targets to the destinations that do not have them yet, and records
// the pushes in the Result. promised are outputs that were built because a substituter did not deliver
// them.
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
			session.Built(t.DrvPath) // its output paths are known only now
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

// repair pushes again the paths that a binary cache says it has and does not deliver: because it says so,
// the first push left them out. If it accepts no path twice, the Push says what to do.
func (w *Worker) repair(ctx context.Context, p *job.Push, paths []string) error {
	i := slices.IndexFunc(w.Env.Destinations, func(d push.Destination) bool { return d.Name == p.Destination })
	if i < 0 || !nix.IsBinaryCache(w.Env.Destinations[i].Substituter) {
		return nil
	}
	to := &w.Env.Destinations[i]
	paths = slices.Compact(slices.Sorted(slices.Values(paths)))
	paths = slices.DeleteFunc(paths, w.Env.Push.Filter.Holds)
	lost, _ := w.finder().Undelivered(ctx, paths, to.Substituter) // a path that cannot be asked for is not known to be lost
	if len(lost) == 0 {
		return nil
	}
	switch done, err := to.Withdraw(lost); {
	case err != nil:
		return fmt.Errorf("cannot push the paths again that %s has lost: %w", to.Name, err)
	case !done:
		p.Error = fmt.Sprintf("%s says that it has these paths, does not deliver them, and accepts no path twice: %s. Remove their narinfo files there", to.Name, text.Some(lost, 20))
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
