// Package discover makes the Plan of a repository: it evaluates installables, or takes the evaluation of an
// earlier run, decides which targets have to be built, and groups them into entries.
package discover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/available"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/evaluate"
	"github.com/org/nix-matrix/pkg/hooks"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
)

// Options decide what is discovered and how it is planned.
type Options struct {
	// Evaluate has the installables. Open sets its callbacks and System, and Systems where none is named.
	Evaluate evaluate.Options
	Choose   *plan.Chooser
	Planning plan.Options
	Access   *access.Config

	Proviso    *hooks.Proviso
	Reuse      bool // take the evaluation of an earlier run
	SkipProved bool // skip targets that the default branch has built, in a proposal that pushes nothing
	SkipUnread bool // skip targets that need a missing secret, in place of failing them
	// Overrides replace inputs of the flakes, and LockFile is read in place of a flake's own; empty for
	// that.
	Overrides []nix.Override
	LockFile  string
	// AcceptFlakeConfig says that the binary caches in the nixConfig of the flakes are trusted.
	AcceptFlakeConfig bool

	// SetUp is the user's script before everything.
	SetUp string
	// Local says that this machine builds, so that a path that is valid in its store needs no building.
	Local bool
	// Jobs is how many entries this machine builds at the same time, where it builds.
	Jobs int
	// Alone says that nothing goes from job to job through the store cache, so that each builds for itself.
	Alone bool
	// DryRun says that nothing is written to the cache.
	DryRun bool
	// PackFile is the file for the pack of derivations; empty for none.
	PackFile string
	// Public reports whether anybody can read the repository of the job.
	Public func(context.Context) bool
	// InFiles says that the user named files for the Plan and the pack, so that a full disk below the cache
	// is no error.
	InFiles bool
	// Version names this program in the fingerprint of an evaluation.
	Version string
}

// Log is where a person sees what happens.
type Log interface {
	io.Writer
	Doing(format string, args ...any)
	Step(format string, args ...any)
	Printf(format string, args ...any)
	Warn(title string, err error)
}

// A Discovery makes one Plan.
type Discovery struct {
	Options
	Env *access.Nix

	host   *access.Host
	docs   *documents.Store
	hooks  *hooks.Runner
	finder *available.Finder
	log    Log

	buildable   bool // the wanted systems are those that this machine builds for
	flakeConfig bool // the binary caches in the nixConfig of the flakes are used

	evaluation *evaluation // of the Plan
	base       *job.Record // of the default branch's last run, nil if it is not known
	baseAsked  bool
}

// DefaultSystems are wanted unless others are named.
var DefaultSystems = []string{"x86_64-linux", "aarch64-linux"}

// Open runs the user's script and opens Nix, whose Env the caller closes. The trust of docs gets the commits
// of the checkouts that are evaluated.
func Open(ctx context.Context, host *access.Host, docs *documents.Store, runner *hooks.Runner, log Log, o Options) (*Discovery, error) {
	if err := runner.SetUp(ctx, o.SetUp); err != nil {
		return nil, err
	}
	answers, err := host.Secrets.Dir() // of substituters, so that each question is asked once
	if err != nil {
		return nil, err
	}
	env, err := host.Open(ctx, o.Access, runner.Env, nil, nil)
	if err != nil {
		return nil, err
	}
	if o.Local {
		if err := env.Reach(ctx); err != nil {
			env.Close()
			return nil, err
		}
	}
	if err := o.lock(env); err != nil {
		env.Close()
		return nil, err
	}
	d := &Discovery{Options: o, Env: env, host: host, docs: docs, hooks: runner, log: log}
	d.finder = &available.Finder{Nix: func() available.Asker { return available.With(env.Remember(answers)) }, Substituters: env.Substituters, Log: log}
	var attr string // that is being evaluated
	e := &d.Evaluate
	e.System = env.System
	if len(e.Systems) == 0 {
		e.Systems = env.Buildable()
		d.buildable = e.Systems != nil
	}
	if len(e.Systems) == 0 {
		e.Systems = DefaultSystems
	}
	e.Progress = func(path string) { attr = path }
	e.Counted = func(done, total int) { log.Step("evaluating %d/%d %s", done, total, attr) }
	e.Explain = d.explain
	e.LockFlags = d.lockFlags
	e.Log = func(line string) { log.Printf("%s", line) }
	return d, nil
}

// asked returns the installables as a person would type them.
func (d *Discovery) asked() string {
	source := strings.Join(d.Evaluate.Installables, " ")
	if d.Evaluate.File != "" {
		source = "-f " + d.Evaluate.File
		for _, attr := range d.Evaluate.Attrs {
			source += " -A " + attr
		}
	}
	if source == "" {
		source = "."
	}
	for _, o := range d.Overrides {
		source += " --override-input " + o.Input + "=" + nix.Redact(o.Ref)
	}
	if d.LockFile != "" {
		source += " --reference-lock-file " + d.LockFile
	}
	return strings.ToValidUTF8(source, "\ufffd")
}

// Plan returns the Plan, from a new evaluation or that of an earlier run. It does not name the pack of its
// derivations yet.
func (d *Discovery) Plan(ctx context.Context) (*job.Plan, error) {
	if err := d.guard(ctx); err != nil {
		return nil, err
	}
	locked, err := d.locked(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.Env.Confine(ctx, d.Evaluate.Flakes(), len(locked) > 0); err != nil {
		return nil, err
	}
	lock, err := d.unlock(ctx, locked)
	if err != nil {
		return nil, err
	}
	defer lock()
	defer d.finder.Close()
	if err := d.resolveLock(ctx); err != nil {
		return nil, err
	}
	d.docs.Trust.Heads = d.heads(ctx)
	d.decideFlakeConfig(ctx)
	s := d.source(ctx)
	var programs []job.Program
	if e := s.recall(ctx); e != nil {
		d.evaluation = e
		p, err := d.choose(ctx, e)
		if err != nil {
			return nil, err
		}
		d.programs(ctx, e.Plan.Programs, p)
		programs = p.Programs
		if d.has(ctx, e, p) {
			d.log.Printf("nothing has changed since it was evaluated at %s", e.Plan.Created.Format("2006-01-02 15:04 UTC"))
			return p, d.group(ctx, e, p)
		}
	}
	e, err := d.evaluate(ctx, s)
	if err != nil {
		return nil, err
	}
	d.evaluation = e
	p, err := d.choose(ctx, e)
	if err != nil {
		return nil, err
	}
	d.programs(ctx, programs, p)
	return p, d.group(ctx, e, p)
}

// Marshal returns the JSON of a Plan. It is an error if a reader would not get the same Plan back.
func Marshal(p *job.Plan) ([]byte, error) {
	data, err := p.Marshal()
	if err != nil {
		return nil, err
	}
	var again []byte
	read, err := job.ParsePlan(data)
	if err == nil {
		again, err = read.Marshal()
	}
	if err == nil && !bytes.Equal(again, data) {
		err = errors.New("it reads as another plan")
	}
	if err != nil {
		return nil, fmt.Errorf("internal error: cannot read the new plan: %w. Report it, and leave the target out with --exclude (input exclude) meanwhile", err)
	}
	return data, nil
}
