package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/gc"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/storecache"
	"github.com/org/nix-matrix/pkg/text"
)

func newGC(a *app) *cobra.Command {
	g := &collector{app: a}
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove from the cache what nobody will look for any more",
		Long: `Removes from the cache what was stored with this --id, by whichever branch or pull
request, and will not be looked for any more:

  - plans and packs of derivations that were not used within --keep;
  - evaluations, flake inputs, records and indexes that were not used within --keep,
    but never the newest of a branch or pull request;
  - packs of store paths that no index names;
  - with --budget, what was not used for longest, until the rest fits: first of pull
    requests and merge queues, then of other branches, and of the default branch only
    when nothing else is left, but never its newest record and index.

What others have stored, and other ids, is left alone. For the Actions cache it needs
a token with the permission actions: write in ` + action.GitHubVariable + `, and the
repository's name in GITHUB_REPOSITORY; a workflow with "command: gc" has both. A
directory does not know when something was used, so there it counts when it was saved.

Exits with 1 if something could not be removed, with 3 if the token may not even look.`,
		Example: `  nix-matrix gc --dry-run
  nix-matrix gc --cache dir:/srv/cache --keep 2d --budget 5GB
  GITHUB_REPOSITORY=me/fleet ` + action.GitHubVariable + `=$(gh auth token) nix-matrix gc --cache actions --dry-run`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage.Errorf("gc takes no %q: it looks at all that was stored with --id", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return g.run(cmd.Context()) },
	}
	bind(cmd, daysValue(&g.rules.Keep, "7d"), "keep")
	bind(cmd, sizeValue(&g.rules.Budget, ""), "budget")
	bind(cmd, boolValue(&g.dryRun, false), "dry-run")
	addFlag(cmd, boolValue(&g.json, false), "json", "print what becomes of each entry as JSON")
	a.idFlag(cmd)
	a.cacheFlag(cmd)
	return cmd
}

type collector struct {
	app    *app
	docs   *documents.Store
	rules  gc.Rules
	dryRun bool
	json   bool
}

// A shelf is a cache that things can be taken from.
type shelf interface {
	list(ctx context.Context, prefix string) ([]action.CacheEntry, error)
	remove(ctx context.Context, e action.CacheEntry) error
	// defaultRef is the default branch's, empty where there are none.
	defaultRef(ctx context.Context) (string, error)
}

func (g *collector) run(ctx context.Context) error {
	a := g.app
	var err error
	if g.docs, err = a.documents(nil); err != nil {
		return err
	}
	rules := g.rules
	rules.ID, rules.Now, rules.Proposed = a.id, time.Now(), action.ProposedRef
	s, err := a.shelf()
	if err != nil {
		return err
	}
	a.log.Doing("looking at what there is")
	entries, err := s.list(ctx, a.id+"-")
	if err != nil {
		return err
	}
	if rules.Budget > 0 {
		if rules.DefaultRef, err = s.defaultRef(ctx); err != nil {
			return err
		}
	}
	rules.Named = g.named(ctx, entries)
	var all []collected
	for _, d := range gc.Decide(entries, rules) {
		all = append(all, collected{Decision: d})
	}
	failed := !g.dryRun && g.collect(ctx, s, all)
	a.log.Close()
	if err := errors.Join(ctx.Err(), g.print(all)); err != nil {
		return err
	}
	if failed {
		return &redError{"not all was removed"}
	}
	return nil
}

// named are the packs that the newest indexes name, of each ref whose indexes this job may
// and can read.
func (g *collector) named(ctx context.Context, entries []action.CacheEntry) map[string]map[string]bool {
	a := g.app
	indexes := gc.Indexes(entries, a.id)
	if len(indexes) == 0 {
		return nil
	}
	c, err := a.openCache()
	if err != nil || c == nil {
		return nil
	}
	named := map[string]map[string]bool{}
	unread := map[string]bool{}
	for _, e := range indexes {
		if e.Ref != "" && !slices.Contains(g.docs.Trust.Refs(), e.Ref) {
			continue
		}
		ix, err := storecache.Read(ctx, c, e.Key, g.docs.Seal)
		if err != nil {
			a.log.Warn("Packs stay, since it is not known whether an index names them", err)
			unread[e.Ref] = true
			continue
		}
		if named[e.Ref] == nil {
			named[e.Ref] = map[string]bool{}
		}
		for _, p := range ix.Packs {
			named[e.Ref][p.Key] = true
		}
	}
	maps.DeleteFunc(named, func(ref string, _ map[string]bool) bool { return unread[ref] })
	return named
}

// shelf is the cache that the flag names.
func (a *app) shelf() (shelf, error) {
	if !a.inActions() {
		c, err := a.openCache()
		if err != nil {
			return nil, err
		}
		files, ok := c.(cache.Collectable)
		if !ok {
			return nil, usage.Errorf("--cache %s: nothing can be removed there", a.cache)
		}
		return dirShelf{files}, nil
	}
	api, err := a.gitHub()
	if err != nil {
		return nil, err
	}
	return actionsShelf{api}, nil
}

// gitHub is GitHub's API.
func (a *app) gitHub() (*action.GitHub, error) {
	config := a.action.GitHubConfig()
	config.Log = a.log.Printf
	return action.NewGitHub(config)
}

type actionsShelf struct{ api *action.GitHub }

func (s actionsShelf) list(ctx context.Context, prefix string) ([]action.CacheEntry, error) {
	return s.api.Caches(ctx, prefix)
}

func (s actionsShelf) remove(ctx context.Context, e action.CacheEntry) error {
	return s.api.RemoveCache(ctx, e)
}

func (s actionsShelf) defaultRef(ctx context.Context) (string, error) {
	r, err := s.api.Repository(ctx)
	return "refs/heads/" + r.DefaultBranch, err
}

type dirShelf struct{ files cache.Collectable }

func (s dirShelf) list(ctx context.Context, prefix string) ([]action.CacheEntry, error) {
	found, err := s.files.List(ctx, prefix)
	entries := make([]action.CacheEntry, len(found))
	for i, f := range found {
		entries[i] = action.CacheEntry{Key: f.Key, Size: f.Size, Created: f.Saved, Used: f.Saved}
	}
	return entries, err
}

func (s dirShelf) remove(ctx context.Context, e action.CacheEntry) error {
	return s.files.Remove(ctx, e.Key)
}

func (s dirShelf) defaultRef(context.Context) (string, error) { return "", nil }

// collected is what became of an entry.
type collected struct {
	gc.Decision
	removed bool
	err     error // that it could not be
}

// removePause is between two requests to remove something, as GitHub's documentation
// asks for.
var removePause = time.Second

// collect removes what is to go, and says whether some of it could not be.
func (g *collector) collect(ctx context.Context, s shelf, all []collected) (failed bool) {
	show := g.app.log
	total := going(all)
	done := 0
	for i := range all {
		c := &all[i]
		if c.Why == "" {
			continue
		}
		if _, slow := s.(actionsShelf); slow && done > 0 && !pause(ctx, removePause) || ctx.Err() != nil {
			return failed
		}
		done++
		show.Doing("removing %d of %d", done, total)
		c.err = s.remove(ctx, c.CacheEntry)
		c.removed = c.err == nil
		switch left := total - done; {
		case c.removed || ctx.Err() != nil:
		case left > 0 && (errors.Is(c.err, action.ErrForbidden) || errors.Is(c.err, action.ErrLimited)):
			g.app.log.Warn("Not all was removed", fmt.Errorf("%w (%d more are left for the same reason)", c.err, left))
			return true
		default:
			failed = true
			g.app.log.Warn("Not all was removed", c.err)
		}
	}
	return failed
}

func going(all []collected) int {
	n := 0
	for _, c := range all {
		if c.Why != "" {
			n++
		}
	}
	return n
}

// pause says whether it could wait to the end.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// goes says whether an entry is gone, or would be.
func (g *collector) goes(c *collected) bool { return c.removed || g.dryRun && c.Why != "" }

func (g *collector) print(all []collected) error {
	if g.json {
		return g.printJSON(all)
	}
	out := g.app.streams.out
	verb := "removed"
	if g.dryRun {
		verb = "would remove"
	}
	for i := range all {
		if c := &all[i]; g.goes(c) {
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

// A tally is a number of entries and their bytes.
type tally struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
}

func (t *tally) add(size int64) {
	t.Count++
	t.Bytes += size
}

// tallies counts what goes and what stays of the given kinds.
func (g *collector) tallies(all []collected, kinds ...job.KeyKind) (gone, kept tally) {
	for i := range all {
		c := &all[i]
		for _, kind := range kinds {
			switch {
			case c.Kind != kind:
			case g.goes(c):
				gone.add(c.Size)
			default:
				kept.add(c.Size)
			}
		}
	}
	return gone, kept
}

func (g *collector) printTable(out io.Writer, all []collected, verb string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name string, kinds ...job.KeyKind) {
		gone, kept := g.tallies(all, kinds...)
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

func (g *collector) printJSON(all []collected) error {
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
		DryRun  bool    `json:"dryRun"`
		Entries []entry `json:"entries"`
		Removed tally   `json:"removed"`
		Kept    tally   `json:"kept"`
	}{DryRun: g.dryRun, Entries: []entry{}}
	for i := range all {
		c := &all[i]
		e := entry{
			Key: c.Key, Kind: c.Kind, Ref: c.Ref, Size: c.Size, Created: c.Created.UTC(), Used: c.Used.UTC(), Removed: g.goes(c), Why: c.Why,
		}
		if c.err != nil {
			e.Error = c.err.Error()
		}
		told.Entries = append(told.Entries, e)
	}
	told.Removed, told.Kept = g.tallies(all, job.KeyKinds...)
	return g.app.printJSON(told)
}
