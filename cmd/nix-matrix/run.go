package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/pkg/build"
	"github.com/org/nix-matrix/pkg/cache"
	cachedir "github.com/org/nix-matrix/pkg/cache/dir"
	"github.com/org/nix-matrix/pkg/discover"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

func newRun(a *app) *cobra.Command {
	r := &runner{app: a, discovery: discoverFlags{local: true}}
	cmd := &cobra.Command{
		Use:   "run [INSTALLABLE…]",
		Short: "Discover, build, push and report on this machine",
		Long: `Does on this machine what a workflow does on many: evaluates once, builds all
entries with the installed Nix, pushes the outputs, and gives a verdict. For trying
things out, and for reproducing a failure of CI locally.

The plan and the results are kept below the directory of --cache. See "nix-matrix
discover --help" for what an INSTALLABLE is.

With --jobs 2 or more, what several entries need is built once, by one of them, as the
jobs of a workflow do it: if it fails, that is told once, and the entries that need it are
blocked.

The script of --post-green runs after a green verdict, see "nix-matrix report --help".

Ctrl-C stops the builds, pushes the finished outputs and reports the rest as cancelled;
a second one ends everything at once. No program that is started here can ask a question
at the terminal: an ssh key with a passphrase needs an agent, and a new host a line in
known_hosts.

` + secretsHelp + `
The plan, results and logs that stay on this machine are not.`,
		Example: `  nix-matrix run                                  # the flake in this directory
  nix-matrix run .#nixosConfigurations.pi3
  nix-matrix run --push file:///srv/cache --jobs 4
  nix-matrix run --html report.html               # the report, to read in a browser
  nix-matrix run .#packages -o result --fail-fast # links to the outputs below result/
  nix-matrix run --json | jq .counts
  nix-matrix run --override-input nixpkgs=github:NixOS/nixpkgs/nixos-unstable
  nix-matrix run -f default.nix -A system -A home`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.discovery.arguments(a, args); err != nil {
				return err
			}
			return r.run(cmd.Context())
		},
	}
	r.discovery.flags(cmd)
	r.discovery.access.pushFlags(cmd)
	r.working.flags(a, cmd)
	setUpFlag(cmd, &r.discovery.setup)
	a.idFlag(cmd)
	r.pages.flags(cmd)
	r.pages.fileFlags(cmd)
	bind(cmd, flagvalue.Text(&r.postGreen, "SCRIPT", ""), "post-green")
	addFlag(cmd, flagvalue.Bool(&r.failFast, false), "fail-fast", "stop at the first entry that fails")
	cmd.Flags().StringVarP(&r.outLink, "out-link", "o", "", "link the outputs in `DIR`, by the names of the targets, and keep the garbage collector away from them")
	addFlag(cmd, cacheValue(&a.cache, false), "cache", "where the plan and the results are kept (default below $XDG_CACHE_HOME)")
	addFlag(cmd, flagvalue.Number(&r.jobs, "NUMBER", strconv.Itoa(min(4, runtime.NumCPU())), 1, math.MaxInt32), "jobs", "entries at a time, by default as many as there are processors, but at most 4; each builds as many derivations at a time as Nix is set to", "j").DefValue = ""
	addFlag(cmd, flagvalue.Bool(&r.logs, false), "print-build-logs", "show the lines of build logs", "L")
	return cmd
}

type runner struct {
	app       *app
	discovery discoverFlags
	working   workingFlags
	pages     pages
	failFast  bool
	outLink   string
	postGreen string
	jobs      int
	logs      bool
}

func (r *runner) run(ctx context.Context) error {
	a := r.app
	if err := r.pages.check(); err != nil {
		return err
	}
	how := r.working.options(a)
	how.KeepGoing = how.KeepGoing && !r.failFast
	options, err := r.discovery.options(a)
	if err != nil {
		return err
	}
	options.Jobs = r.jobs
	path, err := cachePath(a.cache)
	if err != nil {
		return err
	}
	docs, err := a.documents()
	if err != nil {
		return err
	}
	c, dir, err := r.openCache(path)
	if err != nil {
		return err
	}
	docs.Cache, how.ShowLogs, how.KeepLogs = c, r.logs, filepath.Join(dir, "logs")
	scripts, err := a.hooks()
	if err != nil {
		return err
	}
	d, err := discover.Open(ctx, a.host, docs, scripts, a.log, options)
	if err != nil {
		return err
	}
	defer d.Env.Close()
	plan, err := d.Plan(ctx)
	if err != nil {
		return err
	}
	if err := d.Env.Sign(); err != nil {
		return err
	}
	d.Keep(ctx, plan)
	data, err := discover.Marshal(plan)
	if err != nil {
		return err
	}
	if err := documents.WriteFile(filepath.Join(dir, "plan.json"), data); err != nil {
		a.log.Warn("Cannot keep the plan", err)
	}
	tell(a.log, plan)
	key := job.PlanKey(a.id, "", data)(0)
	w := &build.Worker{Options: how, Env: d.Env, Plan: plan, Hooks: scripts, Log: a.log}
	results := r.work(ctx, w, key, filepath.Join(dir, "results"))
	v := verdict.Judge(plan, key, results, nil)
	v.Origin = a.origin(plan)
	if r.failFast && v.Cancelled && ctx.Err() == nil {
		v.Notices = append(v.Notices, "The run was stopped at the first failure, as --fail-fast wants.")
	}
	if err := r.tellOutputs(context.WithoutCancel(ctx), d.Env.Nix, v); err != nil {
		a.log.Warn("Cannot link all outputs", err)
	}
	a.log.Close()
	shown := report.SummaryOptions{RunURL: a.action.RunURL()}
	if err := errors.Join(r.pages.print(a, v, shown), r.pages.write(v, a.id, shown)); err != nil {
		return err
	}
	if v.Status != verdict.Success {
		return &redError{string(v.Status)}
	}
	if r.postGreen == "" {
		return nil
	}
	_, paths, err := a.paths(v)
	if err != nil {
		return err
	}
	return a.afterGreen(ctx, r.postGreen, paths)
}

// openCache opens the cache in a directory, and makes a directory there for the plan and the results of this
// id. On a full disk, nothing is kept, which is no error.
func (r *runner) openCache(path string) (c cache.Cache, dir string, err error) {
	dir = filepath.Join(path, "run", r.app.id)
	if err = documents.FreshDir(dir); err == nil {
		c, err = cachedir.New(path)
	}
	if documents.DiskFull(err) {
		r.app.log.Warn("Nothing is kept for later runs", err)
		return nil, dir, nil
	}
	return c, dir, err
}

// work builds all entries, and keeps their Results in a directory.
func (r *runner) work(ctx context.Context, w *build.Worker, key, dir string) []*job.Result {
	a := r.app
	a.log.Start(len(w.Plan.Entries))
	plain := &documents.Store{} // documents on this machine are not sealed
	failed := make(chan error, len(w.Plan.Entries))
	results := w.WorkAll(ctx, r.jobs, r.failFast, func(e *job.Entry) *job.Result { return a.newResult(e, key) }, func(result *job.Result) {
		a.log.Finish(result.Outcome != job.OutcomeFailed)
		a.announce(result)
		if err := plain.WriteResult(filepath.Join(dir, result.Entry+".json"), result); err != nil {
			failed <- err
		}
	})
	if count := len(failed); count > 0 {
		a.log.Warn(fmt.Sprintf("Cannot keep %d of %d results", count, len(results)), <-failed)
	}
	return results
}

// tellOutputs says where the outputs are: all of a few, or where the links are.
func (r *runner) tellOutputs(ctx context.Context, n *nix.Nix, v *verdict.Verdict) error {
	outputs := build.OutPaths(v)
	if r.outLink != "" {
		count, err := build.Link(ctx, n, r.outLink, outputs)
		r.app.log.Printf("%s in %s", text.Plural(count, "output is linked", "outputs are linked"), r.outLink)
		if err != nil {
			return fmt.Errorf("cannot link all outputs in %s: %w", r.outLink, err)
		}
		return nil
	}
	const most = 10
	for i, o := range outputs {
		if i == most {
			r.app.log.Printf("… and %d more; --out-link DIR links them all", len(outputs)-most)
			break
		}
		r.app.log.Printf("%s  %s", o.Path, o.Name)
	}
	return nil
}
