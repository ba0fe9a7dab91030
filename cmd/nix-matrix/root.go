package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/nearest"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/progress"
	"github.com/org/nix-matrix/pkg/secretdir"
	"github.com/org/nix-matrix/pkg/text"
)

// An app has the state that all commands share.
type app struct {
	streams streams
	getenv  func(string) string
	action  *action.Action
	host    *access.Host
	log     *jobLog

	id    string
	cache string

	secretDir secretdir.Dir // for files with secrets

	mu      sync.Mutex
	atAbort func() // for a second Ctrl-C
}

func newApp(s streams, getenv func(string) string) *app {
	github := action.New(getenv, s.err)
	a := &app{
		secretDir: secretdir.Dir{Guard: afterDeath(), Env: nix.Environ()},
		streams:   s,
		getenv:    getenv,
		action:    github,
		log:       &jobLog{progress.New(s.err, getenv, text.NoCommands, progress.Groups(github.Running())), github},
	}
	a.host = &access.Host{
		Getenv:   getenv,
		Secrets:  &a.secretDir,
		Log:      a.log,
		Mask:     github.Mask,
		Running:  github.Running(),
		Hosted:   getenv("RUNNER_ENVIRONMENT") == "github-hosted",
		Withheld: github.SecretsWithheld(),
		JobToken: getenv(action.GitHubVariable),

		Issuer:    github.Issuer(),
		ChangeRef: github.Trust().ChangeRef(),
	}
	if tokens := github.IDTokens(); tokens != nil {
		a.host.IDToken = tokens.Token
	}
	return a
}

// A jobLog shows progress and warnings, in the log and on the page of the run.
type jobLog struct {
	*progress.Display
	page *action.Action
}

// Warn logs a fault that is no error, and puts it on the page of the run.
func (l *jobLog) Warn(title string, err error) {
	l.Warnf("%s: %v", title, err)
	l.page.Annotate(action.LevelWarning, title, err.Error())
}

// Warnf logs a fault that is no error.
func (l *jobLog) Warnf(format string, args ...any) { l.Display.Warn(format, args...) }

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "nix-matrix",
		Short: "Build every host and package of a Nix repository once, in parallel",
		Long: `nix-matrix turns one Nix repository into a GitHub Actions job matrix that builds
every host and package once, in parallel, and never evaluates twice.

  discover   evaluates once and prints the matrix
  plan       shows how jobs would share the work, how long it takes and what it costs
  build      builds one entry of it, without evaluating anything
  report     gives the verdict
  run        does all of that on this machine
  restore    restores store paths from the cache, before a build of your own
  serve      serves them to Nix on demand, instead
  save       saves new store paths in the cache, after it
  update     updates flake.lock, and says what that rebuilds
  propose    opens a pull request with that
  gc         removes entries from the cache that no run needs any more
  unseal     prints a file that was sealed with encryption_key
  version    prints the version, and verifies the program
  completion prints a script that completes command lines in a shell

A derivation describes one build for Nix. A target is a host, a package or another attribute that
you ask for: a derivation, with all others that it needs. An entry is a row of the matrix,
with one target or several; in GitHub Actions it is one job.

Exit codes: 0 done (for report and run: green), 1 something is red, 2 wrong
usage, 3 the environment is not usable (no Nix, a Nix daemon or a --store that is away
or refuses this user, no permission, a full disk), 130 interrupted by a signal (finished
builds are pushed and reported nonetheless).

In GitHub Actions, each flag's default is the action's input of the same name
with underscores. Secrets are taken from the environment only.`,
		Example: `  nix-matrix run                                    # all of the flake in this directory
  nix-matrix run --push file:///srv/cache           # … and fill a binary cache
  nix-matrix discover .#nixosConfigurations         # only list the targets
  nix-matrix run -f default.nix -A system -A home   # no flake`,
		Version:       programVersion(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage.Errorf("there is no command %q%s; there are discover, plan, build, report, run, restore, serve, save, update, propose, gc, unseal, version and completion", args[0], nearest.Hint(args[0], commandNames(cmd)))
			}
			return nil
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return readFlags(cmd, a.action) },
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.streams.in)
	root.SetOut(a.streams.out)
	root.SetErr(a.streams.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage.Errorf("%w%s; see %s --help", err, nearestFlag(cmd, err), cmd.CommandPath())
	})
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newDiscover(a), newPlan(a), newBuild(a), newReport(a), newRun(a), newRestore(a), newServe(a), newSave(a), newUpdate(a), newPropose(a), newGC(a), newUnseal(a), newVersion(a), newCompletion(a), newManual(a), newServeDirect(a), newAfterDeath())
	completeArguments(root)
	return root
}

// The flags that several commands have.

func (a *app) idFlag(cmd *cobra.Command) {
	bind(cmd, flagvalue.New(&a.id, "NAME", job.DefaultID, func(text string) (string, error) {
		if job.CheckID(text) != nil {
			return "", errors.New("must be 1 to 64 characters of a-z, 0-9, - and _")
		}
		return text, nil
	}), "id")
}

// missingFlag adds the flag for action.yml, which fetches artifacts if the cache lacks documents.
func missingFlag(cmd *cobra.Command, ok *bool) {
	bindAs(cmd, flagvalue.Bool(ok, false), "missing-ok", "")
	_ = cmd.Flags().MarkHidden("missing-ok")
}

// print prints lines for a person.
func (a *app) print(lines string) error {
	for line := range strings.Lines(lines) {
		if _, err := io.WriteString(a.streams.out, text.NoCommands(line)); err != nil {
			return err
		}
	}
	return nil
}

// printJSON prints a value for programs to read.
func (a *app) printJSON(v any) error {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.streams.out, "%s\n", text.NoCommandsJSON(data))
	return err
}

// documents returns the documents of this use of nix-matrix, without a cache.
func (a *app) documents() (*documents.Store, error) {
	if err := job.CheckID(a.id); err != nil {
		return nil, usage.Wrap(err)
	}
	seal, err := a.host.SealKey()
	if err != nil {
		return nil, err
	}
	trust := a.action.Trust()
	trust.Sealed, trust.Shared = seal != nil, !a.inActions() && !a.inBucket()
	if a.inBucket() && !trust.Running {
		branch, err := a.bucketBranch()
		if err != nil {
			return nil, err
		}
		trust.BaseRefs = []string{branch}
	}
	workflow, _, _ := strings.Cut(a.getenv("GITHUB_WORKFLOW_REF"), "@")
	run, attempt := a.action.RunNumber()
	return &documents.Store{ID: a.id, Seal: seal, Run: run, Attempt: attempt, Workflow: workflow, Trust: &trust, Log: a.log, Evicts: a.inActions()}, nil
}

// openDocuments returns the documents in the cache that the flag names.
func (a *app) openDocuments() (*documents.Store, error) {
	docs, err := a.documents()
	if err != nil {
		return nil, err
	}
	docs.Cache, err = a.openCache(docs.Trust)
	return docs, err
}
