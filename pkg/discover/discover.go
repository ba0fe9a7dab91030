// Package discover makes the Plan of a repository: it evaluates installables, or takes the evaluation of an
// earlier run, decides which targets have to be built, and groups them into entries.
package discover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/available"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/evaluate"
	"github.com/org/nix-matrix/pkg/git"
	"github.com/org/nix-matrix/pkg/hooks"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/text"
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

	// SetUp is the user's script before everything.
	SetUp string
	// Local says that this machine builds, so that a path that is valid in its store needs no building.
	Local bool
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

	buildable  bool        // the wanted systems are those that this machine builds for
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
	env, err := host.Open(ctx, o.Access, nil, nil)
	if err != nil {
		return nil, err
	}
	if o.Local {
		if err := env.Reach(ctx); err != nil {
			env.Close()
			return nil, err
		}
	}
	d := &Discovery{Options: o, Env: env, host: host, docs: docs, hooks: runner, log: log}
	d.finder = &available.Finder{Nix: func() available.Asker { return env.Remember(answers) }, Substituters: env.Substituters, Log: log}
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
	d.docs.Trust.Heads = d.heads(ctx)
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

// heads returns the commits of the checkouts that are evaluated, and an empty text for an installable that
// asks for another commit of a checkout.
func (d *Discovery) heads(ctx context.Context) []string {
	all := git.Heads(ctx, nix.Environ(), d.directories()...)
	for _, installable := range d.Evaluate.Installables {
		if namesCommit(installable) {
			all = append(all, "")
		}
	}
	return all
}

// namesCommit reports whether an installable may ask for another commit of a checkout than HEAD.
func namesCommit(installable string) bool {
	ref, _, _ := strings.Cut(installable, "#")
	ref, text, _ := strings.Cut(ref, "?")
	if scheme, _, ok := strings.Cut(ref, ":"); ok && scheme != "git+file" && scheme != "path" {
		return false // there is no checkout
	}
	query, err := url.ParseQuery(text)
	return err != nil || query.Has("ref") || query.Has("rev")
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

// choose returns a Plan of an evaluation whose targets are skipped or to be built.
func (d *Discovery) choose(ctx context.Context, e *evaluation) (*job.Plan, error) {
	p := *e.Plan
	p.Drvs, p.Heads = nil, d.docs.Trust.Heads
	p.Created = time.Now().UTC().Truncate(time.Second)
	if e.unread != "" {
		p.Notices = append(p.Notices, fmt.Sprintf("Cannot evaluate %s, so nothing of it is built: it %s.", d.asked(), e.unread))
	}
	p.Notices = append(p.Notices, d.Env.Notices...)
	p.Targets = slices.Clone(p.Targets)
	d.skipUnread(p.Targets)
	if len(e.Omitted) > 0 {
		p.Notices = append(p.Notices, d.omitted(e.Omitted))
	}
	if len(e.Passed) > 0 {
		p.Notices = append(p.Notices, fmt.Sprintf("Not built, since they are not derivations: %s.", text.Some(e.Passed, 20)))
	}
	var left []string
	var err error
	if p.Targets, left, err = d.Choose.Choose(ctx, p.Targets, e.Meta); err != nil {
		return nil, usage.Wrap(err)
	}
	if len(left) > 0 {
		p.Notices = append(p.Notices, fmt.Sprintf("Left out by filter_builds: %s.", text.Some(left, 20)))
	}
	wanted := evaluated(p.Targets)
	if len(wanted) == 0 && len(left) > 0 && !d.Evaluate.AllowEmpty {
		return nil, usage.Errorf("filter_builds is true for none of %s: %s. Correct the expression, or allow that with --allow-empty (input allow_empty)",
			text.Plural(len(left), "target"), text.Some(left, 20))
	}
	d.Env.Read(p.Substituters, p.PublicKeys)
	d.skipProved(ctx, p.Targets)
	d.log.Doing("asking which outputs are available")
	if e.places, err = d.skip(ctx, p.Targets); err != nil {
		return nil, err
	}
	asked := len(toBuild(&p))
	d.hooks.AskProviso(ctx, d.Proviso, p.Targets)
	if asked > 0 && asked == len(wanted) && len(toBuild(&p)) == 0 && !d.Evaluate.AllowEmpty {
		return nil, usage.Errorf("the proviso leaves out all of %s: %s. Correct the script, or allow that with --allow-empty (input allow_empty)",
			text.Plural(asked, "target"), text.Some(wanted, 20))
	}
	return &p, nil
}

// omitted returns the notice about attributes that are left out because of their system.
func (d *Discovery) omitted(attrs []string) string {
	if d.buildable {
		return fmt.Sprintf("Left out, because this machine builds only %s: %s. Register an emulator with binfmt_misc or add a remote builder; --systems tries any system.",
			strings.Join(d.Evaluate.Systems, " and "), text.Some(attrs, 20))
	}
	return fmt.Sprintf("Left out, since only %s are wanted: %s. Name more systems with --systems (input systems).", strings.Join(d.Evaluate.Systems, " and "), text.Some(attrs, 20))
}

// evaluated returns the names of the targets that are not failed.
func evaluated(targets []job.Target) []string {
	var names []string
	for i := range targets {
		if targets[i].State != job.StateFailed {
			names = append(names, targets[i].Name)
		}
	}
	return names
}

// group makes the entries.
func (d *Discovery) group(ctx context.Context, e *evaluation, p *job.Plan) (err error) {
	if d.Planning.Missing, err = d.missing(ctx, e, p); err != nil {
		return err
	}
	for _, t := range p.Targets {
		here := d.Local && !plan.HasRunner(t.System) // this machine needs none
		if (here || d.Env.Remotely(t.System)) && len(d.Planning.Runners[t.System]) == 0 {
			d.Planning.Runners[t.System] = plan.AnyRunner
		}
	}
	took := func(entry *job.Entry) job.EntryTime {
		record := d.record(ctx)
		if record == nil {
			return job.EntryTime{}
		}
		return record.Entries[job.EntryKey(entry.Name, entry.System, entry.QEMU)]
	}
	d.Planning.Took = func(entry *job.Entry) float64 { return took(entry).Seconds }
	if p.Entries, err = plan.Entries(p.Targets, d.Planning); err != nil {
		return usage.Wrap(err)
	}
	if !d.Local {
		p.Savers = d.Planning.Missing.Savers(p.Entries)
	}
	p.Took = map[string]job.EntryTime{}
	for i := range p.Entries {
		if t := took(&p.Entries[i]); t.Seconds > 0 {
			p.Took[p.Entries[i].ID] = t
		}
	}
	if refused := d.Planning.Runners.Refused(p.Targets); refused != "" && !d.Local {
		p.Notices = append(p.Notices, refused)
	}
	if unused := d.Planning.Runners.Unused(p.Targets); unused != "" && !d.Local {
		p.Notices = append(p.Notices, unused)
	}
	for i := range p.Entries {
		if e := &p.Entries[i]; e.QEMU && !d.Local && !slices.Contains(p.Emulated, e.System) {
			p.Emulated = append(p.Emulated, e.System)
		}
	}
	return nil
}
