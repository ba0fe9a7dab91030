package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/build"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push"
)

// A worker makes Results of entries.
type worker struct {
	app  *app
	nix  *nix.Nix
	plan *job.Plan
	key  string // of the plan
	push []push.Destination
	logs bool // show lines of build logs
	// restore brings the derivations into the store; nil when they are there.
	restore func(ctx context.Context, drvs []string, result *job.Result) error
}

// signingKey is the environment variable with the secret key that signs what is
// pushed by nix copy.
const signingKey = "NIX_MATRIX_SIGNING_KEY"

// secrets are those of the environment.
func (a *app) secrets(keyFile string) push.Secrets {
	return push.Secrets{KeyFile: keyFile, AtticToken: a.getenv("ATTIC_TOKEN")}
}

// newResult is the Result of an entry that nothing is known of yet.
func (a *app) newResult(e *job.Entry, plan string) *job.Result {
	now := time.Now().UTC()
	return &job.Result{
		Version:  job.Version,
		Plan:     plan,
		Entry:    e.ID,
		Name:     e.Name,
		Outcome:  job.Broken,
		Error:    "the worker ended before it could say anything: it was killed, or the machine was lost",
		Started:  now,
		Finished: now,
		Runner:   a.getenv("RUNNER_NAME"),
		URL:      a.action.RunURL(),
		Targets:  []job.TargetResult{},
	}
}

// work builds an entry and pushes what it has built. What goes wrong is in the
// Result.
func (w *worker) work(ctx context.Context, e *job.Entry, result *job.Result) {
	result.Error = ""
	result.Emulated = e.QEMU && e.System != w.nix.System
	targets := make([]build.Target, len(e.Targets))
	for i, ref := range e.Targets {
		targets[i] = build.Target{N: ref.N, Target: w.plan.Targets[ref.N]}
	}
	keyFile, remove, err := push.SecretFile(w.app.getenv(signingKey))
	if err == nil {
		defer remove()
		session := push.Start(ctx, w.nix, w.push, w.app.secrets(keyFile))
		err = w.realise(ctx, e, targets, session, result)
		w.finishPush(session, result)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		result.Error = "the build was stopped"
	default:
		result.Error = err.Error()
	}
	result.Outcome = outcome(ctx, result)
	result.Finished = time.Now().UTC()
}

func (w *worker) realise(ctx context.Context, e *job.Entry, targets []build.Target, session *push.Session, result *job.Result) error {
	var drvs, held []string
	for _, t := range targets {
		drvs = append(drvs, t.DrvPath)
		for _, path := range t.OutPaths {
			held = append(held, path)
		}
	}
	held = append(held, drvs...)
	if hold, err := w.nix.Hold(ctx, held...); err == nil {
		defer hold.Close()
	} else if ctx.Err() == nil {
		w.app.warn("A garbage collection may take away what is being built", err)
	}
	if w.restore != nil {
		if err := w.restore(ctx, drvs, result); err != nil {
			return err
		}
	}
	reading, remove := w.reading(ctx)
	defer remove()
	built, err := build.Run(ctx, w.nix, targets, build.Options{
		Nix: append(w.options(e), reading...),
		Emit: func(event nix.Event) {
			w.app.show.See(event, w.logs)
			if event.Kind == nix.BuildStopped {
				session.Built(event.Path)
			}
		},
	})
	result.Targets, result.Builds = built.Targets, built.Builds
	return err
}

// options are Nix's settings for an entry.
func (w *worker) options(e *job.Entry) []nix.Option {
	// Entries that are built side by side on one machine wait for each other's
	// locks; Nix looks at them every five seconds.
	options := []nix.Option{
		{Name: "build-poll-interval", Value: "1"},
		{Name: "fallback", Value: "true"}, // a cache that fails costs a build, no more
	}
	if platforms := w.nix.Setting("extra-platforms"); e.System != w.nix.System && !slices.Contains(platforms, e.System) && e.QEMU {
		options = append(options, nix.Option{Name: "extra-platforms", Value: strings.Join(append(platforms, e.System), " ")})
	}
	return options
}

// reading gives the settings with which Nix takes what it can from where we
// push, if it is known by which key that is signed.
func (w *worker) reading(ctx context.Context) ([]nix.Option, func()) {
	var signed []push.Destination
	for _, to := range w.push {
		if err := to.Dial(ctx, w.app.secrets("")); err != nil {
			w.app.warn("What is at "+to.Name+" already is built again", err)
		} else if to.PublicKey != "" {
			signed = append(signed, to)
		}
	}
	options, remove, err := w.app.reading(w.nix, signed)
	if err != nil {
		w.app.warn("What is at the binary caches already is built again", err)
	}
	for _, to := range signed {
		options = append(options,
			nix.Option{Name: "extra-substituters", Value: to.Substituter},
			nix.Option{Name: "extra-trusted-public-keys", Value: to.PublicKey})
	}
	return options, remove
}

// finishPush sends the outputs of what succeeded to all destinations, as far as
// they are not there yet, and records what became of it.
func (w *worker) finishPush(session *push.Session, result *job.Result) {
	var paths []string
	for _, t := range result.Targets {
		if t.Outcome.OK() {
			for _, o := range t.Outputs {
				paths = append(paths, o.Path)
			}
		}
	}
	for _, r := range session.Finish(paths) {
		p := job.Push{Destination: r.Destination, Paths: r.Paths, Seconds: r.Seconds}
		if r.Err != nil {
			p.Error = r.Err.Error()
			w.app.warn("Not all was pushed", r.Err)
		}
		result.Pushes = append(result.Pushes, p)
	}
}

// outcome is the worst of an entry's targets, or what happened beside them.
func outcome(ctx context.Context, result *job.Result) job.Outcome {
	worst := job.Present
	rank := []job.Outcome{job.Present, job.Fetched, job.Built, job.Cancelled, job.Broken}
	for _, t := range result.Targets {
		if slices.Index(rank, t.Outcome) > slices.Index(rank, worst) {
			worst = t.Outcome
		}
	}
	failed := result.Error != "" || slices.ContainsFunc(result.Pushes, func(p job.Push) bool { return p.Error != "" })
	switch {
	case worst == job.Broken:
		return job.Broken
	case ctx.Err() != nil && (failed || !worst.OK()):
		return job.Cancelled
	case failed:
		return job.Broken
	default:
		return worst
	}
}

// announce shows in a line what became of an entry, and puts what went wrong on
// the run's page.
func (a *app) announce(r *job.Result) {
	took := job.Duration(r.Finished.Sub(r.Started))
	if r.Outcome.OK() {
		a.show.Good("%s: %s, %d %s built in %s", r.Name, r.Outcome, len(r.Builds), plural(len(r.Builds), "derivation", "derivations"), took)
	} else {
		a.show.Bad("%s: %s after %s", r.Name, r.Outcome, took)
	}
	if r.Error != "" {
		a.action.Annotate(action.LevelError, r.Name, r.Error)
	}
	for i := range r.Targets {
		if t := &r.Targets[i]; t.Outcome == job.Broken {
			a.action.Annotate(action.LevelError, t.Attr, failure(t))
		}
	}
}

// explain shows all that is known of what went wrong in an entry.
func (a *app) explain(r *job.Result) {
	if r.Error != "" {
		a.show.Printf("%s", indent(r.Error))
	}
	for i := range r.Targets {
		if t := &r.Targets[i]; !t.Outcome.OK() {
			a.show.Printf("%s", indent(t.Attr+": "+failure(t)))
		}
	}
}

func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

// failure says in one paragraph why a target failed.
func failure(t *job.TargetResult) string {
	text := t.Error
	if len(t.Log) > 0 {
		text += "\n> " + strings.Join(t.Log[max(0, len(t.Log)-10):], "\n> ")
	}
	if t.Reproduce != "" && t.Outcome == job.Broken {
		text += "\nTo see it at home: " + t.Reproduce
	}
	return text
}

// writeResult writes a Result to a file.
func writeResult(file string, r *job.Result) error {
	data, err := r.Marshal()
	if err != nil {
		return err
	}
	if err := writeFile(file, data); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// readResults reads all Results of a directory. One that can't be read is an
// error beside the others.
func readResults(dir string) ([]*job.Result, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var results []*job.Result
	var errs []error
	for _, f := range files {
		if f.IsDir() || !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		data, err := os.ReadFile(dir + "/" + f.Name())
		if err == nil {
			var r *job.Result
			if r, err = job.ParseResult(data); err == nil {
				results = append(results, r)
				continue
			}
		}
		errs = append(errs, fmt.Errorf("%s: %w", f.Name(), err))
	}
	return results, errors.Join(errs...)
}
