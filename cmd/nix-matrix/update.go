package main

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/discover"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/storecache"
)

func newUpdate(a *app) *cobra.Command {
	u := &updater{app: a}
	cmd := &cobra.Command{
		Use:   "update [INSTALLABLE…]",
		Short: "Update flake.lock, and say what that rebuilds",
		Long: `Updates the lock file of the flake in the working directory, evaluates the flake before
and after, and prints as Markdown what the update rebuilds: the inputs, the targets that
change, are new or gone, or cannot be evaluated any more, what no substituter has, and
the closures as far as they are known. Nothing is built.

An INSTALLABLE is .#ATTR, as for "nix-matrix discover", and says what is compared.

If the inputs have nothing new, it says so. With an error, flake.lock stays as it was.
"nix-matrix propose" opens a pull request with the file of --out.`,
		Example: `  nix-matrix update --dry-run                     # flake.lock stays as it is
  nix-matrix update --inputs nixpkgs,home-manager
  nix-matrix update .#nixosConfigurations --out update.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := u.discovery.arguments(a, args); err != nil {
				return err
			}
			return u.run(cmd.Context())
		},
	}
	u.discovery.planning = plan.Options{QEMU: plan.QEMUAuto, MaxEntries: plan.MaxEntries, MaxParallel: plan.MaxEntries}
	u.discovery.packing.policy = storecache.Off // no job builds
	u.discovery.lookFlags(cmd)
	u.discovery.access.readFlags(cmd)
	bind(cmd, flagvalue.Words(&u.inputs, "NAME"), "inputs")
	bind(cmd, flagvalue.New(&u.workflow, "FILE", "", parseWorkflowFile), "ci-workflow")
	bind(cmd, flagvalue.Bool(&u.dryRun, false), "dry-run")
	a.idFlag(cmd)
	a.cacheFlag(cmd)
	setUpFlag(cmd, &u.discovery.setup)
	cmd.Flags().StringVar(&u.out, "out", "", "write the update to `FILE`, for nix-matrix propose")
	return cmd
}

type updater struct {
	app       *app
	discovery discoverFlags
	inputs    []string
	workflow  string // file name
	dryRun    bool
	out       string
}

var workflowFilePattern = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\.ya?ml$`)

// parseWorkflowFile accepts the name of a file in .github/workflows.
func parseWorkflowFile(text string) (string, error) {
	if text != "" && !workflowFilePattern().MatchString(text) {
		return "", errors.New("must be the name of a file in .github/workflows, such as ci.yml")
	}
	return text, nil
}

func (u *updater) run(ctx context.Context) error {
	a := u.app
	updated, err := (&discover.Updater{Open: u.open, Inputs: u.inputs, DryRun: u.dryRun, Record: u.record, Log: a.log}).Run(ctx)
	if err != nil {
		return err
	}
	if updated == nil {
		a.log.Printf("nothing is new: the inputs are up to date")
		if err := a.action.AddSummary("## nix-matrix: nothing is new\n\nThe inputs are up to date."); err != nil {
			return err
		}
		return a.action.SetOutput("changed", "false")
	}
	shown := &report.Update{Inputs: updated.Inputs, Change: updated.Change, Plan: updated.Plan, Rebuild: updated.Rebuild, Substituters: updated.Substituters}
	const titleLimit = 150
	title, body := report.UpdateTitle(updated.Inputs, titleLimit), report.UpdateMarkdown(shown, job.MaxBody*3/4)
	if err := u.write(updated, title, body); err != nil {
		return err
	}
	if err := a.action.AddSummary("## " + title + "\n\n" + body); err != nil {
		return err
	}
	if err := a.action.SetOutput("changed", strconv.FormatBool(!u.dryRun)); err != nil {
		return err
	}
	a.log.Close()
	return a.print(body)
}

// open opens a discovery of the flake. The user's script before everything runs once.
func (u *updater) open(ctx context.Context) (*discover.Discovery, error) {
	d, err := u.app.openDiscovery(ctx, &u.discovery)
	u.discovery.setup = ""
	return d, err
}

// record returns the record of the workflow that builds, which has the sizes of closures.
func (u *updater) record(ctx context.Context) *job.Record {
	a := u.app
	if u.workflow == "" {
		return nil
	}
	docs, err := a.openDocuments()
	if err == nil {
		docs.Workflow = a.getenv("GITHUB_REPOSITORY") + "/.github/workflows/" + u.workflow
		var r *job.Record
		if r, err = docs.Record(ctx); r != nil {
			return r
		}
	}
	if err != nil {
		a.log.Warn("Cannot read the record of "+u.workflow+", so the sizes of closures are unknown", err)
	} else {
		a.log.Printf("there is no record of %s on the default branch, so the sizes of closures are unknown", u.workflow)
	}
	return nil
}

// write writes the update to the file for the job that opens the pull request.
func (u *updater) write(updated *discover.Update, title, body string) error {
	a := u.app
	file := u.out
	if u.dryRun || file == "" && !a.action.Running() {
		return nil
	}
	if updated.Commit == "" {
		return usage.Errorf("cannot write the update for a pull request: the flake is not in a checkout of git with a commit. Check the repository out before")
	}
	docs, err := a.documents()
	if err != nil {
		return err
	}
	if file == "" {
		dir, err := a.action.TempDir(a.id)
		if err != nil {
			return err
		}
		file = filepath.Join(dir, "update.json")
	}
	err = docs.WriteUpdate(file, &job.Update{
		Version: job.Version, ID: a.id, Created: time.Now().UTC().Truncate(time.Second), Run: docs.Run, Attempt: docs.Attempt,
		Commit: updated.Commit, LockFile: filepath.ToSlash(updated.LockFile), Lock: string(updated.Lock),
		Title: title, Message: strings.TrimSpace(report.UpdateMessage(updated.Inputs)), Body: body,
	})
	if err != nil {
		return err
	}
	return a.action.SetOutput("update_file", file)
}
