// Package claim lets the jobs of a run build each unit of the Plan once: a job claims a unit through
// the cache, builds it, and hands it over to all others.
//
// # Claims
//
// A claim is a blob under a key that only one job can create: a cache refuses a second save of a key
// at once, while lookups lag. So a lookup without a result proves nothing, but a refusal does. Before
// a worker claims a unit it looks, because refused creations may count for the limit of the service.
//
// While its holder builds, it creates a key with the next beat after each interval (Plan.Beat). A
// worker that has seen no newer beat for three intervals and the lag of lookups takes the holder for
// dead and claims the unit with the next try. It measures that on its own clock, from when it saw the
// last beat, so clocks of machines are never compared. A holder that was late publishes all the same:
// contents are checked by hash, and a unit that is built counts, from any job.
//
// A claim that was refused is nevertheless the worker's own if it names it: then the answer was lost.
// That is believed for one interval, because after three the others no longer wait.
//
// # Caches that do not refuse
//
// In front of a cache of which [cache.LastWins] is true, two saves under one key can both succeed, if
// both began before one ended. Then a worker reads its claim back after a pause (settle), and holds it
// if it is named. If saving took longer than the pause, the worker does not hold it. This is Fischer's
// algorithm: two who both hold would both have looked before the first claim was stored, so the second
// was stored within a pause after that, and before the first was read back; but then both have read the
// same.
//
// # Handing over
//
// The done document of a unit names its packs, or its failures. If its outputs are small, their pack lies in
// the same blob, behind the document, so that a unit takes two keys and no third. The newest document counts. A unit that is built
// counts from any attempt of the run, one that failed only from this one. A holder that cannot build a
// unit, or is cancelled, gives it back: the others claim the next try at once. So they do if a document
// is damaged or the outputs cannot be taken. A holder whose build failed looks whether another one has
// built the unit meanwhile, and then takes that.
//
// # One process
//
// Workers with Near share a process, and a store of which each sees at once what the others have built.
// All of them live as long as their claims, so a holder is waited for as long as it builds. A unit that needs
// one that failed is built all the same, by one of them: as far as it does not need what has failed.
//
// # No deadlock, no endless wait
//
// A worker claims a unit only when it has all that the unit needs, and builds it at once. Waiting for a
// holder that lives is bounded too; then the worker builds the unit without a claim. A cache that may
// not be written, or fails for some minutes, ends the claims: the caller builds everything.
package claim

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
)

// A Worker takes units of one Plan in one job of the run.
type Worker struct {
	Docs       *documents.Store // whose run must be another for each run: without one nothing is claimed
	Units      []job.Unit
	Entry, URL string        // the holder that claims name
	Beat       time.Duration // after which a claim is renewed (Plan.Beat)
	Needs      []bool        // by unit: whether this job needs its outputs itself; nil for a helper
	May        []bool        // by unit: whether this job's runner may build it
	Have       []bool        // by unit: outputs valid already (nothing to do); Help reads it again
	Number     int           // of the entry in the Plan: makes the order of claims differ between workers
	Helper     bool          // builds units that it does not need, too
	// Near says that all workers are in this process, and Docs in its memory: no holder dies, and a look
	// costs nothing.
	Near bool
	// FailFast ends Run and Help after a unit that failed.
	FailFast bool
	// Blocked is called when it is seen that a unit that this job needs has failed in another one. It may
	// be nil.
	Blocked func(done *job.Done)
	Hands   Hands
	Log     Log

	m       *machine
	holder  job.Claim
	started time.Time
	outcome Outcome
	noted   map[string]bool // messages that were logged
	renewal func()          // stops it; nil without a claim
	// publishing is the hand-over of the unit before, if it is not finished.
	publishing sync.WaitGroup
}

// Hands do the work.
type Hands interface {
	// Build builds a unit, and saves its outputs. The Done has Outcome, Seconds, Index and
	// Failures. A unit that cannot be built here is OutcomeCancelled, which gives it back.
	Build(ctx context.Context, unit int) *job.Done
	// Take makes the outputs of units valid here that other jobs have built, and returns the error of
	// each.
	Take(ctx context.Context, units []int, done []*job.Done) []error
	// Rest builds what depends on no open unit, and reports whether there was anything to build.
	// The outputs of open units are not here.
	Rest(ctx context.Context, open []bool) bool
}

// Log is where a person sees what happens.
type Log interface {
	Doing(format string, args ...any)
	Printf(format string, args ...any)
	Warn(title string, err error) // on the page of the run too
	Warnf(format string, args ...any)
}

// An Outcome is what became of the units that a job needs.
type Outcome struct {
	// Failed has the units that failed, in this job or in another one, by number.
	Failed map[int]*job.Done
	// Units has those that were built here, taken, or failed. What is in neither is to be built by
	// the caller.
	Units  []job.UnitResult
	Waited time.Duration // with nothing else to do
}

// Run returns when this job needs no unit any more, or cannot get one.
func (w *Worker) Run(ctx context.Context) Outcome {
	if w.start(w.limits()) {
		w.loop(ctx)
	}
	return w.outcome
}

// Help goes on, after the job's own targets are done, while a unit that may be built here is ready
// and nobody's. It returns what became of the units that it took.
func (w *Worker) Help(ctx context.Context) Outcome {
	if !w.start(w.limits()) {
		return Outcome{}
	}
	w.outcome = Outcome{Failed: map[int]*job.Done{}}
	w.m.have(w.Have)
	w.m.helpOn()
	w.loop(ctx)
	return w.outcome
}

func (w *Worker) limits() limits {
	if w.Near {
		return nearLimits()
	}
	return newLimits(w.Beat)
}

// start makes the machine unless there is one. It reports whether units can be claimed at all.
func (w *Worker) start(l limits) bool {
	if w.m == nil {
		w.Beat = l.beat
		w.outcome.Failed, w.noted = map[int]*job.Done{}, map[string]bool{}
		if w.started.IsZero() {
			w.started = time.Now()
		}
		w.holder = job.Claim{Holder: rand.Text(), Entry: w.Entry, URL: w.URL}
		w.m = newMachine(l, w.Units, w.attempt(), w.Number, w.Needs, w.May, w.Have, w.Helper)
		w.m.near = w.Near
	}
	return w.Docs != nil && w.Docs.Cache != nil && w.Docs.Run > 0 && len(w.Units) > 0
}

func (w *Worker) attempt() int {
	if w.Docs == nil {
		return 0
	}
	return w.Docs.Attempt
}

// now is the time on the worker's clock, which never jumps.
func (w *Worker) now() time.Duration { return time.Since(w.started) }

// loop does what the machine says.
func (w *Worker) loop(ctx context.Context) {
	defer w.Log.Doing("")
	defer w.publishing.Wait()
	for ctx.Err() == nil {
		switch a := w.m.next(w.now()); a.do {
		case actEnd:
			return
		case actLook:
			w.look(ctx, a.units)
		case actTake:
			w.take(ctx, a.units)
		case actClaim:
			w.claim(ctx, a.unit, a.try)
		case actBuild:
			w.build(ctx, a.unit, a.try)
		case actRelease:
			w.release(ctx, a.unit, a.try)
		case actAlone:
			w.buildAlone(ctx, a.unit)
		case actRest:
			w.Log.Doing("")
			w.Hands.Rest(ctx, a.open)
			w.m.restedWith(a.open)
		case actWait:
			w.wait(ctx, a.until)
		}
		w.keep(ctx)
		if w.FailFast && len(w.outcome.Failed) > 0 {
			break
		}
	}
	if w.m.holding >= 0 { // cancelled between the claim and the build
		w.release(ctx, w.m.holding, w.m.try)
	}
	w.keep(ctx)
}

// keep renews the claim that the worker holds, if any, as long as it holds it.
func (w *Worker) keep(ctx context.Context) {
	switch holding := w.m.holding >= 0; {
	case holding && w.renewal == nil:
		w.renewal = w.renew(ctx, w.m.holding, w.m.try)
	case !holding && w.renewal != nil:
		w.renewal()
		w.renewal = nil
	}
}
