// Package build makes the Result of an entry of the matrix: it fetches the derivations, restores the
// outputs of earlier runs, builds the rest, pushes and saves it. It evaluates nothing.
package build

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/available"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/hooks"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push"
	"github.com/org/nix-matrix/pkg/realise"
	"github.com/org/nix-matrix/pkg/reuse"
	"github.com/org/nix-matrix/pkg/text"
)

// Options decide how entries are built.
type Options struct {
	Timeout     time.Duration   // of an entry; 0 is none
	MaxSilent   time.Duration   // of a builder; 0 is none
	KeepGoing   bool            // after a target has failed
	Retries     []time.Duration // pauses before failed downloads are tried again
	Reclaim     string          // disk space: auto, true or false
	PostBuild   hooks.PostBuild
	ShowLogs    bool   // lines of builders
	KeepLogs    string // directory for the whole logs of failed derivations, empty for none
	LogArtifact string // begins the name of the artifact with the logs, empty without one
	Hosted      bool   // on a runner of GitHub's
	Spread      bool   // wait before writing to the cache, because many entries may end together
}

// Log is where a person sees what happens.
type Log interface {
	io.Writer
	Doing(format string, args ...any)
	Printf(format string, args ...any)
	Warn(title string, err error)      // on the page of the run too
	Warnf(format string, args ...any)  // in the log alone
	See(event nix.Event, logs bool)    // of a build
	Verify(has func(path string) bool) // the outputs that Nix's log reports
	Failed(drv string)                 // for good
}

// A Worker makes Results of entries.
type Worker struct {
	Options
	Env   *access.Nix
	Plan  *job.Plan
	Hooks *hooks.Runner
	Log   Log
	// Restore imports the derivations into the store of this machine; nil if it has them.
	Restore func(ctx context.Context, drvs []string, result *job.Result) error
	Entry   *reuse.EntryCache // nil where nothing goes through the store cache
	Docs    *documents.Store  // for the claims to units; nil on one machine
	near    *oneStore         // with the other entries of the Plan; nil where each has a machine
}

// NewResult returns the Result of an entry before its build. plan is the key of its Plan; runner and url
// are the machine and the page of the job.
func NewResult(e *job.Entry, plan, runner, url string) *job.Result {
	now := time.Now().UTC()
	return &job.Result{
		Version:  job.Version,
		Plan:     plan,
		Entry:    e.ID,
		Name:     e.Name,
		Outcome:  job.OutcomeFailed,
		Error:    "the worker ended before it could say anything: it was killed, or the machine was lost",
		Started:  now,
		Finished: now,
		Runner:   runner,
		URL:      url,
		Targets:  []job.TargetResult{},
	}
}

// Work builds an entry, pushes the outputs, saves them for later runs, and runs the user's script. All
// errors are in the Result.
func (w *Worker) Work(ctx context.Context, e *job.Entry, result *job.Result) {
	result.Error = ""
	session := push.Start(ctx, w.Env.Store, w.destinations(result), w.Env.Push)
	building := ctx
	limit, by := w.limit(e)
	if limit > 0 {
		limited, cancel := context.WithDeadline(ctx, result.Started.Add(limit))
		defer cancel()
		building = limited
	}
	promised, err := w.realise(building, e, session, result)
	late := building.Err() != nil && ctx.Err() == nil && !allOK(result)
	w.finishPush(ctx, session, result, promised)
	if w.Spread {
		spread(ctx, len(w.Plan.Entries))
	}
	w.save(ctx, result)
	switch {
	case late:
		result.TimedOut = true
		result.Error = fmt.Sprintf("the deadline came %s after the start (%s); finished builds are kept, and a rerun continues from there", text.Duration(limit), by)
	case err == nil:
	case ctx.Err() != nil:
		result.Error = "the build was stopped"
	default:
		result.Error = err.Error()
	}
	if ctx.Err() == nil {
		w.Hooks.PostBuild(building, &w.PostBuild, w.Plan, result)
	}
	result.Conclude(ctx.Err() != nil)
	result.Finished = time.Now().UTC()
}

// limit returns how long an entry may take, 0 for any time, and what says so.
func (o *Options) limit(e *job.Entry) (limit time.Duration, by string) {
	own := time.Duration(e.Timeout) * time.Second
	if own > 0 && (o.Timeout == 0 || own < o.Timeout) {
		return own, "meta.nixMatrix.timeout of its targets"
	}
	return o.Timeout, "input timeout"
}

// finder asks the substituters of this machine's Nix.
func (w *Worker) finder() *available.Finder {
	return &available.Finder{Nix: func() available.Asker { return available.With(w.Env.Nix) }, Substituters: w.Env.Substituters, Log: w.Log}
}

func allOK(result *job.Result) bool {
	return len(result.Targets) > 0 && !slices.ContainsFunc(result.Targets, func(t job.TargetResult) bool { return !t.Outcome.OK() })
}

// needsEmulator reports whether this machine needs an emulator to build an entry.
func (w *Worker) needsEmulator(e *job.Entry) bool {
	return (e.QEMU || slices.Contains(w.emulated(), e.System)) && e.System != w.Env.System && !w.Env.Remotely(e.System)
}

// emulated returns the systems whose programs an emulator runs on the machine that builds. Those of a
// remote store's machine are not known.
func (w *Worker) emulated() []string {
	if w.Env.Remote != "" {
		return nil
	}
	return slices.DeleteFunc(access.Emulated(), func(system string) bool { return system == w.Env.System })
}

// destinations returns the destinations for which there is a secret, and records the others in the
// Result.
func (w *Worker) destinations(result *job.Result) []push.Destination {
	var to []push.Destination
	for _, d := range w.Env.Destinations {
		err := w.Env.NoSecret(&d)
		if err == nil {
			to = append(to, d)
			continue
		}
		p := job.Push{Destination: d.Name, Reason: job.PushNoSecret}
		w.Env.Unpushed(&p, err)
		result.Pushes = append(result.Pushes, p)
		w.Log.Warn("Nothing is pushed to "+d.Name, err)
	}
	return to
}

func (w *Worker) realise(ctx context.Context, e *job.Entry, session *push.Session, result *job.Result) (promised []string, err error) {
	targets := make([]realise.Target, len(e.Targets))
	var drvs, held []string
	for i, ref := range e.Targets {
		t := realise.Target{N: ref.N, Target: w.Plan.Targets[ref.N]}
		targets[i] = t
		drvs = append(drvs, t.DrvPath)
		held = slices.AppendSeq(held, maps.Values(t.OutPaths))
	}
	held = append(held, drvs...)
	if roots, err := w.Env.AddTempRoots(ctx, held...); err == nil {
		defer roots.Close()
	} else if ctx.Err() == nil {
		w.Log.Warn("A garbage collection may remove paths during the build", err)
	}
	if w.Env.Remote != "" {
		roots, err := w.Env.Store.AddTempRoots(ctx, held...)
		if err != nil {
			return nil, fmt.Errorf("cannot build in %s: %w", nix.Redact(w.Env.Remote), err)
		}
		defer roots.Close()
	}
	if w.Restore != nil {
		if err := w.Restore(ctx, drvs, result); err != nil {
			return nil, err
		}
	}
	if w.Env.Remote != "" {
		w.Log.Doing("copying derivations to %s", nix.Redact(w.Env.Remote))
		if err := w.Env.CopyDerivations(ctx, w.Env.Remote, drvs); err != nil {
			return nil, err
		}
	}
	if w.Entry != nil {
		if err := w.Entry.Restore(ctx, w.Env.Nix, w.finder(), targets, result); err != nil {
			return nil, err
		}
	}
	room, enough := context.WithCancel(ctx)
	defer enough()
	go w.makeRoom(room, w.store(e), targets)
	options := w.realiseOptions(e, session)
	w.Log.Doing("asking Nix which derivations to build")
	build := realise.Start(ctx, w.store(e), targets, options)
	shared := w.takeUnits(ctx, e, build, drvs, result)
	built, err := build.Finish(ctx)
	if ctx.Err() != nil && len(w.Env.Destinations) > 0 {
		w.pushUnseen(context.WithoutCancel(ctx), session, drvs)
	}
	result.Targets = built.Targets
	w.add(e, built, result)
	if shared != nil {
		defer shared.close()
		// The time of its own targets is too short for units of others.
		if err == nil && ctx.Err() == nil && e.Timeout == 0 && w.near.helps(result) {
			shared.help(ctx, options)
		}
	}
	if w.Entry != nil {
		w.Entry.MarkFetched(result)
	}
	return built.Promised, err
}

// add records builds, failures and downloads in a Result.
func (w *Worker) add(e *job.Entry, built *realise.Outcome, result *job.Result) {
	w.placeLogs(e, built.Failures)
	result.Failures = append(result.Failures, built.Failures...)
	result.Builds = append(result.Builds, built.Builds...)
	result.Emulated = result.Emulated || slices.ContainsFunc(built.Builds, func(b job.DrvBuild) bool { return b.Emulated })
	result.Fetched += built.Fetched.Paths
	result.FetchedBytes += built.Fetched.Bytes
	for _, b := range built.Builds {
		if b.Failed {
			w.Log.Failed(b.DrvPath)
		}
	}
}

// store returns the store with Nix's settings for an entry.
func (w *Worker) store(e *job.Entry) *nix.Nix { return w.Env.Store.WithOptions(w.options(e)...) }

func (w *Worker) realiseOptions(e *job.Entry, session *push.Session) realise.Options {
	logs := w.KeepLogs
	if logs != "" {
		logs = filepath.Join(logs, e.ID)
	}
	if w.Env.Remote == "" {
		w.Log.Verify(w.store(e).Has)
	}
	return realise.Options{
		Emit: func(event nix.Event) {
			w.Log.See(event, w.ShowLogs)
			if event.Kind == nix.BuildStopped {
				session.Built(event.Path)
			}
		},
		Retries: w.Retries,
		Retrying: func(drvs []string, pause time.Duration) {
			w.Log.Warnf("cannot fetch %s: retry in %v", strings.Join(Names(drvs), ", "), pause)
		},
		Warn:     func(text string) { w.Log.Warnf("%s", text) },
		FailFast: !w.KeepGoing,
		Remote:   w.Env.Remote != "",
		Silence:  w.remoteSilence(),
		Emulated: w.emulated(),
		Logs:     logs,
	}
}

// pushUnseen pushes the outputs of a stopped build that Nix's log did not report: the log lags behind Nix,
// and the rest of it is lost with the process.
func (w *Worker) pushUnseen(ctx context.Context, session *push.Session, drvs []string) {
	ctx, cancel := context.WithTimeout(ctx, push.Grace)
	defer cancel()
	built, err := w.builtHere(ctx, drvs)
	if err != nil {
		w.Log.Warnf("cannot ask for the outputs that were built before the stop: %v", err)
	}
	session.Push(built...)
}

// builtHere returns the outputs that the store has built itself, of the derivations and of their
// dependencies.
func (w *Worker) builtHere(ctx context.Context, drvs []string) ([]string, error) {
	closure, err := w.Env.Requisites(ctx, drvs...)
	if err != nil {
		return nil, err
	}
	closure = slices.DeleteFunc(closure, func(path string) bool { return !strings.HasSuffix(path, ".drv") })
	return w.Env.Store.BuiltHere(ctx, closure...)
}

// Names returns the names of derivations.
func Names(drvs []string) []string {
	all := make([]string, len(drvs))
	for i, drv := range drvs {
		all[i] = job.DrvName(drv)
	}
	return all
}

// options returns Nix's settings for an entry.
func (w *Worker) options(e *job.Entry) []nix.Option {
	var options []nix.Option
	if w.Env.Remote != "" { // only its own settings count
		return nil
	}
	if w.MaxSilent > 0 {
		options = append(options, nix.Set("max-silent-time", strconv.Itoa(int(w.MaxSilent.Seconds()))))
	}
	// Entries that are built at the same time on one machine wait for each other's locks, which Nix polls
	// every five seconds.
	options = append(options, nix.Set("build-poll-interval", "1"))
	if platforms := w.Env.Setting("extra-platforms"); w.needsEmulator(e) && !slices.Contains(platforms, e.System) {
		options = append(options, nix.Set("extra-platforms", append(platforms, e.System)...))
	}
	return options
}

// remoteSilence returns how long a builder of a remote store may print nothing: the store gets no settings
// of ours.
func (w *Worker) remoteSilence() time.Duration {
	if w.Env.Remote == "" {
		return 0
	}
	return w.MaxSilent
}

// save keeps the outputs for later runs, also if some targets failed.
func (w *Worker) save(ctx context.Context, result *job.Result) {
	if w.Entry == nil || ctx.Err() != nil {
		return
	}
	defer w.Log.Doing("")
	if err := w.Entry.Save(ctx, w.Env.Nix, result); err != nil && ctx.Err() == nil {
		w.Entry.Warn("Cannot save all outputs for later runs", err)
	}
}

// spread waits for a random part of the time in which that many jobs may each create two cache entries:
// GitHub accepts 200 a minute from a repository.
func spread(ctx context.Context, entries int) {
	const atOnce, perMinute = 100, 100
	if entries <= atOnce || ctx.Err() != nil {
		return
	}
	most := time.Duration(entries-atOnce) * time.Minute / perMinute
	select {
	case <-ctx.Done():
	case <-time.After(rand.N(most)): //nolint:gosec // a guess gains nothing
	}
}
