package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/store"
	"github.com/org/nix-matrix/pkg/text"
)

func newBuild(a *app) *cobra.Command {
	b := &builder{app: a}
	cmd := &cobra.Command{
		Use:   "build --job JSON",
		Short: "Build one entry of the matrix, without evaluating anything",
		Long: `Builds one entry of the matrix that discover printed. Its plan and derivations
come from the cache (or from files, with --plan and --drvs); no checkout is needed
and no evaluator is started. What was built is pushed to the binary caches that
--push names.

What earlier runs have built is restored from the cache, as far as this build takes it,
and what is new is saved for later ones: in GitHub Actions by default, elsewhere with
--store-cache.

A Result is written whatever happens: when the build fails, and when it is
stopped by a signal.

` + secretsHelp,
		Example: `  nix-matrix build --job "$(nix-matrix discover | jq '.include[0]')"
  nix-matrix build --job "$JOB" --push s3://my-cache --result result.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("build takes no %q: give one row of the matrix with --job", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return b.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&b.job, "job", a.action.Input("job"), "the entry: one row of the matrix, as `JSON`")
	f.StringVar(&b.planFile, "plan", a.action.Input("plan"), "`FILE` with the plan, instead of the cache")
	f.StringVar(&b.drvsFile, "drvs", a.action.Input("drvs"), "`FILE` with the pack of derivations, where the cache has none")
	f.StringVar(&b.resultFile, "result", a.action.Input("result"), "write the Result to `FILE`; - is stdout")
	a.boolFlag(cmd, &b.missingOK, "missing-ok", false, "")
	_ = f.MarkHidden("missing-ok") // for action.yml, which then fetches the artifact
	b.surroundings.flags(a, cmd)
	b.surroundings.pushFlags(a, cmd)
	b.working.flags(a, cmd)
	b.packing.restoreFlags(a, cmd)
	b.packing.policyFlag(a, cmd, a.defaultPolicy())
	a.setUpFlag(cmd, &b.setup)
	f.StringVar(&b.logsDir, "logs", "", "keep the whole logs of what failed in `DIR`")
	a.idFlag(cmd)
	a.cacheFlag(cmd)
	return cmd
}

type builder struct {
	app        *app
	job        string
	planFile   string
	drvsFile   string
	resultFile string
	logsDir    string
	setup      string
	working    workingFlags
	packing    packing
	cache      cache.Cache // nil where there is none

	surroundings surroundings
	// missingOK makes a missing plan or pack an output of the step instead of a
	// failure.
	missingOK bool
}

func (b *builder) run(ctx context.Context) error {
	a := b.app
	entry, err := job.ParseEntry([]byte(b.job))
	if err != nil {
		return &usageError{err}
	}
	if err := errors.Join(a.checkID(), a.loadSeal()); err != nil {
		return err
	}
	result := a.newResult(entry, entry.Plan)
	if err := b.placeResult(entry, result); err != nil {
		return err
	}
	if interrupted := *result; b.resultFile != "-" { // whose reader may be what is waited for
		interrupted.Outcome, interrupted.Error = job.OutcomeCancelled, "the worker was told twice to stop"
		a.onAbort(func() { _ = b.writeResult(&interrupted) })
	}
	err = b.build(ctx, entry, result)
	a.onAbort(nil) // what is known now says more
	if err != nil {
		result.Error = err.Error()
		result.Conclude(ctx.Err() != nil)
		result.Finished = time.Now().UTC()
	}
	if werr := errors.Join(b.writeResult(result), b.tellLogs(entry.ID)); werr != nil {
		return errors.Join(err, werr)
	}
	if errors.Is(err, errNoHandover) && b.missingOK && ctx.Err() == nil {
		a.show.Printf("%v: trying the artifact of the run", err)
		return a.action.SetOutput("handover", "missing")
	}
	if a.action.Running() {
		a.saveResult(ctx, b.cache, result)
	}
	if err != nil {
		return err
	}
	a.announce(result)
	a.explain(result)
	if !result.Outcome.OK() {
		return &redError{string(result.Outcome)}
	}
	return nil
}

// placeResult finds a place for the Result and puts a first one there: should
// this process be killed, it is what tells about it.
func (b *builder) placeResult(entry *job.Entry, result *job.Result) error {
	a := b.app
	if b.resultFile == "" && a.action.Running() {
		dir, err := a.action.TempDir(a.id)
		if err != nil {
			return err
		}
		b.resultFile = filepath.Join(dir, entry.ID+".json")
		b.logsDir = or(b.logsDir, filepath.Join(dir, "logs"))
	}
	if b.resultFile == "" || b.resultFile == "-" {
		return nil
	}
	if err := b.writeResult(result); err != nil {
		return err
	}
	return a.action.SetOutput("result", b.resultFile)
}

func (b *builder) writeResult(result *job.Result) error {
	switch b.resultFile {
	case "":
		return nil
	case "-":
		data, err := result.Marshal()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(b.app.streams.out, "%s\n", text.NoCommandsJSON(data))
		return err
	default:
		return writeResult(b.resultFile, result, b.app.seal)
	}
}

// setUp runs the user's script, which the deadline of the entry is for too.
func (b *builder) setUp(ctx context.Context, how working, result *job.Result) error {
	if how.timeout > 0 {
		limited, cancel := context.WithDeadline(ctx, result.Started.Add(how.timeout))
		defer cancel()
		ctx = limited
	}
	return b.app.setUp(ctx, b.setup)
}

// tellLogs hands the logs of what failed to the step that keeps them.
func (b *builder) tellLogs(entry string) error {
	dir := filepath.Join(b.logsDir, entry)
	if logs, _ := filepath.Glob(filepath.Join(dir, "*.log")); b.logsDir == "" || len(logs) == 0 {
		return nil
	}
	if err := b.app.sealLogs(dir); err != nil {
		return err
	}
	b.app.show.Printf("the whole logs of what failed are in %s", dir)
	return b.app.action.SetOutput("logs", dir)
}

func (b *builder) build(ctx context.Context, entry *job.Entry, result *job.Result) (err error) {
	defer recovered(&err) // so that the Result says it
	a := b.app
	how, err := b.working.parse()
	if err != nil {
		return err
	}
	if _, err := destinations(b.surroundings.push); err != nil {
		return err
	}
	c, err := a.openCache()
	if err != nil {
		return err
	}
	b.cache = c
	stock, err := b.stock(ctx, c, entry)
	if err != nil {
		return err
	}
	a.show.Doing("fetching the plan")
	plan, err := b.plan(ctx, c, entry)
	if err != nil {
		return err
	}
	planned, ok := plan.EntryByID(entry.ID)
	if !ok || planned.DrvPath != entry.DrvPath {
		return fmt.Errorf("the plan has no entry %q with %s: the job and the plan are not of the same discovery", entry.Name, entry.DrvPath)
	}
	if err := b.setUp(ctx, how, result); err != nil {
		return err
	}
	a.heads = plan.Heads
	if !a.trust().AcceptsUnsigned() && len(plan.PublicKeys) > 0 {
		a.show.Printf("the binary caches that the flake's nixConfig names are not used: %s", onlyProven)
		plan.Substituters, plan.PublicKeys = nil, nil
	}
	at, err := b.surroundings.open(ctx, a, plan)
	if err != nil {
		return err
	}
	defer at.close()
	if err := at.sign(); err != nil {
		return err
	}
	at.provide(plan.Programs)
	programs := at.programDrvs(plan)
	var notHanded error
	accept := a.accepts(at.nix, b.surroundings.publicKeys)
	if stock != nil {
		stock.plan, stock.accept = plan, accept
	}
	w := &worker{app: a, stock: stock, site: at, plan: plan, key: entry.Plan, working: how, showLogs: true, keepLogs: b.logsDir,
		restore: func(ctx context.Context, drvs []string, result *job.Result) error {
			a.show.Doing("fetching derivations")
			err := b.restore(ctx, at.nix, accept, c, plan, slices.Concat(drvs, programs), result)
			if errors.Is(err, errNoHandover) && ctx.Err() == nil {
				notHanded = err
			}
			return err
		}}
	a.show.Start(1)
	w.work(ctx, planned, result)
	a.show.Finish(result.Outcome.OK())
	return notHanded
}

// plan takes the plan from its file, else from the cache, and makes sure that it
// is the one that the entry is of.
func (b *builder) plan(ctx context.Context, c cache.Cache, entry *job.Entry) (*job.Plan, error) {
	var data []byte
	var err error
	if b.planFile != "" {
		if data, err = readFile(b.planFile, maxPlan, 0); err != nil {
			return nil, fmt.Errorf("read the plan: %w", err)
		}
	} else if data, err = fromCache(ctx, c, entry.Plan); err != nil {
		return nil, fmt.Errorf("the plan was %w: %w. Run discover again, with the same --cache, or give the plan with --plan", errNoHandover, err)
	}
	if data, err = b.app.seal.Open(planDocument, data); err != nil {
		return nil, err
	}
	if entry.Plan != "" {
		if err := job.CheckPlanKey(entry.Plan, data); err != nil {
			return nil, err
		}
	}
	return job.ParsePlan(data)
}

func fromCache(ctx context.Context, c cache.Cache, key string) ([]byte, error) {
	switch {
	case key == "":
		return nil, errors.New("the entry names none")
	case c == nil:
		return nil, errors.New("there is no cache")
	}
	blob, err := c.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	return cache.ReadAll(ctx, blob, maxPlan)
}

// restore imports derivations from the pack: the cache's, else the file.
func (b *builder) restore(ctx context.Context, n store.Nix, accept store.Acceptance, c cache.Cache, plan *job.Plan, drvs []string, result *job.Result) error {
	if plan.Drvs == nil {
		return fmt.Errorf("the plan names no pack of derivations, so it was made for the machine that discovered: make one with discover")
	}
	var errs []error
	for _, source := range []func() (pack.Source, error){
		func() (pack.Source, error) { return b.cachedDrvs(ctx, c, plan.Drvs.Key) },
		b.drvsArtifact,
	} {
		src, err := source()
		if src == nil {
			errs = append(errs, err)
			continue
		}
		got, err := store.RestoreDrvs(ctx, n, src, plan.Drvs.SHA256, drvs, b.app.seal, accept)
		if err == nil {
			result.Imported, result.Downloaded = got.Paths, got.Bytes
			b.app.show.Printf("%d derivations and sources imported, %s read", got.Paths, text.Size(got.Bytes))
			return nil
		}
		if errors.Is(err, store.ErrUnproven) {
			return fmt.Errorf("%w: %s", err, onlyProven)
		}
		if !errors.Is(err, store.ErrSource) {
			return err
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("the derivations were %w: %w. Run discover again, with the same --cache, or give the pack with --drvs", errNoHandover, errors.Join(errs...))
}

func (b *builder) cachedDrvs(ctx context.Context, c cache.Cache, key string) (pack.Source, error) {
	if c == nil || key == "" {
		return nil, errors.New("they are in no cache")
	}
	blob, err := c.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	return blob, nil
}

func (b *builder) drvsArtifact() (pack.Source, error) {
	if b.drvsFile == "" {
		return nil, nil //nolint:nilnil // none was given, which is no error
	}
	f, err := store.File(b.drvsFile)
	if err != nil {
		return nil, err
	}
	return f, nil
}
