package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

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
	addFlag(cmd, flagvalue.Bool(&r.failFast, false), "fail-fast", "stop at the first entry that fails")
	cmd.Flags().StringVarP(&r.outLink, "out-link", "o", "", "link the outputs in `DIR`, by the names of the targets, and keep the garbage collector away from them")
	addFlag(cmd, cacheValue(&a.cache, false), "cache", "where the plan and the results are kept (default below $XDG_CACHE_HOME)")
	addFlag(cmd, flagvalue.Number(&r.jobs, "NUMBER", strconv.Itoa(min(4, runtime.NumCPU())), 1, math.MaxInt32), "jobs", "entries at a time; each builds as many derivations at a time as Nix is set to", "j")
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
	path, err := cachePath(a.cache)
	if err != nil {
		return err
	}
	c, dir, err := r.openCache(path)
	if err != nil {
		return err
	}
	how.ShowLogs, how.KeepLogs = r.logs, filepath.Join(dir, "logs")
	docs, err := a.documents(c)
	if err != nil {
		return err
	}
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
	if err := errors.Join(r.pages.print(a, v, shown), r.pages.write(v, shown)); err != nil {
		return err
	}
	if v.Status != verdict.Success {
		return &redError{string(v.Status)}
	}
	return nil
}

// openCache opens the cache in a directory, and makes a directory there for the plan and the results. On a
// full disk, nothing is kept, which is no error.
func (r *runner) openCache(path string) (c cache.Cache, dir string, err error) {
	dir, err = r.dir(path)
	if err == nil {
		c, err = cachedir.New(path)
	}
	if documents.DiskFull(err) {
		r.app.log.Warn("Nothing is kept for later runs", err)
		return nil, dir, nil
	}
	return c, dir, err
}

// dir returns a directory for the plan and the results of this id, below that of the cache. Those of the last
// run are removed.
func (r *runner) dir(cache string) (string, error) {
	dir := filepath.Join(cache, "run", r.app.id)
	if err := os.RemoveAll(dir); err != nil {
		return dir, fmt.Errorf("cannot remove the results of the last run: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "results"), 0o750); err != nil {
		return dir, fmt.Errorf("cannot make a directory for the results: %w", err)
	}
	return dir, nil
}

// work builds all entries, some of them at a time.
func (r *runner) work(ctx context.Context, w *build.Worker, key, dir string) []*job.Result {
	a := r.app
	a.log.Start(len(w.Plan.Entries))
	results := make([]*job.Result, len(w.Plan.Entries))
	errs := make([]error, len(w.Plan.Entries))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	plain := &documents.Store{} // documents on this machine are not sealed
	var g errgroup.Group
	g.SetLimit(r.jobs)
	for i := range w.Plan.Entries {
		entry := &w.Plan.Entries[i]
		g.Go(func() error {
			result := a.newResult(entry, key)
			results[i] = result
			w.Work(ctx, entry, result)
			a.log.Finish(result.Outcome != job.OutcomeFailed)
			a.announce(result)
			if r.failFast && !result.Outcome.OK() {
				stop()
			}
			errs[i] = plain.WriteResult(filepath.Join(dir, entry.ID+".json"), result)
			return nil
		})
	}
	_ = g.Wait()
	if errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil }); len(errs) > 0 {
		a.log.Warn(fmt.Sprintf("Cannot keep %d of %d results", len(errs), len(results)), errs[0])
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
