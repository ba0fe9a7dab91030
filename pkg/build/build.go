package build

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/hooks"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/reuse"
	"github.com/org/nix-matrix/pkg/storecache"
	"github.com/org/nix-matrix/pkg/text"
)

// A Builder builds one entry of the matrix on a machine that has neither its Plan nor its derivations.
type Builder struct {
	Options
	Host   *access.Host
	Access *access.Config
	Docs   *documents.Store
	Hooks  *hooks.Runner
	Log    Log

	SetUp    string // script to run before everything
	PlanFile string // the plan, in place of the cache's
	DrvsFile string // the pack of derivations, if the cache has none
	// Policy and Engine decide which paths go through the store cache, and how they get into the store.
	Policy storecache.Policy
	Engine reuse.EngineChoice
}

// Build builds an entry. The error says why nothing could be built; everything else is in the
// Result. It wraps [documents.ErrMissing] where the cache lacks the Plan or the derivations.
func (b *Builder) Build(ctx context.Context, entry *job.Entry, result *job.Result) error {
	cached := &reuse.Cache{Docs: b.Docs, Log: b.Log}
	var entryCache *reuse.EntryCache
	if b.Docs.Cache != nil && b.Policy != storecache.Off && b.Access.Store == "" {
		entryCache = cached.Entry(ctx, entry, b.Policy, b.Engine)
	}
	b.Log.Doing("fetching the plan")
	plan, err := b.plan(ctx, entry)
	if err != nil {
		return err
	}
	planned, ok := plan.EntryByID(entry.ID)
	if !ok || planned.DrvPath != entry.DrvPath {
		return fmt.Errorf("the plan has no entry %q with %s: the job and the plan are not of the same discovery", entry.Name, entry.DrvPath)
	}
	if err := b.setUp(ctx, planned, result); err != nil {
		return err
	}
	b.Docs.Trust.Heads = plan.Heads
	if !b.Docs.Trust.AcceptsFlakeConfig() && len(plan.Substituters)+len(plan.PublicKeys) > 0 {
		b.Log.Printf("%s", action.FlakeConfigRefused)
		plan.Substituters, plan.PublicKeys = nil, nil
	}
	env, err := b.Host.Open(ctx, b.Access, b.Hooks.Env, plan.Substituters, plan.PublicKeys)
	if err != nil {
		return err
	}
	defer env.Close()
	if err := env.Reach(ctx); err != nil {
		return err
	}
	if err := env.Sign(); err != nil {
		return err
	}
	env.Provide(plan.Programs)
	programs := env.ProgramDrvs(plan)
	accept := cached.Accepts(env.Nix, b.Access.PublicKeys)
	if entryCache != nil {
		entryCache.Plan, entryCache.Accept = plan, accept
	}
	var missing error
	w := &Worker{
		Options: b.Options, Env: env, Plan: plan, Hooks: b.Hooks, Log: b.Log, Entry: entryCache, Docs: b.Docs,
		Restore: func(ctx context.Context, drvs []string, result *job.Result) error {
			b.Log.Doing("fetching derivations")
			err := b.restore(ctx, env.Nix, accept, plan, slices.Concat(drvs, programs), result)
			if errors.Is(err, documents.ErrMissing) && ctx.Err() == nil {
				missing = err
			}
			return err
		},
	}
	w.Work(ctx, planned, result)
	return missing
}

// setUp runs the user's script within the deadline of the entry.
func (b *Builder) setUp(ctx context.Context, e *job.Entry, result *job.Result) error {
	if limit, _ := b.limit(e); limit > 0 {
		limited, cancel := context.WithDeadline(ctx, result.Started.Add(limit))
		defer cancel()
		ctx = limited
	}
	return b.Hooks.SetUp(ctx, b.SetUp)
}

// plan returns the plan from its file, else from the cache. It must be the one that the entry names.
func (b *Builder) plan(ctx context.Context, entry *job.Entry) (*job.Plan, error) {
	var data []byte
	var err error
	if b.PlanFile != "" {
		if data, err = documents.ReadFile(b.PlanFile, documents.MaxPlan); err != nil {
			return nil, fmt.Errorf("cannot read the plan: %w", err)
		}
		if data, err = b.Docs.OpenPlan(data, entry.Plan); err != nil {
			return nil, err
		}
	} else if data, err = b.Docs.Plan(ctx, entry.Plan); err != nil {
		return nil, fmt.Errorf("cannot fetch the plan: %w: %w. Run discover again, with the same --cache, or give the plan with --plan", documents.ErrMissing, err)
	}
	return job.ParsePlan(data)
}

// restore imports derivations from the pack in the cache, else in the file.
func (b *Builder) restore(ctx context.Context, n *nix.Nix, accept storecache.Acceptance, plan *job.Plan, drvs []string, result *job.Result) error {
	if plan.Drvs == nil {
		return errors.New("cannot fetch the derivations: the plan names no pack, because run made it for its own machine. Make a plan with discover")
	}
	var errs []error
	for _, source := range []func() (pack.Source, error){
		func() (pack.Source, error) { return b.cachedDrvs(ctx, plan.Drvs) },
		b.drvsFile,
	} {
		src, err := source()
		if src == nil {
			errs = append(errs, err)
			continue
		}
		got, err := storecache.RestoreDrvs(ctx, n, engine.Protocol(n), src, plan.Drvs.SHA256, drvs, b.Docs.Seal, accept)
		if err == nil {
			result.Imported += got.Paths
			result.Downloaded += got.Bytes
			if len(drvs) > 0 && result.Imported == got.Paths { // a helper's first ones
				b.Log.Printf("%d derivations and sources imported, %s read", got.Paths, text.Size(got.Bytes))
			}
			return nil
		}
		if errors.Is(err, storecache.ErrUnproven) {
			return fmt.Errorf("%w: %s", err, reuse.OnlyProven)
		}
		if !errors.Is(err, storecache.ErrSource) {
			return err
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("cannot fetch the derivations: %w: %w. Run discover again, with the same --cache, or give the pack with --drvs", documents.ErrMissing, errors.Join(errs...))
}

func (b *Builder) cachedDrvs(ctx context.Context, drvs *job.DrvPack) (pack.Source, error) {
	if b.Docs.Cache == nil || drvs.Key == "" {
		return nil, errors.New("there is no cache")
	}
	return storecache.OpenDrvs(ctx, b.Docs.Cache, drvs.Key, drvs.Size)
}

func (b *Builder) drvsFile() (pack.Source, error) {
	if b.DrvsFile == "" {
		return nil, nil //nolint:nilnil // none was given, which is no error
	}
	f, err := storecache.File(b.DrvsFile)
	if err != nil {
		return nil, err
	}
	return f, nil
}
