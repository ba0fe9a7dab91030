package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/evaluate"
	"github.com/org/nix-matrix/pkg/git"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/text"
)

// discovery is what the commands that discover have in common.
type discovery struct {
	directory    string
	installables []string
	file         string
	attrs        []string
	systems      []string
	include      []string
	exclude      []string
	allowEmpty   bool
	args         []string // NAME=EXPRESSION
	argStrs      []string // NAME=TEXT
	nixPath      []string // NAME=PATH
	hostAttr     string
	evalWorkers  string
	evalTimeout  string
	evalMemory   string // MiB
	runners      string
	qemu         string
	maxEntries   string
	jobs         string // per system
	filter       string // jq expression
	label        string // jq expression
	proviso      string // script of the user's
	setup        string // script of the user's
	reuse        bool   // an evaluation of before
	trustProved  bool   // what the default branch has built
	onMissing    string // secret: fail or skip
	surroundings surroundings

	left     *job.Record // by the default branch's last run, nil if it is not known
	looked   bool        // for that
	packFile string      // for the pack of derivations, where one is wanted

	provisos map[string]*decision // by target

	// local says that what is valid in the store of this machine needs no
	// building, since this machine builds.
	local bool
	// buildable says that nobody named systems, so that they are those that this machine
	// builds for.
	buildable bool
}

func (d *discovery) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&d.file, "file", "f", a.action.Input("file"), "a Nix `FILE`, such as default.nix, instead of a flake")
	f.StringArrayVarP(&d.attrs, "attr", "A", a.action.Lines("attr"), "attribute path in the file; may be repeated")
	if d.local {
		f.StringSliceVar(&d.systems, "systems", words(a.action.Input("systems")), "`SYSTEM`s that are wanted (default: those that this machine builds for, emulated ones and those of its remote builders included)")
	} else {
		f.StringSliceVar(&d.systems, "systems", orWords(a.action.Input("systems"), defaultSystems...), "`SYSTEM`s that are wanted")
	}
	f.StringArrayVar(&d.include, "include", a.action.Lines("include"), "`GLOB` on attribute paths of what is wanted: * is one name or a part of it, ** any number; may be repeated")
	f.StringArrayVar(&d.exclude, "exclude", a.action.Lines("exclude"), "`GLOB` of what is not wanted, and is not evaluated; may be repeated")
	a.boolFlag(cmd, &d.allowEmpty, "allow-empty", false, "a glob may match nothing, filter-builds and proviso may leave nothing, and there may be nothing to build")
	f.StringArrayVar(&d.args, "arg", a.action.Lines("arg"), "argument for the functions in the file, as `NAME=EXPRESSION`; may be repeated")
	f.StringArrayVar(&d.argStrs, "argstr", a.action.Lines("argstr"), "likewise, as `NAME=TEXT`; may be repeated")
	f.StringArrayVar(&d.nixPath, "nix-path", a.action.Lines("nix_path"), "entry of the search path for the file, `NAME=PATH`; may be repeated")
	f.StringVar(&d.hostAttr, "host-attr", a.action.Input("host_attr"), "build `ATTR` of each NixOS host in place of its toplevel, such as vm, sdImage or config.system.build.isoImage")
	f.StringVar(&d.evalWorkers, "eval-workers", or(a.action.Input("eval_workers"), "0"), "evaluators at once, a `NUMBER`; 0 is what cores and memory allow")
	f.StringVar(&d.evalTimeout, "eval-timeout", or(a.action.Input("eval_timeout"), "30m"), "how long the evaluation of one attribute may take, as a `TIME`")
	f.StringVar(&d.evalMemory, "eval-memory", or(a.action.Input("eval_memory"), "0"), "memory that an evaluator may use, in `MiB`; 0 is no limit")
	a.boolFlag(cmd, &d.reuse, "reuse-evaluation", true, "take the evaluation of the same commit of a flake with the same settings from the cache, if there is one")
	a.boolFlag(cmd, &d.trustProved, "skip-proved", true, "leave out of a pull request that pushes nothing, as one from a fork, what the default branch has built")
	f.StringVar(&d.runners, "runners", a.action.Input("runners"), "labels of the runners for a system, or for a feature such as kvm of x86_64-linux or aarch64-linux+kvm, a line `NAME=LABEL[,LABEL]` each; meta.nixMatrix.runner of a package may choose any line by its labels, and no other runner")
	f.StringVar(&d.qemu, "qemu", or(a.action.Input("qemu"), string(plan.QEMUAuto)), "emulate aarch64-linux: auto, where no runner is named for it, always or never")
	f.StringVar(&d.maxEntries, "max-entries", or(a.action.Input("max_entries"), strconv.Itoa(plan.MaxEntries)), "most entries that the matrix may have, a `NUMBER`; GitHub allows no more than 256. Beyond that, hosts of a system share jobs")
	f.StringVar(&d.jobs, "jobs-per-system", or(a.action.Input("jobs_per_system"), "0"), "into how many jobs the targets of a system that are no hosts are split at most, a `NUMBER`; 0 is as many as shorten the run, up to 16")
	f.StringVar(&d.directory, "working-directory", a.action.Input("working_directory"), "`DIR`ectory to look from, such as that of a flake in a subdirectory")
	f.StringVar(&d.filter, "filter-builds", a.action.Input("filter_builds"), "build only that for which the `JQ` expression is true; it sees top_attr, system, attr, name, host, kind, description, meta, drvPath, requiredSystemFeatures")
	f.StringVar(&d.label, "label-builds", a.action.Input("label_builds"), "`JQ` expression for the name of a target, over the same fields")
	f.StringVar(&d.proviso, "proviso", a.action.Input("proviso"), "bash `SCRIPT` to run for each target that is to be built, with the target as JSON on its stdin: a line \"skip REASON\" on its stdout leaves it out")
	f.StringVar(&d.onMissing, "on-missing-secret", or(a.action.Input("on_missing_secret"), "fail"), "what becomes of a target that can't be evaluated since a secret is missing, as in a pull request from a fork: fail or skip")
	f.StringVar(&d.surroundings.nixpkgs, "nixpkgs", or(a.action.Input("nixpkgs"), nix.DefaultNixpkgs), "`FLAKE` that the programs cachix and git-crypt are of where they are not on PATH")
	d.surroundings.flags(a, cmd)
	d.surroundings.evaluates = true
}

// defaultSystems are wanted unless others are named.
var defaultSystems = []string{"x86_64-linux", "aarch64-linux"}

func orWords(input string, otherwise ...string) []string {
	if w := words(input); len(w) > 0 {
		return w
	}
	return otherwise
}

// arguments takes the installables of the command line, else the input's.
func (d *discovery) arguments(a *app, args []string) error {
	d.installables = args
	if len(args) == 0 {
		d.installables = a.action.Lines("installables")
	}
	switch {
	case d.file != "" && len(d.installables) > 0:
		return usagef("installables (%s) and a file (%s) exclude each other: give attributes of the file with -A", strings.Join(d.installables, " "), d.file)
	case d.file == "" && len(d.attrs) > 0:
		return usagef("-A %s needs a file: give it with -f", d.attrs[0])
	}
	if d.directory != "" {
		if err := enter(d.directory); err != nil {
			return usagef("--working-directory: %w", err)
		}
	}
	// Nix runs git here, for which it would be a repository with a config of its own.
	if bare, err := git.Bare("."); err != nil || bare != "" {
		if err == nil {
			err = fmt.Errorf("cannot evaluate in %s: to git it is a bare repository (it has HEAD and refs), whose config can name programs to run. Rename one of them, or name another --working-directory", bare)
		}
		return &usageError{err}
	}
	return a.checkID()
}

// enter changes the working directory, which Nix takes from the environment.
func enter(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	return os.Setenv("PWD", here)
}

// asked is what was asked for, as a person would type it.
func (d *discovery) asked() string {
	source := strings.Join(d.installables, " ")
	if d.file != "" {
		source = "-f " + d.file
		for _, attr := range d.attrs {
			source += " -A " + attr
		}
	}
	return strings.ToValidUTF8(or(source, "."), "\ufffd")
}

// A planner has what the user says of how to plan.
type planner struct {
	chooser *plan.Chooser
	options plan.Options
}

func (d *discovery) planner() (*planner, error) {
	runners, err := plan.ParseRunners(d.runners)
	if err != nil {
		return nil, &usageError{err}
	}
	chooser, err := plan.NewChooser(d.filter, d.label)
	if err != nil {
		return nil, &usageError{err}
	}
	maxEntries, err := strconv.Atoi(d.maxEntries)
	if err != nil || maxEntries < 1 || maxEntries > plan.MaxEntries {
		return nil, usagef("--max-entries %s: it is a number from 1 to %d", d.maxEntries, plan.MaxEntries)
	}
	jobs, err := strconv.Atoi(d.jobs)
	if err != nil || jobs < 0 || jobs > plan.MaxEntries {
		return nil, usagef("invalid value %q for --jobs-per-system: must be a number from 0 to %d", d.jobs, plan.MaxEntries)
	}
	if err := oneOf("qemu", d.qemu, string(plan.QEMUAuto), string(plan.QEMUAlways), string(plan.QEMUNever)); err != nil {
		return nil, err
	}
	if err := oneOf("on-missing-secret", d.onMissing, "fail", "skip"); err != nil {
		return nil, err
	}
	if err := d.checkNixpkgs(); err != nil {
		return nil, err
	}
	return &planner{chooser, plan.Options{Runners: runners, QEMU: plan.QEMU(d.qemu), MaxEntries: maxEntries, JobsPerSystem: jobs}}, nil
}

// plan evaluates, unless that has been done before, and plans. The Plan says nothing
// yet of where its derivations are.
func (d *discovery) plan(ctx context.Context, at *site, c cache.Cache) (*job.Plan, *evaluation, error) {
	how, err := d.planner()
	if err != nil {
		return nil, nil, err
	}
	options, err := d.options(at)
	if err != nil {
		return nil, nil, err
	}
	locked, err := d.locked(ctx, at.app)
	if err != nil {
		return nil, nil, err
	}
	if err := confine(ctx, at, options.Flakes(), len(locked) > 0); err != nil {
		return nil, nil, err
	}
	lock, err := d.unlock(ctx, at, locked)
	if err != nil {
		return nil, nil, err
	}
	defer lock()
	at.app.heads = d.heads()
	s := d.source(ctx, at, c, options)
	var programs []job.Program
	if e := s.recall(ctx); e != nil {
		p, err := d.choose(ctx, at, how, e)
		if err != nil {
			return nil, nil, err
		}
		d.programs(ctx, at, how, e.Plan.Programs, p)
		programs = p.Programs
		if d.has(ctx, at, e, p) {
			at.app.show.Printf("nothing has changed since it was evaluated at %s", e.Plan.Created.Format("2006-01-02 15:04 UTC"))
			return p, e, d.group(ctx, at, how, e, p)
		}
	}
	e, err := d.evaluate(ctx, at, s, options)
	if err != nil {
		return nil, nil, err
	}
	p, err := d.choose(ctx, at, how, e)
	if err != nil {
		return nil, nil, err
	}
	d.programs(ctx, at, how, programs, p)
	return p, e, d.group(ctx, at, how, e, p)
}

// written is a Plan as others will read it, who must be able to.
func written(p *job.Plan) ([]byte, error) {
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
		err = errors.New("it reads as another one")
	}
	if err != nil {
		return nil, fmt.Errorf("internal error: cannot read the plan that was made: %w. Report it, and leave the target out with --exclude (input exclude) meanwhile", err)
	}
	return data, nil
}

// choose makes a Plan of an evaluation, in which it is decided what is to be built.
func (d *discovery) choose(ctx context.Context, at *site, how *planner, e *evaluation) (*job.Plan, error) {
	p := *e.Plan
	p.Drvs, p.Heads = nil, at.app.heads
	p.Created = time.Now().UTC().Truncate(time.Second)
	if e.unread != "" {
		p.Notices = append(p.Notices, fmt.Sprintf("%s can't be evaluated, so nothing of it is built: it %s.", d.asked(), e.unread))
	}
	p.Notices = append(p.Notices, at.notices...)
	p.Targets = slices.Clone(p.Targets)
	d.skipUnread(p.Targets)
	if len(e.Omitted) > 0 {
		p.Notices = append(p.Notices, d.omitted(e.Omitted))
	}
	if len(e.Passed) > 0 {
		p.Notices = append(p.Notices, fmt.Sprintf("Not built, since they are not derivations: %s.", some(e.Passed)))
	}
	var left []string
	var err error
	if p.Targets, left, err = how.chooser.Choose(ctx, p.Targets, e.Meta); err != nil {
		return nil, &usageError{err}
	}
	if len(left) > 0 {
		p.Notices = append(p.Notices, fmt.Sprintf("Left out by filter_builds: %s.", some(left)))
	}
	wanted := evaluated(p.Targets)
	if len(wanted) == 0 && len(left) > 0 && !d.allowEmpty {
		return nil, usagef("filter_builds is true for none of %s: %s. Correct the expression, or allow that with --allow-empty (input allow_empty)",
			text.Plural(len(left), "target"), some(left))
	}
	at.read(p.Substituters, p.PublicKeys)
	d.skipProved(ctx, at, e.source.cache, p.Targets)
	at.app.show.Doing("asking what is there already")
	if e.places, err = d.skip(ctx, at, p.Targets); err != nil {
		return nil, err
	}
	asked := len(toBuild(&p))
	d.askProviso(ctx, at, p.Targets)
	if asked > 0 && asked == len(wanted) && len(toBuild(&p)) == 0 && !d.allowEmpty {
		return nil, usagef("the proviso leaves out all of %s: %s. Correct the script, or allow that with --allow-empty (input allow_empty)",
			text.Plural(asked, "target"), some(wanted))
	}
	return &p, nil
}

// omitted says which attributes are left out because of their system.
func (d *discovery) omitted(attrs []string) string {
	if d.buildable {
		return fmt.Sprintf("Left out, because this machine builds only %s: %s. Register an emulator with binfmt_misc or add a remote builder; --systems tries any system.",
			strings.Join(d.systems, " and "), some(attrs))
	}
	return fmt.Sprintf("Left out, since only %s are wanted: %s. Name more systems with --systems (input systems).", strings.Join(d.systems, " and "), some(attrs))
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
func (d *discovery) group(ctx context.Context, at *site, how *planner, e *evaluation, p *job.Plan) (err error) {
	if how.options.Missing, err = d.missing(ctx, at, how, e, p); err != nil {
		return err
	}
	for _, t := range p.Targets {
		if at.elsewhere(t.System) && len(how.options.Runners[t.System]) == 0 {
			how.options.Runners[t.System] = plan.AnyRunner
		}
	}
	took := func(entry *job.Entry) job.EntryTime {
		record := d.record(ctx, at.app, e.source.cache)
		if record == nil {
			return job.EntryTime{}
		}
		return record.Entries[job.EntryKey(entry.Name, entry.System, entry.QEMU)]
	}
	how.options.Took = func(entry *job.Entry) float64 { return took(entry).Seconds }
	if p.Entries, err = plan.Entries(p.Targets, how.options); err != nil {
		return &usageError{err}
	}
	if !d.local {
		p.Savers = how.options.Missing.Savers(p.Entries)
	}
	p.Took = map[string]job.EntryTime{}
	for i := range p.Entries {
		if t := took(&p.Entries[i]); t.Seconds > 0 {
			p.Took[p.Entries[i].ID] = t
		}
	}
	if refused := how.options.Runners.Refused(p.Targets); refused != "" && !d.local {
		p.Notices = append(p.Notices, refused)
	}
	if unused := how.options.Runners.Unused(p.Targets); unused != "" && !d.local {
		p.Notices = append(p.Notices, unused)
	}
	for i := range p.Entries {
		if e := &p.Entries[i]; e.QEMU && !d.local && !slices.Contains(p.Emulated, e.System) {
			p.Emulated = append(p.Emulated, e.System)
		}
	}
	return nil
}

// options are what to discover, and how.
func (d *discovery) options(at *site) (*evaluate.Options, error) {
	show := at.app.show
	var attr string // that is being evaluated
	o := &evaluate.Options{
		Installables: d.installables,
		File:         d.file,
		Attrs:        d.attrs,
		Systems:      d.systems,
		System:       at.nix.System,
		NixPath:      d.nixPath,
		HostAttr:     d.hostAttr,
		Include:      d.include,
		Exclude:      d.exclude,
		AllowEmpty:   d.allowEmpty,
		Meta:         d.filter != "" || d.label != "",
		Progress:     func(path string) { attr = path },
		Counted:      func(done, total int) { show.Step("evaluating %d/%d %s", done, total, attr) },
		Explain:      d.explain(at.app),
		Log:          func(line string) { show.Printf("%s", line) },
	}
	var err error
	if o.Args, err = arguments("arg", d.args); err != nil {
		return nil, err
	}
	if o.ArgStrs, err = arguments("argstr", d.argStrs); err != nil {
		return nil, err
	}
	if o.Timeout, err = duration("eval-timeout", d.evalTimeout); err != nil {
		return nil, err
	}
	if o.Workers, err = strconv.Atoi(d.evalWorkers); err != nil || o.Workers < 0 {
		return nil, usagef("--eval-workers %s: it is a number", d.evalWorkers)
	}
	const most = 1 << 30 // MiB
	memory, err := strconv.ParseInt(d.evalMemory, 10, 64)
	if err != nil || memory < 0 || memory > most {
		return nil, usagef("--eval-memory %s: it is a number of MiB", d.evalMemory)
	}
	o.MemoryLimit = memory << 20
	return o, nil
}

// arguments reads arguments for functions.
func arguments(flag string, lines []string) ([]evaluate.Arg, error) {
	var args []evaluate.Arg
	for _, line := range lines {
		name, value, ok := strings.Cut(line, "=")
		if !ok || name == "" {
			return nil, usagef("--%s %s: it is of the form NAME=VALUE", flag, line)
		}
		args = append(args, evaluate.Arg{Name: strings.TrimSpace(name), Value: value})
	}
	return args, nil
}
