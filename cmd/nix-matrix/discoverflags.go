package main

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/discover"
	"github.com/org/nix-matrix/pkg/evaluate"
	"github.com/org/nix-matrix/pkg/hooks"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/storecache"
)

// discoverFlags are those of the commands that discover.
type discoverFlags struct {
	directory   string
	evaluate    evaluate.Options
	memory      int64 // MiB
	runners     []string
	planning    plan.Options
	filter      string // jq expression
	label       string // jq expression
	proviso     string // script of the user's
	setup       string // script of the user's
	reuse       bool   // an evaluation of before
	skipProved  bool   // what the default branch has built
	onMissing   string // secret: fail or skip
	flakeCaches bool   // those in nixConfig are trusted
	overrides   []nix.Override
	lockFile    string
	access      accessFlags

	packing packing
	local   bool // this machine builds
}

func (d *discoverFlags) flags(cmd *cobra.Command) {
	e := &d.evaluate
	bind(cmd, flagvalue.Text(&e.File, "FILE", ""), "file", "f")
	bind(cmd, flagvalue.Lines(&e.Attrs, "ATTR"), "attr", "A")
	bind(cmd, argumentsValue(&e.Args, "NAME=EXPRESSION"), "arg")
	bind(cmd, argumentsValue(&e.ArgStrs, "NAME=TEXT"), "argstr")
	bind(cmd, flagvalue.Lines(&e.NixPath, "NAME=PATH"), "nix-path")
	bind(cmd, flagvalue.Each(&d.overrides, "NAME=FLAKE", nix.ParseOverride), "override-input")
	bind(cmd, flagvalue.Text(&d.lockFile, "FILE", ""), "reference-lock-file")
	d.lookFlags(cmd)
	bind(cmd, flagvalue.Bool(&d.skipProved, true), "skip-proved")
	bind(cmd, runnersValue(&d.runners), "runners")
	bind(cmd, flagvalue.OneOf(&d.planning.QEMU, plan.QEMUAuto, plan.QEMUAuto, plan.QEMUAlways, plan.QEMUNever), "qemu")
	bind(cmd, flagvalue.Number(&d.planning.MaxEntries, "NUMBER", strconv.Itoa(plan.MaxEntries), 1, plan.MaxEntries), "max-entries")
	bind(cmd, flagvalue.Number(&d.planning.JobsPerSystem, "NUMBER", "0", 0, plan.MaxEntries), "jobs-per-system")
	if !d.local {
		bind(cmd, flagvalue.New(&d.planning.Helpers, "NUMBER", "", plan.ParseHelpers), "helpers")
		bind(cmd, flagvalue.Number(&d.planning.MaxParallel, "NUMBER", strconv.Itoa(plan.MaxEntries), 1, math.MaxInt32), "max-parallel")
		d.packing.policyFlag(cmd, storecache.Built)
	}
	bind(cmd, flagvalue.Text(&d.proviso, "SCRIPT", ""), "proviso")
	bind(cmd, flagvalue.OneOf(&d.onMissing, "fail", "fail", "skip"), "on-missing-secret")
	d.access.flags(cmd)
}

// lookFlags are those that say which targets there are, and how they are evaluated.
func (d *discoverFlags) lookFlags(cmd *cobra.Command) {
	e := &d.evaluate
	if d.local {
		bindAs(cmd, flagvalue.Words(&e.Systems, "SYSTEM"), "systems", "the systems that are wanted, separated by spaces or commas; default: those that this machine builds for, emulated ones and those of its remote builders included")
	} else {
		bind(cmd, flagvalue.Words(&e.Systems, "SYSTEM", discover.DefaultSystems...), "systems")
	}
	bind(cmd, flagvalue.Lines(&e.Include, "GLOB"), "include")
	bind(cmd, flagvalue.Lines(&e.Exclude, "GLOB"), "exclude")
	bind(cmd, flagvalue.Bool(&e.AllowEmpty, false), "allow-empty")
	bind(cmd, flagvalue.Text(&e.HostAttr, "ATTR", ""), "host-attr")
	bind(cmd, flagvalue.Number(&e.Workers, "NUMBER", "0", 0, math.MaxInt32), "eval-workers")
	bind(cmd, flagvalue.Time(&e.Timeout, "30m"), "eval-timeout")
	bind(cmd, flagvalue.Number(&d.memory, "MiB", "0", 0, 1<<30), "eval-memory")
	bind(cmd, flagvalue.Bool(&d.reuse, true), "reuse-evaluation")
	bind(cmd, flagvalue.Text(&d.directory, "DIR", ""), "working-directory")
	bind(cmd, flagvalue.Text(&d.filter, "JQ", ""), "filter-builds")
	bind(cmd, flagvalue.Text(&d.label, "JQ", ""), "label-builds")
	bind(cmd, flagvalue.Bool(&d.flakeCaches, false), "accept-flake-config")
	bind(cmd, flagvalue.New(&d.access.Nixpkgs, "FLAKE", nix.DefaultNixpkgs, nix.ParseFlakeReference), "nixpkgs")
	d.access.Evaluates, d.access.PushesLater = true, !d.local
}

// argumentsValue is a list of arguments for functions.
func argumentsValue(to *[]evaluate.Arg, kind string) *flagvalue.List[evaluate.Arg] {
	return flagvalue.Each(to, kind, func(text string) (evaluate.Arg, error) {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return evaluate.Arg{}, errors.New("must be of the form " + kind)
		}
		return evaluate.Arg{Name: strings.TrimSpace(name), Value: value}, nil
	})
}

// runnersValue is a list of lines as plan.ParseRunners reads them.
func runnersValue(to *[]string) *flagvalue.List[string] {
	return flagvalue.Each(to, "NAME=LABEL[,LABEL]", func(text string) (string, error) {
		_, err := plan.ParseRunners(text)
		return text, err
	})
}

// arguments takes the installables of the command line, else the input's.
func (d *discoverFlags) arguments(a *app, args []string) error {
	e := &d.evaluate
	e.Installables = args
	if len(args) == 0 {
		e.Installables = a.action.Lines("installables")
	}
	switch {
	case e.File != "" && len(e.Installables) > 0:
		return usage.Errorf("installables (%s) and a file (%s) exclude each other: give attributes of the file with -A", strings.Join(e.Installables, " "), e.File)
	case e.File == "" && len(e.Attrs) > 0:
		return usage.Errorf("-A %s needs a file: give it with -f", e.Attrs[0])
	}
	return discover.Enter(d.directory)
}

// options returns what is evaluated, and what becomes of it.
func (d *discoverFlags) options(a *app) (o discover.Options, err error) {
	o = discover.Options{
		Access: &d.access.Config, Planning: d.planning, Evaluate: d.evaluate, Proviso: &hooks.Proviso{Script: d.proviso, Timeout: provisoTime},
		SetUp: d.setup, Alone: d.packing.policy == storecache.Off, Reuse: d.reuse, SkipProved: d.skipProved, SkipUnread: d.onMissing == "skip", AcceptFlakeConfig: d.flakeCaches,
		Overrides: d.overrides, LockFile: d.lockFile,
		Local: d.local, Public: a.action.Public, Version: programVersion(),
	}
	o.Evaluate.MemoryLimit = d.memory << 20
	o.Evaluate.Meta = d.filter != "" || d.label != ""
	if o.Planning.Runners, err = plan.ParseRunners(strings.Join(d.runners, "\n")); err != nil {
		return o, usage.Wrap(err)
	}
	o.Choose, err = plan.NewChooser(d.filter, d.label)
	return o, usage.Wrap(err)
}
