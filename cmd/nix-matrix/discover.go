package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/evaluate"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/store"
	"github.com/org/nix-matrix/pkg/text"
)

func newDiscover(a *app) *cobra.Command {
	d := &discovery{}
	var planOut, drvsOut string
	var printJSON bool
	cmd := &cobra.Command{
		Use:   "discover [INSTALLABLE…]",
		Short: "Evaluate once and print the job matrix",
		Long: `Evaluates the hosts and packages of a flake or a Nix file, and prints a job
matrix with one entry for each host and a few for all the rest, by what there is to
build that no substituter offers: as JSON into a file or a pipe, as a table on a
terminal. Nothing is built. The derivations go into the cache
as a pack, for "nix-matrix build" to fetch.

An INSTALLABLE is FLAKE[#ATTR], as for "nix build": . or .#nixosConfigurations,
./DIR, .?submodules=1 (Nix leaves out git submodules otherwise, and always what
git does not know), path:DIR, github:OWNER/REPO#packages.x86_64-linux.hello.
Without an ATTR, all nixosConfigurations, darwinConfigurations,
homeConfigurations, packages, checks, devShells and the formatter are taken.
ATTR^OUT[,OUT] chooses outputs, ATTR^* takes all.

What can't be evaluated is in the plan as failed, and makes the report red; the
others go on.

Private inputs are fetched with NIX_MATRIX_GITHUB_ACCESS_TOKEN, NIX_MATRIX_SSH_KEY,
NIX_MATRIX_NETRC and NIX_MATRIX_CONF, and git-crypt unlocks the checkout with
NIX_MATRIX_GIT_CRYPT_KEY for the time of the evaluation. With a text in
NIX_MATRIX_ENCRYPTION_KEY all that is cached or uploaded is sealed.`,
		Example: `  nix-matrix discover | jq .
  nix-matrix discover --json                        # the JSON on a terminal
  nix-matrix discover .#nixosConfigurations .#checks --push s3://my-cache
  nix-matrix discover -f default.nix -A system -A home --plan-out plan.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.arguments(a, args); err != nil {
				return err
			}
			printJSON = printJSON || a.streams.width() == 0
			return a.discover(cmd.Context(), d, planOut, drvsOut, printJSON)
		},
	}
	d.flags(a, cmd)
	a.idFlag(cmd)
	a.cacheFlag(cmd)
	a.setUpFlag(cmd, &d.setup)
	cmd.Flags().BoolVar(&printJSON, "json", false, "print the matrix as JSON on a terminal too, where only the table of what was found is shown otherwise")
	cmd.Flags().StringVar(&planOut, "plan-out", "", "write the plan to `FILE`")
	cmd.Flags().StringVar(&drvsOut, "drvs-out", "", "write the pack of derivations to `FILE`")
	return cmd
}

func (a *app) discover(ctx context.Context, d *discovery, planOut, drvsOut string, printJSON bool) error {
	if err := a.loadSeal(); err != nil {
		return err
	}
	if err := a.setUp(ctx, d.setup); err != nil {
		return err
	}
	at, err := d.surroundings.open(ctx, a, &job.Plan{})
	if err != nil {
		return err
	}
	defer at.close()
	if err := d.guard(ctx, at); err != nil {
		return err
	}
	c, err := a.openCache()
	if err != nil {
		return err
	}
	var dir string
	if a.action.Running() { // the files become artifacts of the run
		dir, err = a.action.TempDir(a.id)
	} else {
		dir, err = a.secretDir.Dir()
	}
	if err != nil {
		return err
	}
	planOut, drvsOut = or(planOut, filepath.Join(dir, "plan.json")), or(drvsOut, filepath.Join(dir, "drvs.pack"))
	d.packFile = drvsOut

	p, e, err := d.plan(ctx, at, c)
	if err != nil {
		return err
	}
	switch {
	case len(p.Entries) == 0:
	case e.packed:
		p.Drvs = e.Plan.Drvs
	default:
		a.show.Doing("packing derivations")
		if p.Drvs, err = a.packDrvs(ctx, at.nix, c, p, drvsOut); err != nil {
			return err
		}
	}
	e.keep(ctx, p)
	if a.action.Running() {
		p.Run, p.Attempt = a.runNumber()
	}
	data, err := written(p)
	if err != nil {
		return err
	}
	if err := writeFile(planOut, a.seal.Seal(planDocument, data)); err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	key, err := a.savePlan(ctx, c, data)
	if err != nil {
		return err
	}
	matrix, err := plan.Matrix(p, key)
	if err != nil {
		return &usageError{err}
	}
	tell(a.show, p)
	return a.emit(p, key, matrix, planOut, drvsOut, printJSON)
}

// handoverFailed is what becomes of an error of the cache: in GitHub Actions
// there is an artifact besides.
func (a *app) handoverFailed(err error) error {
	if a.action.Running() {
		a.warn("The Actions cache could not be written, an artifact has to do", err)
		return nil
	}
	return err
}

func (a *app) packDrvs(ctx context.Context, n *nix.Nix, c cache.Cache, p *job.Plan, file string) (*job.DrvPack, error) {
	drvs := toBuild(p)
	if hold, err := n.Hold(ctx, drvs...); err != nil {
		a.warn("A garbage collection may take away what was evaluated", err)
	} else {
		defer hold.Close()
	}
	packed, err := store.PackDrvs(ctx, n, a.id, file, drvs, a.seal)
	if err != nil {
		return nil, err
	}
	drv := &job.DrvPack{Size: packed.Size, Paths: packed.Paths, SHA256: packed.SHA256}
	if c != nil {
		if drv.Key, err = packed.Save(ctx, c, file); err != nil {
			return drv, a.handoverFailed(err)
		}
	}
	return drv, nil
}

func (a *app) savePlan(ctx context.Context, c cache.Cache, data []byte) (string, error) {
	keys := job.PlanKey(a.id, a.seal.Fingerprint(), data)
	if c == nil {
		return keys(0), nil
	}
	stored := a.seal.Seal(planDocument, data)
	key, err := store.SaveOnce(ctx, c, keys, bytes.NewReader(stored), int64(len(stored)), func(blob cache.Blob) bool {
		found, err := cache.ReadAll(ctx, blob, int64(len(stored)))
		if err == nil {
			found, err = a.seal.Open(planDocument, found)
		}
		return err == nil && bytes.Equal(found, data)
	})
	if err != nil {
		return keys(0), a.handoverFailed(fmt.Errorf("save the plan: %w", err))
	}
	return key, nil
}

// emit sets the outputs, and prints the matrix if printJSON is true.
func (a *app) emit(p *job.Plan, key string, matrix []byte, planFile, drvsFile string, printJSON bool) error {
	for _, t := range p.Targets {
		if t.State == job.StateFailed {
			a.action.Annotate(action.LevelError, t.Name+" can't be evaluated", t.Error)
		}
	}
	for _, notice := range report.Notices(p) {
		a.action.Annotate(action.LevelNotice, "", notice)
	}
	if err := a.action.AddSummary(report.OutlookMarkdown(p, maxOutlook)); err != nil {
		a.warn("The job's summary could not be written", err)
	}
	outputs := map[string]string{
		"matrix":    string(matrix),
		"count":     strconv.Itoa(len(p.Entries)),
		"plan":      key,
		"plan_file": planFile,
	}
	if p.Drvs != nil {
		outputs["drvs_file"] = drvsFile
	}
	for name, value := range outputs {
		if err := a.action.SetOutput(name, value); err != nil {
			return fmt.Errorf("set the output %s: %w", name, err)
		}
	}
	if !printJSON {
		return nil
	}
	_, err := fmt.Fprintf(a.streams.out, "%s\n", text.NoCommandsJSON(matrix))
	return err
}

// asUsage finds the errors of a discovery that its caller made.
func asUsage(err error) error {
	var missing *evaluate.MissingError
	var glob *evaluate.GlobError
	var arguments *evaluate.ArgumentsError
	var request *evaluate.RequestError
	if errors.As(err, &missing) || errors.As(err, &glob) || errors.As(err, &arguments) || errors.As(err, &request) {
		return &usageError{err}
	}
	return err
}
