package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/push"
	"github.com/org/nix-matrix/pkg/realise"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/text"
)

// A worker makes Results of entries.
type worker struct {
	app  *app
	site *site
	plan *job.Plan
	key  string // of the plan
	working
	showLogs bool
	keepLogs string // directory for the logs of what failed
	// restore brings the derivations into the store of this machine; nil when they
	// are there.
	restore func(ctx context.Context, drvs []string, result *job.Result) error
	stock   *stock // nil where nothing goes through the store cache
}

// working is what a user can say of how entries are built.
type working struct {
	timeout   time.Duration // of an entry; 0 is none
	silence   time.Duration // of a derivation
	keepGoing bool          // where nothing that was asked for can be built any more
	reclaim   string        // auto, true or false
	post      string        // script of the user's
	postNeeds []string      // variables that it needs
}

// workingFlags are those of the commands that build.
type workingFlags struct {
	timeout, silence, reclaim, post string
	postNeeds                       []string
	keepGoing                       bool
}

func (o *workingFlags) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.timeout, "timeout", or(a.action.Input("timeout"), a.defaultTimeout()),
		"how long an entry may take, such as 5h20m; what is finished by then is pushed, and a rerun goes on from there")
	f.StringVar(&o.silence, "max-silent-time", a.action.Input("max_silent_time"), "how long a builder may print nothing, as a `TIME`")
	a.boolFlag(cmd, &o.keepGoing, "keep-going", true,
		"go on with what else an entry needs when none of its targets can be built any more, for later runs to start from")
	f.StringVar(&o.post, "post-build", a.action.Input("post_build"),
		"bash `SCRIPT` to run for each target that is built, with NIX_MATRIX_OUT, _OUTPUTS, _ATTR, _NAME, _HOST, _KIND, _SYSTEM and _DRV in its environment")
	f.StringSliceVar(&o.postNeeds, "post-build-needs", words(a.action.Input("post_build_needs")), "`VARIABLE`s without which post-build is left out")
	f.StringVar(&o.reclaim, "reclaim-disk", or(a.action.Input("reclaim_disk"), "auto"),
		"auto, true or false: remove what is preinstalled on GitHub's own runners, by default when room is foreseen to be short")
}

// defaultTimeout leaves time to push before GitHub ends a job of its own runners,
// which it does after six hours.
func (a *app) defaultTimeout() string {
	if a.hosted() {
		return "5h20m"
	}
	return "0"
}

func (o *workingFlags) parse() (working, error) {
	w := working{reclaim: o.reclaim, post: o.post, postNeeds: o.postNeeds, keepGoing: o.keepGoing}
	var err error
	if w.timeout, err = duration("timeout", o.timeout); err != nil {
		return w, err
	}
	if w.silence, err = duration("max-silent-time", o.silence); err != nil {
		return w, err
	}
	return w, oneOf("reclaim-disk", o.reclaim, "auto", "true", "false")
}

// newResult is the Result of an entry that nothing is known of yet.
func (a *app) newResult(e *job.Entry, plan string) *job.Result {
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
		Runner:   a.getenv("RUNNER_NAME"),
		URL:      a.action.JobURL(),
		Targets:  []job.TargetResult{},
	}
}

// work builds an entry, pushes what it has built and does what the user wants
// besides. What goes wrong is in the Result.
func (w *worker) work(ctx context.Context, e *job.Entry, result *job.Result) {
	result.Error = ""
	result.Emulated = w.emulated(e)
	session := push.Start(ctx, w.site.store, w.destinations(result), w.site.push)
	building := ctx
	if w.timeout > 0 {
		limited, cancel := context.WithDeadline(ctx, result.Started.Add(w.timeout))
		defer cancel()
		building = limited
	}
	promised, err := w.realise(building, e, session, result)
	late := building.Err() != nil && ctx.Err() == nil && !allOK(result)
	w.finishPush(ctx, session, result, promised)
	if w.app.inActions() {
		spread(ctx, len(w.plan.Entries))
	}
	w.save(ctx, result)
	switch {
	case late:
		result.TimedOut = true
		result.Error = fmt.Sprintf("the deadline came %s after the start (input timeout); what was finished is kept, and a rerun goes on from there", text.Duration(w.timeout))
	case err == nil:
	case ctx.Err() != nil:
		result.Error = "the build was stopped"
	default:
		result.Error = err.Error()
	}
	if ctx.Err() == nil {
		w.postBuild(building, result)
	}
	result.Conclude(ctx.Err() != nil)
	result.Finished = time.Now().UTC()
}

func allOK(result *job.Result) bool {
	return len(result.Targets) > 0 && !slices.ContainsFunc(result.Targets, func(t job.TargetResult) bool { return !t.Outcome.OK() })
}

// emulated says whether an entry is built under qemu.
func (w *worker) emulated(e *job.Entry) bool {
	return e.QEMU && e.System != w.site.nix.System && !w.site.elsewhere(e.System)
}

// destinations returns those that we have the means to push to. The Result says which
// others there are.
func (w *worker) destinations(result *job.Result) []push.Destination {
	var to []push.Destination
	for _, d := range w.site.to {
		err := w.site.noSecret(&d)
		if err == nil {
			to = append(to, d)
			continue
		}
		p := job.Push{Destination: d.Name, Reason: job.PushNoSecret}
		w.site.unpushed(&p, err)
		result.Pushes = append(result.Pushes, p)
		w.app.warn("Nothing is pushed to "+d.Name, err)
	}
	return to
}

func (w *worker) realise(ctx context.Context, e *job.Entry, session *push.Session, result *job.Result) (promised []string, err error) {
	targets := make([]realise.Target, len(e.Targets))
	var drvs, held []string
	for i, ref := range e.Targets {
		t := realise.Target{N: ref.N, Target: w.plan.Targets[ref.N]}
		targets[i] = t
		drvs = append(drvs, t.DrvPath)
		held = slices.AppendSeq(held, maps.Values(t.OutPaths))
	}
	held = append(held, drvs...)
	if hold, err := w.site.nix.Hold(ctx, held...); err == nil {
		defer hold.Close()
	} else if ctx.Err() == nil {
		w.app.warn("A garbage collection may take away what is being built", err)
	}
	if w.site.remote != "" {
		hold, err := w.site.store.Hold(ctx, held...)
		if err != nil {
			return nil, fmt.Errorf("build in %s: %w", nix.Redact(w.site.remote), err)
		}
		defer hold.Close()
	}
	if w.restore != nil {
		if err := w.restore(ctx, drvs, result); err != nil {
			return nil, err
		}
	}
	if w.site.remote != "" {
		w.app.show.Doing("copying derivations to %s", nix.Redact(w.site.remote))
		if err := w.site.nix.CopyDerivations(ctx, w.site.remote, drvs); err != nil {
			return nil, err
		}
	}
	if w.stock != nil {
		if err := w.stock.restore(ctx, w.site, targets, result); err != nil {
			return nil, err
		}
	}
	store := w.site.store.With(w.options(e)...)
	room, enough := context.WithCancel(ctx)
	defer enough()
	go w.makeRoom(room, store, targets)
	logs := w.keepLogs
	if logs != "" {
		logs = filepath.Join(logs, e.ID)
	}
	if w.site.remote == "" {
		w.app.show.Verify(store.Has)
	}
	w.app.show.Doing("asking Nix what is to be built")
	built, err := realise.Run(ctx, store, targets, realise.Options{
		Emit: func(event nix.Event) {
			w.app.show.See(event, w.showLogs)
			if event.Kind == nix.BuildStopped {
				session.Built(event.Path)
			}
		},
		Retries: fetchRetries,
		Retrying: func(drvs []string, pause time.Duration) {
			w.app.show.Warn("%s could not be fetched: trying again in %v", strings.Join(names(drvs), ", "), pause)
		},
		Warn:     func(text string) { w.app.show.Warn("%s", text) },
		FailFast: !w.keepGoing,
		Remote:   w.site.remote != "",
		Silence:  w.remoteSilence(),
		Logs:     logs,
	})
	if ctx.Err() != nil && len(w.site.to) > 0 {
		w.pushUnseen(context.WithoutCancel(ctx), session, drvs)
	}
	result.Targets, result.Failures, result.Builds = built.Targets, built.Failures, built.Builds
	if w.stock != nil {
		w.stock.fetched(result)
	}
	result.Fetched, result.FetchedBytes = built.Fetched.Paths, built.Fetched.Bytes
	for _, b := range built.Builds {
		if b.Failed {
			w.app.show.Failed(b.DrvPath)
		}
	}
	return built.Promised, err
}

// pushUnseen has the session push what a stopped build of the derivations has built although
// no event said so: Nix's log lags behind Nix, and the rest of it is lost with the process.
func (w *worker) pushUnseen(ctx context.Context, session *push.Session, drvs []string) {
	ctx, cancel := context.WithTimeout(ctx, push.Grace)
	defer cancel()
	built, err := w.builtHere(ctx, drvs)
	if err != nil {
		w.app.show.Warn("cannot ask for all that was built before the stop: %v", err)
	}
	for _, drv := range built {
		session.Built(drv)
	}
}

// builtHere returns the derivations, of those given and all that they need, with outputs
// that the store has built itself.
func (w *worker) builtHere(ctx context.Context, drvs []string) ([]string, error) {
	closure, err := w.site.nix.Requisites(ctx, drvs...)
	if err != nil {
		return nil, err
	}
	closure = slices.DeleteFunc(closure, func(path string) bool { return !strings.HasSuffix(path, ".drv") })
	outputs, err := w.site.store.Outputs(ctx, closure...)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, byName := range outputs {
		paths = slices.AppendSeq(paths, maps.Values(byName))
	}
	valid, err := w.site.store.Valid(ctx, slices.DeleteFunc(paths, func(path string) bool { return path == "" })...)
	if err != nil {
		return nil, err
	}
	infos, err := w.site.store.FullInfo(ctx, slices.Collect(maps.Keys(valid))...)
	if err != nil {
		return nil, err
	}
	here := map[string]bool{}
	for i := range infos {
		here[infos[i].Path] = infos[i].Ultimate
	}
	return slices.DeleteFunc(closure, func(drv string) bool {
		return !slices.ContainsFunc(slices.Collect(maps.Values(outputs[drv])), func(path string) bool { return here[path] })
	}), nil
}

// fetchRetries are the pauses before what could not be fetched is tried again.
var fetchRetries = []time.Duration{5 * time.Second, 20 * time.Second}

func names(drvs []string) []string {
	all := make([]string, len(drvs))
	for i, drv := range drvs {
		all[i] = job.DrvName(drv)
	}
	return all
}

// options are Nix's settings for an entry.
func (w *worker) options(e *job.Entry) []nix.Option {
	var options []nix.Option
	if w.site.remote != "" { // whose own settings count, and no others
		return nil
	}
	if w.silence > 0 {
		options = append(options, nix.Set("max-silent-time", strconv.Itoa(int(w.silence.Seconds()))))
	}
	// Entries that are built side by side on one machine wait for each other's
	// locks; Nix looks at them every five seconds.
	options = append(options, nix.Set("build-poll-interval", "1"))
	if platforms := w.site.nix.Setting("extra-platforms"); w.emulated(e) && !slices.Contains(platforms, e.System) {
		options = append(options, nix.Set("extra-platforms", append(platforms, e.System)...))
	}
	return options
}

// remoteSilence is how long a builder of a remote store may print nothing, which gets no
// settings of ours.
func (w *worker) remoteSilence() time.Duration {
	if w.site.remote == "" {
		return 0
	}
	return w.silence
}

// save keeps what was built for later runs, also where not all was.
func (w *worker) save(ctx context.Context, result *job.Result) {
	if w.stock == nil || ctx.Err() != nil {
		return
	}
	defer w.app.show.Doing("")
	if err := w.stock.save(ctx, w.site, result); err != nil && ctx.Err() == nil {
		w.app.spare("Not all was saved for later runs", err)
	}
}

// announce shows in a line what became of an entry, and puts what went wrong on
// the run's page.
func (a *app) announce(r *job.Result) {
	took := text.Duration(r.Finished.Sub(r.Started))
	if r.Outcome.OK() {
		a.show.Good("%s: %s, %s built in %s", r.Name, r.Outcome, text.Plural(len(r.Builds), "derivation"), took)
	} else {
		a.show.Bad("%s: %s after %s", r.Name, r.Outcome, took)
	}
	if r.Error != "" {
		a.action.Annotate(action.LevelError, r.Name, r.Error)
	}
	for i := range r.Targets {
		if t := &r.Targets[i]; t.Outcome == job.OutcomeFailed {
			a.action.AnnotateAt(action.LevelError, t.Attr, report.Failure(t), t.File, t.Line)
		}
	}
}

// explain shows all that is known of what went wrong in an entry.
func (a *app) explain(r *job.Result) {
	if lines := report.TimeLine(r); lines != "" {
		a.show.Printf("%s", lines)
	}
	if r.Error != "" {
		a.show.Printf("%s", indent(r.Error))
	}
	for i := range r.Targets {
		if t := &r.Targets[i]; !t.Outcome.OK() {
			a.show.Printf("%s", indent(t.Attr+": "+report.Failure(t)))
		}
	}
}

func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

// writeResult writes a Result to a file, sealed unless the key is nil.
func writeResult(file string, r *job.Result, seal *pack.Key) error {
	data, err := r.Marshal()
	if err != nil {
		return err
	}
	if err := writeFile(file, seal.Seal(resultDocument, data)); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}
