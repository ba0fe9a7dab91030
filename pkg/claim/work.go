package claim

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/httpcall"
	"github.com/org/nix-matrix/pkg/job"
)

const (
	callTimeout    = 30 * time.Second // of a look or a claim: the rest of the work waits for it
	publishTimeout = 2 * time.Minute  // of a done document, with all tries
	lastWords      = 5 * time.Second  // after the job was cancelled
	settle         = 3 * time.Second  // before a claim is read back, see the package comment
)

// look looks at units, some at once.
func (w *Worker) look(ctx context.Context, units []int) {
	type sight struct {
		seen *documents.Sighting
		err  error
		took time.Duration
	}
	seen := make([]sight, len(units))
	var group errgroup.Group
	if cache.LastWins(w.Docs.Cache) {
		group.SetLimit(1) // act opens its database once per request
	}
	for i, u := range units {
		group.Go(func() error {
			began := w.now()
			seen[i].seen, seen[i].err = w.lookAt(ctx, u)
			seen[i].took = w.now() - began
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return
	}
	now, self := w.now(), w.holder.Holder
	if cache.LastWins(w.Docs.Cache) {
		self = "" // that a claim names this worker proves nothing there
	}
	var failed *sight
	for i, u := range units {
		if seen[i].err != nil {
			failed = &seen[i]
			continue
		}
		if broken := seen[i].seen.Broken; broken != nil && !slices.Contains(w.m.state[u].void, seen[i].seen.DoneKey) {
			w.Log.Warnf("the hand-over of %s is of no use: %v", w.name(u), broken)
		}
		w.m.saw(u, seen[i].seen, self, now)
		w.blocked(u)
	}
	if failed != nil && !w.hopeless(failed.err) {
		w.note("cannot look for units, trying again: %v", failed.err)
		w.m.blind(failed.took, now)
		w.gaveUp(failed.err)
	}
}

// lookAt looks at a unit: at its done document, and at its claim unless the document settles it.
func (w *Worker) lookAt(ctx context.Context, u int) (*documents.Sighting, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	seen, err := w.Docs.Unit(ctx, w.Units[u].ID)
	if err != nil || seen.DoneKey == "" || w.m.settles(u, seen) {
		return seen, err
	}
	claim, err := w.Docs.UnitClaim(ctx, w.Units[u].ID)
	if err == nil {
		seen.Claimed, seen.Try, seen.Beat, seen.Holder = claim.Claimed, claim.Try, claim.Beat, claim.Holder
	}
	return seen, err
}

// blocked notes a unit that failed in another job.
func (w *Worker) blocked(u int) {
	s := &w.m.state[u]
	if s.failed == nil || !w.m.needs[u] || w.outcome.Failed[u] != nil {
		return
	}
	w.outcome.Failed[u] = s.failed
	w.Log.Printf("%s failed in %s%s", w.name(u), s.failed.Entry, link(s.failed.URL))
	w.result(u, job.UnitBlocked, s.failed.Entry, time.Now())
	if w.Blocked != nil {
		w.Blocked(s.failed)
	}
}

// take makes the outputs of units valid here.
func (w *Worker) take(ctx context.Context, units []int) {
	done, began := make([]*job.Done, len(units)), time.Now()
	for i, u := range units {
		done[i] = w.m.state[u].done
	}
	w.Log.Doing("taking %s from %s", w.name(units[0]), done[0].Entry)
	errs := w.Hands.Take(ctx, units, done)
	for i, u := range units {
		if ctx.Err() != nil && errs[i] != nil {
			continue
		}
		w.m.took(u, errs[i] == nil)
		if errs[i] != nil {
			w.Log.Warn("Cannot take what another job has built, so it is built again", fmt.Errorf("%s from %s: %w", w.name(u), done[i].Entry, errs[i]))
			continue
		}
		w.result(u, job.UnitTaken, done[i].Entry, began)
	}
}

// claim tries to become the holder of a unit.
func (w *Worker) claim(ctx context.Context, u, try int) {
	began := w.now()
	// A save that is interrupted leaves a claim that nobody holds.
	saving, cancel := outlive(ctx, lastWords)
	defer cancel()
	saving, stop := context.WithTimeout(saving, callTimeout)
	defer stop()
	err := w.Docs.SaveClaim(saving, w.Units[u].ID, try, 0, &w.holder)
	if err == nil && cache.LastWins(w.Docs.Cache) {
		err = w.settle(ctx, u, try, w.now()-began)
	}
	switch now := w.now(); {
	case err == nil:
		w.m.won(u, try)
	case errors.Is(err, cache.ErrExists):
		w.m.lost(u, try, now)
	case w.hopeless(err):
	default:
		w.note("cannot claim %s, trying again: %v", w.name(u), err)
		w.m.unclear(u, try, now-began, now)
		w.gaveUp(err)
	}
}

// settle returns nil if a claim that was saved is the worker's, although the cache may have stored
// the claims of others under the same key.
func (w *Worker) settle(ctx context.Context, u, try int, took time.Duration) error {
	if took > settle {
		return fmt.Errorf("saving it took %s, so that others may hold it: %w", took, cache.ErrExists)
	}
	if err := httpcall.Sleep(ctx, settle); err != nil {
		return err
	}
	seen, err := w.Docs.UnitClaim(ctx, w.Units[u].ID)
	if err == nil && (!seen.Claimed || seen.Try != try || seen.Holder == nil || *seen.Holder != w.holder) {
		err = cache.ErrExists
	}
	return err
}

// build builds a unit that this worker holds, and hands it over.
func (w *Worker) build(ctx context.Context, u, try int) {
	began := time.Now()
	w.Log.Doing("building %s for all", w.name(u))
	done := w.hands(ctx, u)
	if done.Outcome == job.OutcomeFailed {
		if seen, err := w.lookAt(ctx, u); err == nil && seen.Done != nil && seen.Done.Outcome == job.OutcomeBuilt && w.m.settles(u, seen) {
			w.Log.Printf("%s failed here, but %s has built it", w.name(u), seen.Done.Entry)
			w.m.saw(u, seen, "", w.now())
			w.m.holding = -1
			return
		}
	}
	w.handOver(ctx, try, done)
	w.finished(u, done, job.UnitBuilt, began)
}

// handOver publishes what became of the unit that the worker holds, while it goes on with the next one. The claim is
// renewed until then. What was published before is awaited first.
func (w *Worker) handOver(ctx context.Context, try int, done *job.Done) {
	w.publishing.Wait()
	renewal := w.renewal
	w.renewal = nil
	w.publishing.Go(func() {
		w.publish(ctx, try, done)
		if renewal != nil {
			renewal()
		}
	})
}

// buildAlone builds a unit without a claim, and does not hand it over.
func (w *Worker) buildAlone(ctx context.Context, u int) {
	began := time.Now()
	w.Log.Printf("%s is built here too, because its hand-over takes too long", w.name(u))
	w.Log.Doing("building %s", w.name(u))
	w.finished(u, w.hands(ctx, u), job.UnitAlone, began)
}

// finished notes what became of a unit that was built here.
func (w *Worker) finished(u int, done *job.Done, way job.UnitWay, began time.Time) {
	w.m.built(u, done, way)
	switch done.Outcome {
	case job.OutcomeBuilt:
		w.result(u, way, "", began)
	case job.OutcomeFailed:
		w.outcome.Failed[u] = done
		w.result(u, job.UnitFailed, "", began)
	}
}

// hands builds a unit. A failure after the job was cancelled proves nothing.
func (w *Worker) hands(ctx context.Context, u int) *job.Done {
	done := w.Hands.Build(ctx, u)
	if done == nil {
		done = &job.Done{}
	}
	done.Version, done.Unit, done.Attempt, done.Entry, done.URL = job.Version, w.Units[u].ID, w.attempt(), w.Entry, w.URL
	if done.Outcome == "" || done.Outcome == job.OutcomeFailed && ctx.Err() != nil {
		done.Outcome = job.OutcomeCancelled
	}
	return done
}

// renew renews a claim until stop is called. A renewal that fails does no harm by itself.
func (w *Worker) renew(ctx context.Context, u, try int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		for beat := 1; httpcall.Sleep(ctx, w.Beat) == nil; beat++ {
			saving, cancel := context.WithTimeout(ctx, max(w.Beat, callTimeout))
			_ = w.Docs.SaveClaim(saving, w.Units[u].ID, try, beat, &w.holder)
			cancel()
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// release lets others claim a unit that this worker holds and has not begun.
func (w *Worker) release(ctx context.Context, u, try int) {
	w.publish(ctx, try, &job.Done{Version: job.Version, Unit: w.Units[u].ID, Attempt: w.attempt(), Outcome: job.OutcomeCancelled, Entry: w.Entry, URL: w.URL})
	w.m.released()
}

// publish stores what became of a unit, with tries and pauses; after the context's end for some
// seconds. If it fails, the others find that the claim is renewed no longer.
func (w *Worker) publish(ctx context.Context, try int, done *job.Done) {
	if err := check(done); err != nil {
		w.Log.Warnf("cannot hand over the unit %s: %v", done.Unit, err)
		done = &job.Done{Version: done.Version, Unit: done.Unit, Attempt: done.Attempt, Outcome: job.OutcomeCancelled, Entry: done.Entry, URL: done.URL}
	}
	ctx, cancel := outlive(ctx, lastWords)
	defer cancel()
	ctx, stop := context.WithTimeout(ctx, publishTimeout)
	defer stop()
	for pause := time.Second; ; pause = min(2*pause, w.m.maxWait) {
		err := w.Docs.SaveDone(ctx, try, done)
		if err == nil {
			return
		}
		if permanent(err) || httpcall.Sleep(ctx, pause) != nil {
			w.Log.Warnf("cannot hand over the unit %s, so other jobs may build it again: %v", done.Unit, err)
			return
		}
	}
}

// check returns an error unless others can read the document.
func check(done *job.Done) error {
	data, err := done.Marshal()
	if err == nil {
		_, err = job.ParseDone(data)
	}
	return err
}

// wait waits until a time on the worker's clock.
func (w *Worker) wait(ctx context.Context, until time.Duration) {
	began := w.now()
	w.showWait()
	_ = httpcall.Sleep(ctx, until-began)
	waited := w.now() - began
	w.outcome.Waited += waited
	w.m.waited(waited, w.now())
}

func (w *Worker) showWait() {
	for u := range w.m.state {
		if s := &w.m.state[u]; w.m.watched(u) && s.holder != nil && s.try > s.voided {
			w.Log.Doing("waiting for %s, which %s builds%s", w.name(u), s.holder.Entry, link(s.holder.URL))
			return
		}
	}
	w.Log.Doing("waiting for other jobs")
}

// hopeless reports whether an error of the cache will not pass, and ends the claims then.
func (w *Worker) hopeless(err error) bool {
	if !permanent(err) {
		return false
	}
	w.m.stop()
	w.note("units are not shared with other jobs any more: %v", err)
	return true
}

// gaveUp says that too many errors in a row have ended the claims, if so.
func (w *Worker) gaveUp(err error) {
	if w.m.stopped {
		w.Log.Warn("Cannot share units with other jobs, so this job builds its own", err)
	}
}

// permanent reports whether an error of the cache will not pass: it may not be used, the quota is used
// up, or the request is refused.
func permanent(err error) bool {
	var status *httpcall.StatusError
	if errors.Is(err, cache.ErrReadOnly) {
		return true
	}
	if errors.Is(err, cache.ErrExists) || !errors.As(err, &status) {
		return false
	}
	switch status.Status {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return status.Status < http.StatusInternalServerError
}

// note logs a kind of message once.
func (w *Worker) note(format string, args ...any) {
	if !w.noted[format] {
		w.noted[format] = true
		w.Log.Printf(format, args...)
	}
}

// name returns the name of a unit for people.
func (w *Worker) name(u int) string { return w.Units[u].Name }

// link returns a page in parentheses.
func link(url string) string {
	if url == "" {
		return ""
	}
	return " (" + url + ")"
}

func (w *Worker) result(u int, how job.UnitWay, from string, began time.Time) {
	r := job.UnitResult{ID: w.Units[u].ID, How: how, From: from, Started: began.UTC(), Seconds: time.Since(began).Seconds()}
	w.outcome.Units = append(w.outcome.Units, r)
}

// outlive returns a context that ends some time after ctx.
func outlive(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		_ = httpcall.Sleep(longer, by)
		cancel()
	})
	return longer, func() { stop(); cancel() }
}
