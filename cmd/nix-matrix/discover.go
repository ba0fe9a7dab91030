package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/discover"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/text"
)

func newDiscover(a *app) *cobra.Command {
	d := &discoverFlags{}
	var planOut, drvsOut string
	var printJSON bool
	cmd := &cobra.Command{
		Use:   "discover [INSTALLABLE…]",
		Short: "Evaluate once and print the job matrix",
		Long: `Evaluates the hosts and packages of a flake or a Nix file, and prints a job
matrix with one entry for each host and a few for all the rest, by the derivations that
no substituter has: as JSON into a file or a pipe, as a table on a terminal. Nothing is
built. The derivations go into the cache as a pack, for "nix-matrix build" to fetch.

An INSTALLABLE is FLAKE[#ATTR], as for "nix build": . or .#nixosConfigurations,
./DIR, .?submodules=1 (Nix leaves out git submodules otherwise, and always what
git does not know), path:DIR, github:OWNER/REPO#packages.x86_64-linux.hello.
Without an ATTR, all nixosConfigurations, darwinConfigurations,
homeConfigurations, packages, checks, devShells and the formatter are taken.
ATTR^OUT[,OUT] chooses outputs, ATTR^* takes all.

A target that cannot be evaluated is in the plan as failed, and makes the report red;
the others go on.

Private inputs are fetched with NIX_MATRIX_GITHUB_ACCESS_TOKEN, NIX_MATRIX_SSH_KEY,
NIX_MATRIX_NETRC and NIX_MATRIX_CONF, and git-crypt unlocks the checkout with
NIX_MATRIX_GIT_CRYPT_KEY for the time of the evaluation. With a text in
NIX_MATRIX_ENCRYPTION_KEY everything cached or uploaded is sealed.`,
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
	d.flags(cmd)
	a.idFlag(cmd)
	a.cacheFlag(cmd)
	setUpFlag(cmd, &d.setup)
	addFlag(cmd, flagvalue.Bool(&printJSON, false), "json", "print the matrix as JSON on a terminal too, where only the table of what was found is shown otherwise")
	cmd.Flags().StringVar(&planOut, "plan-out", "", "write the plan to `FILE`")
	cmd.Flags().StringVar(&drvsOut, "drvs-out", "", "write the pack of derivations to `FILE`")
	return cmd
}

func (a *app) discover(ctx context.Context, flags *discoverFlags, planOut, drvsOut string, printJSON bool) error {
	d, err := a.openDiscovery(ctx, flags)
	if err != nil {
		return err
	}
	defer d.Env.Close()
	var dir string
	if a.action.Running() { // the files become artifacts of the run
		dir, err = a.action.TempDir(a.id)
	} else {
		dir, err = a.secretDir.Dir()
	}
	if err != nil {
		return err
	}
	d.InFiles = planOut != "" && drvsOut != ""
	planOut, drvsOut = cmp.Or(planOut, filepath.Join(dir, "plan.json")), cmp.Or(drvsOut, filepath.Join(dir, "drvs.pack"))
	d.PackFile = drvsOut
	p, err := d.Plan(ctx)
	if err != nil {
		return err
	}
	p.Machine, p.Finished = a.machine(), time.Now().UTC().Truncate(time.Second)
	key, err := d.HandOver(ctx, p, planOut)
	if err != nil {
		return err
	}
	matrix, err := plan.Matrix(p, key)
	if err != nil {
		return usage.Wrap(err)
	}
	tell(a.log, p)
	return a.emit(p, key, matrix, planOut, drvsOut, printJSON)
}

// openDiscovery opens a discovery that the jobs of a workflow share. The caller closes its Env.
func (a *app) openDiscovery(ctx context.Context, flags *discoverFlags) (*discover.Discovery, error) {
	options, err := flags.options(a)
	if err != nil {
		return nil, err
	}
	docs, err := a.openDocuments()
	if err != nil {
		return nil, err
	}
	scripts, err := a.hooks()
	if err != nil {
		return nil, err
	}
	return discover.Open(ctx, a.host, docs, scripts, a.log, options)
}

// emit sets the outputs, and prints the matrix if printJSON is true.
func (a *app) emit(p *job.Plan, key string, matrix []byte, planFile, drvsFile string, printJSON bool) error {
	for _, e := range report.UnevaluatedAnnotations(p) {
		a.action.Annotate(action.LevelError, e.Title, e.Message)
	}
	for _, notice := range report.Notices(p) {
		a.action.Annotate(action.LevelNotice, "", notice)
	}
	if err := a.action.AddSummary(report.OutlookMarkdown(p, maxOutlook)); err != nil {
		a.log.Warn("The summary lacks the entries", err)
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
			return err
		}
	}
	if !printJSON {
		return nil
	}
	_, err := fmt.Fprintf(a.streams.out, "%s\n", text.NoCommandsJSON(matrix))
	return err
}
