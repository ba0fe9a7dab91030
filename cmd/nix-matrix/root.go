package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/inputs"
	"github.com/org/nix-matrix/internal/nearest"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/actions"
	"github.com/org/nix-matrix/pkg/cache/dir"
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
  plan       shows how jobs would share the work, and how long it would take
  build      builds one entry of it, without evaluating anything
  report     gives the verdict
  run        does all of that on this machine
  restore    restores store paths from the cache, before a build of your own
  save       saves new store paths in the cache, after it
  gc         removes entries from the cache that no run needs any more
  unseal     prints a file that was sealed with encryption_key

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
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage.Errorf("there is no command %q%s; there are discover, plan, build, report, run, restore, save, gc, unseal and version", args[0], nearest.Hint(args[0], commandNames(cmd)))
			}
			return nil
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return readFlags(cmd, a.action) },
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("nix-matrix {{.Version}}\n")
	root.SetIn(a.streams.in)
	root.SetOut(a.streams.out)
	root.SetErr(a.streams.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage.Errorf("%w%s; see %s --help", err, nearestFlag(cmd, err), cmd.CommandPath())
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newDiscover(a), newPlan(a), newBuild(a), newReport(a), newRun(a), newRestore(a), newSave(a), newGC(a), newUnseal(a), newVersion(a), newServeDirect(a), newAfterDeath())
	return root
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.streams.out, "nix-matrix %s %s/%s\n", version, runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
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

func (a *app) cacheFlag(cmd *cobra.Command) {
	bindAs(cmd, cacheValue(&a.cache, true), "cache", cacheHelp)
}

// cacheHelp is for the command line, where the default is not the input's.
var cacheHelp = inputs.Help("cache") + "; default: actions in GitHub Actions, elsewhere a directory below $XDG_CACHE_HOME"

// cacheValue returns the value of a flag for a cache. That of GitHub Actions is one only if actions is true.
func cacheValue(to *string, actions bool) *flagvalue.Scalar[string] {
	kind, must := "dir:PATH", "must be dir:PATH"
	if actions {
		kind, must = "CACHE", "must be actions or dir:PATH"
	}
	return flagvalue.New(to, kind, "", func(text string) (string, error) {
		if path, ok := strings.CutPrefix(text, "dir:"); ok && path != "" || text == "" || actions && text == "actions" {
			return text, nil
		}
		kind, _, _ := strings.Cut(text, ":")
		return "", errors.New(must + nearest.Hint(kind, []string{"actions", "dir"}))
	})
}

// missingFlag adds the flag for action.yml, which fetches artifacts if the cache lacks documents.
func missingFlag(cmd *cobra.Command, ok *bool) {
	bindAs(cmd, flagvalue.Bool(ok, false), "missing-ok", "")
	_ = cmd.Flags().MarkHidden("missing-ok")
}

// openCache opens the cache that the flag names. In GitHub Actions, a cache that is not available is nil
// and a warning, because a cache only makes things faster.
func (a *app) openCache() (cache.Cache, error) {
	if !a.inActions() {
		return a.openDir()
	}
	config, err := actions.FromEnv(a.getenv)
	if err != nil {
		a.log.Warn("The Actions cache is not used", err)
		return nil, nil //nolint:nilnil // none is one of the answers
	}
	return actions.New(config), nil
}

// openDir opens a cache that is a directory.
func (a *app) openDir() (cache.Collectable, error) {
	path, err := cachePath(a.cache)
	if err != nil {
		return nil, err
	}
	return dir.New(path)
}

// inActions reports whether the cache is that of GitHub Actions.
func (a *app) inActions() bool { return a.cache == "actions" || a.cache == "" && a.action.Running() }

// cachePath returns the directory of a cache.
func cachePath(name string) (string, error) {
	if path, ok := strings.CutPrefix(name, "dir:"); ok {
		return path, nil
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", usage.Errorf("cannot find a directory for the cache: %w. Name one with --cache dir:PATH", err)
	}
	return filepath.Join(base, "nix-matrix", "cache"), nil
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
	trust.Sealed, trust.Shared = seal != nil, !a.inActions()
	workflow, _, _ := strings.Cut(a.getenv("GITHUB_WORKFLOW_REF"), "@")
	run, attempt := a.action.RunNumber()
	return &documents.Store{ID: a.id, Seal: seal, Run: run, Attempt: attempt, Workflow: workflow, Trust: &trust, Log: a.log}, nil
}

// openDocuments returns the documents in the cache that the flag names.
func (a *app) openDocuments() (*documents.Store, error) {
	docs, err := a.documents()
	if err != nil {
		return nil, err
	}
	docs.Cache, err = a.openCache()
	return docs, err
}
