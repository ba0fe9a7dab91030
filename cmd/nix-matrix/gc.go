package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/collect"
	"github.com/org/nix-matrix/pkg/gc"
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
name in GITHUB_REPOSITORY; a workflow with "command: gc" has both. A directory and a
bucket do not record the last use, so there the time of saving counts. In a bucket,
all that was saved for a branch or pull request goes once nothing was saved for it
within --keep, except for the default branch.

Exits with 1 if a removal failed, with 3 if the token may not list the cache.`,
		Example: `  nix-matrix gc --dry-run
  nix-matrix gc --cache dir:/srv/cache --keep 2d --budget 5GB
  GITHUB_REPOSITORY=me/fleet ` + action.GitHubVariable + `=$(gh auth token) nix-matrix gc --cache actions --dry-run`,
		Args: noArguments("gc takes no %q: it looks at all entries of --id"),
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
	docs, err := a.documents()
	if err != nil {
		return err
	}
	rules := g.rules
	rules.ID, rules.Now, rules.Proposed = a.id, time.Now(), action.ProposedRef
	from, err := g.open(&rules)
	if err != nil {
		return err
	}
	open := func() (cache.Cache, error) { return a.openCache(docs.Trust) }
	done, err := (&collect.Collector{Docs: docs, Open: open, From: from, Rules: rules, DryRun: g.dryRun, Pause: removePause, Log: a.log}).Run(ctx)
	if err != nil {
		return err
	}
	a.log.Close()
	if g.json {
		err = a.printJSON(done)
	} else {
		err = a.print(done.Text())
	}
	if err := errors.Join(ctx.Err(), err); err != nil {
		return err
	}
	if done.Failed {
		return &redError{"not all was removed"}
	}
	return nil
}

// open opens the cache that the flag names, to remove entries, and sets the rules that follow from it.
func (g *collector) open(rules *gc.Rules) (collect.Cache, error) {
	a := g.app
	if a.inBucket() {
		bucket, err := a.openBucket()
		if err != nil {
			return nil, err
		}
		rules.Proposed, rules.Expires = collect.ProposalScope, collect.RefScope
		return collect.Bucket(bucket), nil
	}
	if !a.inActions() {
		files, err := a.openDir()
		return collect.Directory(files), err
	}
	api, err := a.action.GitHub(a.log.Printf)
	if err != nil {
		return nil, err
	}
	return collect.Actions(api), nil
}

// removePause is the time between two requests to remove an entry, as GitHub's documentation asks for.
var removePause = time.Second
