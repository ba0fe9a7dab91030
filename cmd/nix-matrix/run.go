package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	cachedir "github.com/org/nix-matrix/pkg/cache/dir"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/verdict"
)

func newRun(a *app) *cobra.Command {
	r := &runner{app: a, discovery: discovery{local: true}}
	cmd := &cobra.Command{
		Use:   "run [INSTALLABLE…]",
		Short: "Discover, build, push and report on this machine",
		Long: `Does on this machine what a workflow does on many: evaluates once, builds all
entries with the installed Nix, pushes what was built, and gives a verdict. For
trying things out, and for repeating at home what failed in CI.

The plan and the results are kept below the directory of --cache. See "nix-matrix
discover --help" for what an INSTALLABLE is.

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
			if r.jobs < 1 {
				return usagef("--jobs %d: at least 1", r.jobs)
			}
			return r.run(cmd.Context())
		},
	}
	r.discovery.flags(a, cmd)
	r.discovery.surroundings.pushFlags(a, cmd)
	r.working.flags(a, cmd)
	a.setUpFlag(cmd, &r.discovery.setup)
	a.idFlag(cmd)
	r.pages.flags(cmd)
	cmd.Flags().BoolVar(&r.failFast, "fail-fast", false, "stop at the first entry that fails")
	cmd.Flags().StringVarP(&r.outLink, "out-link", "o", "", "link the outputs in `DIR`, by the names of the targets, and keep the garbage collector away from them")
	cmd.Flags().StringVar(&a.cache, "cache", "", "dir:`PATH` where the plan and the results are kept (default below $XDG_CACHE_HOME)")
	cmd.Flags().IntVarP(&r.jobs, "jobs", "j", min(4, runtime.NumCPU()), "entries at a time; each builds as many derivations at a time as Nix is set to")
	cmd.Flags().BoolVarP(&r.logs, "print-build-logs", "L", false, "show the lines of build logs")
	return cmd
}

type runner struct {
	app       *app
	discovery discovery
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
	how, err := r.working.parse()
	if err != nil {
		return err
	}
	how.keepGoing = how.keepGoing && !r.failFast
	path, err := cachePath(a.cache)
	if err != nil {
		return err
	}
	dir, err := r.dir(path)
	if err != nil {
		return err
	}
	c, err := cachedir.New(path)
	if err != nil {
		return err
	}
	if err := a.loadSeal(); err != nil {
		return err
	}
	if err := a.setUp(ctx, r.discovery.setup); err != nil {
		return err
	}
	at, err := r.discovery.surroundings.open(ctx, a, &job.Plan{})
	if err != nil {
		return err
	}
	defer at.close()
	if d := &r.discovery; len(d.systems) == 0 {
		if d.systems = d.surroundings.buildable(at.nix); d.systems != nil {
			d.buildable = true
		} else {
			d.systems = defaultSystems
		}
	}
	if err := r.discovery.guard(ctx, at); err != nil {
		return err
	}
	plan, e, err := r.discovery.plan(ctx, at, c)
	if err != nil {
		return err
	}
	if err := at.sign(); err != nil {
		return err
	}
	e.keep(ctx, plan)
	data, err := written(plan)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "plan.json"), data); err != nil {
		return fmt.Errorf("keep the plan: %w", err)
	}
	tell(a.show, plan)
	key := job.PlanKey(a.id, "", data)(0)
	w := &worker{app: a, site: at, plan: plan, key: key, working: how, showLogs: r.logs, keepLogs: filepath.Join(dir, "logs")}
	results, err := r.work(ctx, w, filepath.Join(dir, "results"))
	if err != nil {
		return err
	}
	v := verdict.Judge(plan, key, results, nil)
	v.Origin = a.origin(plan)
	if r.failFast && v.Cancelled && ctx.Err() == nil {
		v.Notices = append(v.Notices, "The run was stopped at the first failure, as --fail-fast wants.")
	}
	if err := r.tellOutputs(context.WithoutCancel(ctx), at.nix, v); err != nil {
		a.warn("Outputs are not all linked", err)
	}
	a.show.Close()
	options := report.SummaryOptions{RunURL: a.action.RunURL()}
	if err := errors.Join(r.pages.print(a, v, options), r.pages.write(v, options)); err != nil {
		return err
	}
	if v.Status != verdict.Success {
		return &redError{string(v.Status)}
	}
	return nil
}

// dir is the directory for the plan and the results of this id, in that of the cache.
// Those of the last run are removed.
func (r *runner) dir(cache string) (string, error) {
	dir := filepath.Join(cache, "run", r.app.id)
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("remove the results of the last run: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "results"), 0o750); err != nil {
		return "", fmt.Errorf("make a place for the results: %w", err)
	}
	return dir, nil
}

// work builds all entries, some of them at a time.
func (r *runner) work(ctx context.Context, w *worker, dir string) ([]*job.Result, error) {
	a := r.app
	a.show.Start(len(w.plan.Entries))
	results := make([]*job.Result, len(w.plan.Entries))
	errs := make([]error, len(w.plan.Entries))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.SetLimit(r.jobs)
	for i := range w.plan.Entries {
		entry := &w.plan.Entries[i]
		g.Go(func() error {
			result := a.newResult(entry, w.key)
			results[i] = result
			w.work(ctx, entry, result)
			a.show.Finish(result.Outcome.OK())
			a.announce(result)
			if r.failFast && !result.Outcome.OK() {
				stop()
			}
			errs[i] = writeResult(filepath.Join(dir, entry.ID+".json"), result, nil)
			return nil
		})
	}
	_ = g.Wait()
	return results, errors.Join(errs...)
}
