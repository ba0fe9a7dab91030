package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/collect"
	"github.com/org/nix-matrix/pkg/gc"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

func newGC(a *app) *cobra.Command {
	g := &collector{app: a}
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove entries from the cache that no run needs any more",
		Long: `Removes from the cache the entries of this --id, of any branch or pull request, that
no run needs any more:

  - plans and packs of derivations that were not used within --keep;
  - evaluations, flake inputs, records and indexes that were not used within --keep,
    but never the newest of a branch or pull request;
  - packs of store paths that no index names;
  - with --budget, the entries that were not used for longest, until the rest fits:
    first of pull requests and merge queues, then of other branches, and of the
    default branch only when nothing else is left, but never its newest record and
    index.

Entries of other programs and other ids stay. For the Actions cache it needs a token
with the permission actions: write in ` + action.GitHubVariable + `, and the repository's
name in GITHUB_REPOSITORY; a workflow with "command: gc" has both. A directory does not
record the last use, so there the time of saving counts.

Exits with 1 if a removal failed, with 3 if the token may not list the cache.`,
		Example: `  nix-matrix gc --dry-run
  nix-matrix gc --cache dir:/srv/cache --keep 2d --budget 5GB
  GITHUB_REPOSITORY=me/fleet ` + action.GitHubVariable + `=$(gh auth token) nix-matrix gc --cache actions --dry-run`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage.Errorf("gc takes no %q: it looks at all entries of --id", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return g.run(cmd.Context()) },
	}
	bind(cmd, flagvalue.Days(&g.rules.Keep, "7d"), "keep")
	bind(cmd, flagvalue.Size(&g.rules.Budget, ""), "budget")
	bind(cmd, flagvalue.Bool(&g.dryRun, false), "dry-run")
	addFlag(cmd, flagvalue.Bool(&g.json, false), "json", "print what becomes of each entry as JSON")
	a.idFlag(cmd)
	a.cacheFlag(cmd)
	return cmd
}

type collector struct {
	app    *app
	rules  gc.Rules
	dryRun bool
	json   bool
}

// run collects and says what became of each entry.
func (g *collector) run(ctx context.Context) error {
	a := g.app
	docs, err := a.documents(nil)
	if err != nil {
		return err
	}
	from, err := g.open()
	if err != nil {
		return err
	}
	rules := g.rules
	rules.ID, rules.Now, rules.Proposed = a.id, time.Now(), action.ProposedRef
	done, err := (&collect.Collector{Docs: docs, Open: a.openCache, From: from, Rules: rules, DryRun: g.dryRun, Pause: removePause, Log: a.log}).Run(ctx)
	if err != nil {
		return err
	}
	a.log.Close()
	if err := errors.Join(ctx.Err(), g.print(done)); err != nil {
		return err
	}
	if done.Failed {
		return &redError{"not all was removed"}
	}
	return nil
}

// open opens the cache that the flag names, to remove entries.
func (g *collector) open() (collect.Cache, error) {
	a := g.app
	if !a.inActions() {
		c, err := a.openCache()
		if err != nil {
			return nil, err
		}
		files, ok := c.(cache.Collectable)
		if !ok {
			return nil, usage.Errorf("cannot remove anything from --cache %s", a.cache)
		}
		return collect.Directory(files), nil
	}
	api, err := a.gitHub()
	if err != nil {
		return nil, err
	}
	return collect.Actions(api), nil
}

// gitHub returns GitHub's API.
func (a *app) gitHub() (*action.GitHub, error) {
	config := a.action.GitHubConfig()
	config.Log = a.log.Printf
	return action.NewGitHub(config)
}

// removePause is the time between two requests to remove an entry, as GitHub's documentation asks for.
var removePause = time.Second

func (g *collector) print(all *collect.Outcome) error {
	if g.json {
		return g.printJSON(all)
	}
	out := g.app.streams.out
	verb := "removed"
	if g.dryRun {
		verb = "would remove"
	}
	for i := range all.Entries {
		if c := &all.Entries[i]; c.Gone(g.dryRun) {
			line := fmt.Sprintf("%s %s", verb, c.Key)
			if c.Ref != "" {
				line += " of " + c.Ref
			}
			if _, err := fmt.Fprintln(out, text.NoCommands(fmt.Sprintf("%s (%s): %s", line, text.Size(c.Size), c.Why))); err != nil {
				return err
			}
		}
	}
	return g.printTable(out, all, verb)
}

func (g *collector) printTable(out io.Writer, all *collect.Outcome, verb string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name string, kinds ...job.KeyKind) {
		gone, kept := all.Count(g.dryRun, kinds...)
		if gone.Count+kept.Count > 0 || name == "all" {
			fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\n", name, gone.Count, text.Size(gone.Bytes), kept.Count, text.Size(kept.Bytes))
		}
	}
	fmt.Fprintf(w, "KIND\t%s\tSIZE\tKEPT\tSIZE\n", strings.ToUpper(verb))
	for _, kind := range job.KeyKinds {
		row(string(kind), kind)
	}
	row("all", job.KeyKinds...)
	return w.Flush()
}

func (g *collector) printJSON(all *collect.Outcome) error {
	type entry struct {
		Key     string      `json:"key"`
		Kind    job.KeyKind `json:"kind"`
		Ref     string      `json:"ref,omitempty"`
		Size    int64       `json:"size"`
		Created time.Time   `json:"created"`
		Used    time.Time   `json:"used"`
		Removed bool        `json:"removed"` // or would be
		Why     string      `json:"why,omitempty"`
		Error   string      `json:"error,omitempty"`
	}
	told := struct {
		DryRun  bool          `json:"dryRun"`
		Entries []entry       `json:"entries"`
		Removed collect.Tally `json:"removed"`
		Kept    collect.Tally `json:"kept"`
	}{DryRun: g.dryRun, Entries: []entry{}}
	for i := range all.Entries {
		c := &all.Entries[i]
		e := entry{
			Key: c.Key, Kind: c.Kind, Ref: c.Ref, Size: c.Size, Created: c.Created.UTC(), Used: c.Used.UTC(), Removed: c.Gone(g.dryRun), Why: c.Why,
		}
		if c.Err != nil {
			e.Error = c.Err.Error()
		}
		told.Entries = append(told.Entries, e)
	}
	told.Removed, told.Kept = all.Count(g.dryRun, job.KeyKinds...)
	return g.app.printJSON(told)
}
