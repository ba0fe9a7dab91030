package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/reuse"
	"github.com/org/nix-matrix/pkg/storecache"
)

func newSave(a *app) *cobra.Command {
	s := &saver{app: a}
	cmd := &cobra.Command{
		Use:   "save [STORE-PATH…]",
		Short: "Put store paths into the cache that are not in it yet",
		Long: `Puts store paths into the cache, for "nix-matrix restore" to bring them back: what has
become valid since restore was called, or the closures of the paths that are named. What
the cache has already is not saved again.

By default that is what no public cache has: what was built here, and what nobody has
signed, with the sources that it refers to. With --store-cache all it is everything but
derivations. What restore brings is kept within --store-cache-limit; the directory or the
Actions cache itself is made smaller by "nix-matrix gc".

In GitHub Actions nothing that is wrong with the cache is an error. With a text in
` + access.EncryptionVariable + ` all of it is sealed.`,
		Example: `  nix-matrix restore && nix build .#all && nix-matrix save
  nix-matrix save --store-cache all --cache dir:/srv/cache ./result`,
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd.Context(), args) },
	}
	s.policyFlag(cmd, storecache.Built)
	s.limitFlag(cmd)
	s.rootFlag(cmd)
	addFlag(cmd, flagvalue.Bool(&s.json, false), "json", "print what was saved as JSON")
	a.idFlag(cmd)
	a.cacheFlag(cmd)
	return cmd
}

type saver struct {
	app *app
	packing
	json bool
}

func (s *saver) run(ctx context.Context, args []string) error {
	a := s.app
	paths, err := a.storePaths(args)
	if err != nil {
		return err
	}
	user, n, err := s.open(ctx, a)
	if err != nil {
		return err
	}
	done, err := user.Save(ctx, n, s.policy, s.limit, paths)
	if err != nil {
		return err
	}
	return s.tell(done)
}

func (s *saver) tell(done reuse.Saved) error {
	a := s.app
	if err := a.action.SetOutput("saved", strconv.Itoa(done.Paths)); err != nil {
		return fmt.Errorf("set the output saved: %w", err)
	}
	a.log.Close()
	if s.json {
		return a.printJSON(done)
	}
	_, err := fmt.Fprintf(a.streams.out, "%d saved\n", done.Paths)
	return err
}
