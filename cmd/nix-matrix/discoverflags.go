package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/discover"
	"github.com/org/nix-matrix/pkg/evaluate"
	"github.com/org/nix-matrix/pkg/git"
	"github.com/org/nix-matrix/pkg/hooks"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
)

// discoverFlags are those of the commands that discover.
type discoverFlags struct {
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
	skipProved   bool   // what the default branch has built
	onMissing    string // secret: fail or skip
	access       accessFlags

	local bool // this machine builds
}

func (d *discoverFlags) flags(a *app, cmd *cobra.Command) {
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
	a.boolFlag(cmd, &d.skipProved, "skip-proved", true, "leave out of a pull request that pushes nothing, as one from a fork, what the default branch has built")
	f.StringVar(&d.runners, "runners", a.action.Input("runners"), "labels of the runners for a system, or for a feature such as kvm of x86_64-linux or aarch64-linux+kvm, a line `NAME=LABEL[,LABEL]` each; meta.nixMatrix.runner of a package may choose any line by its labels, and no other runner")
	f.StringVar(&d.qemu, "qemu", or(a.action.Input("qemu"), string(plan.QEMUAuto)), "emulate aarch64-linux: auto, where no runner is named for it, always or never")
	f.StringVar(&d.maxEntries, "max-entries", or(a.action.Input("max_entries"), strconv.Itoa(plan.MaxEntries)), "most entries that the matrix may have, a `NUMBER`; GitHub allows no more than 256. Beyond that, hosts of a system share jobs")
	f.StringVar(&d.jobs, "jobs-per-system", or(a.action.Input("jobs_per_system"), "0"), "into how many jobs the targets of a system that are no hosts are split at most, a `NUMBER`; 0 is as many as shorten the run, up to 16")
	f.StringVar(&d.directory, "working-directory", a.action.Input("working_directory"), "`DIR`ectory to look from, such as that of a flake in a subdirectory")
	f.StringVar(&d.filter, "filter-builds", a.action.Input("filter_builds"), "build only that for which the `JQ` expression is true; it sees top_attr, system, attr, name, host, kind, description, meta, drvPath, requiredSystemFeatures")
	f.StringVar(&d.label, "label-builds", a.action.Input("label_builds"), "`JQ` expression for the name of a target, over the same fields")
	f.StringVar(&d.proviso, "proviso", a.action.Input("proviso"), "bash `SCRIPT` to run for each target that is to be built, with the target as JSON on its stdin: a line \"skip REASON\" on its stdout leaves it out")
	f.StringVar(&d.onMissing, "on-missing-secret", or(a.action.Input("on_missing_secret"), "fail"), "what becomes of a target that can't be evaluated since a secret is missing, as in a pull request from a fork: fail or skip")
	f.StringVar(&d.access.Nixpkgs, "nixpkgs", or(a.action.Input("nixpkgs"), nix.DefaultNixpkgs), "`FLAKE` that the programs cachix and git-crypt are of where they are not on PATH")
	d.access.flags(a, cmd)
	d.access.Evaluates = true
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
func (d *discoverFlags) arguments(a *app, args []string) error {
	d.installables = args
	if len(args) == 0 {
		d.installables = a.action.Lines("installables")
	}
	switch {
	case d.file != "" && len(d.installables) > 0:
		return usage.Errorf("installables (%s) and a file (%s) exclude each other: give attributes of the file with -A", strings.Join(d.installables, " "), d.file)
	case d.file == "" && len(d.attrs) > 0:
		return usage.Errorf("-A %s needs a file: give it with -f", d.attrs[0])
	}
	if d.directory != "" {
		if err := enter(d.directory); err != nil {
			return usage.Errorf("--working-directory: %w", err)
		}
	}
	// Nix runs git here, for which it would be a repository with a config of its own.
	if bare, err := git.Bare("."); err != nil || bare != "" {
		if err == nil {
			err = fmt.Errorf("cannot evaluate in %s: to git it is a bare repository (it has HEAD and refs), whose config can name programs to run. Rename one of them, or name another --working-directory", bare)
		}
		return usage.Wrap(err)
	}
	return nil
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

// parse returns the values of the flags.
func (d *discoverFlags) parse() (o discover.Options, err error) {
	if o.Access, err = d.access.parse(); err != nil {
		return o, err
	}
	if o.Planning, err = d.planning(); err != nil {
		return o, err
	}
	if o.Choose, err = plan.NewChooser(d.filter, d.label); err != nil {
		return o, usage.Wrap(err)
	}
	if err := oneOf("on-missing-secret", d.onMissing, "fail", "skip"); err != nil {
		return o, err
	}
	if err := d.checkNixpkgs(); err != nil {
		return o, err
	}
	o.Proviso = &hooks.Proviso{Script: d.proviso, Timeout: provisoTime}
	o.Reuse, o.SkipProved, o.SkipUnread, o.Local, o.Version = d.reuse, d.skipProved, d.onMissing == "skip", d.local, version
	o.Evaluate, err = d.evaluation()
	return o, err
}

// planning returns how the targets are grouped into entries.
func (d *discoverFlags) planning() (o plan.Options, err error) {
	if o.Runners, err = plan.ParseRunners(d.runners); err != nil {
		return o, usage.Wrap(err)
	}
	if o.MaxEntries, err = strconv.Atoi(d.maxEntries); err != nil || o.MaxEntries < 1 || o.MaxEntries > plan.MaxEntries {
		return o, usage.Errorf("--max-entries %s: it is a number from 1 to %d", d.maxEntries, plan.MaxEntries)
	}
	if o.JobsPerSystem, err = strconv.Atoi(d.jobs); err != nil || o.JobsPerSystem < 0 || o.JobsPerSystem > plan.MaxEntries {
		return o, usage.Errorf("invalid value %q for --jobs-per-system: must be a number from 0 to %d", d.jobs, plan.MaxEntries)
	}
	o.QEMU = plan.QEMU(d.qemu)
	return o, oneOf("qemu", d.qemu, string(plan.QEMUAuto), string(plan.QEMUAlways), string(plan.QEMUNever))
}

// checkNixpkgs returns a usage error for a value of --nixpkgs that Nix would not take for
// the reference of a flake.
func (d *discoverFlags) checkNixpkgs() error {
	if ref := d.access.Nixpkgs; ref == "" || strings.HasPrefix(ref, "-") || strings.ContainsAny(ref, "# \t\r\n\x00") {
		return usage.Errorf("invalid value %q for --nixpkgs: must be the reference of a flake, such as github:NixOS/nixpkgs/nixos-26.05", ref)
	}
	return nil
}

// evaluation returns what is evaluated.
func (d *discoverFlags) evaluation() (o evaluate.Options, err error) {
	o = evaluate.Options{
		Installables: d.installables,
		File:         d.file,
		Attrs:        d.attrs,
		Systems:      d.systems,
		NixPath:      d.nixPath,
		HostAttr:     d.hostAttr,
		Include:      d.include,
		Exclude:      d.exclude,
		AllowEmpty:   d.allowEmpty,
		Meta:         d.filter != "" || d.label != "",
	}
	if o.Args, err = arguments("arg", d.args); err != nil {
		return o, err
	}
	if o.ArgStrs, err = arguments("argstr", d.argStrs); err != nil {
		return o, err
	}
	if o.Timeout, err = duration("eval-timeout", d.evalTimeout); err != nil {
		return o, err
	}
	if o.Workers, err = strconv.Atoi(d.evalWorkers); err != nil || o.Workers < 0 {
		return o, usage.Errorf("--eval-workers %s: it is a number", d.evalWorkers)
	}
	const most = 1 << 30 // MiB
	memory, err := strconv.ParseInt(d.evalMemory, 10, 64)
	if err != nil || memory < 0 || memory > most {
		return o, usage.Errorf("--eval-memory %s: it is a number of MiB", d.evalMemory)
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
			return nil, usage.Errorf("--%s %s: it is of the form NAME=VALUE", flag, line)
		}
		args = append(args, evaluate.Arg{Name: strings.TrimSpace(name), Value: value})
	}
	return args, nil
}
