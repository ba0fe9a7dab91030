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
		Short: "Save new store paths in the cache",
		Long: `Saves store paths in the cache, for "nix-matrix restore": the paths that became valid
since the restore, or the closures of the paths that are named. A path that is in the
cache already is not saved again.

By default only paths that no public cache has are saved: those built here, and those
without a signature, with the sources that they refer to. With --store-cache all, all
paths but derivations are saved. The packs that restore reads stay within
--store-cache-limit; "nix-matrix gc" makes the directory or the Actions cache smaller.

In GitHub Actions no fault of the cache is an error. With a text in
` + access.EncryptionVariable + ` everything is sealed.`,
		Example: `  nix-matrix restore && nix build .#all && nix-matrix save
  nix-matrix save --store-cache all --cache dir:/srv/cache ./result`,
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd.Context(), args) },
	}
	s.policyFlag(cmd, storecache.Built)
	s.limitFlag(cmd)
	s.rootFlag(cmd)
	addFlag(cmd, flagvalue.Bool(&s.json, false), "json", "print the counts of the save as JSON")
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
