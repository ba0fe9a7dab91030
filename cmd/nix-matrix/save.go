package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/storecache"
)

func newSave(a *app) *cobra.Command {
	u := &userBuild{app: a}
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
		RunE: func(cmd *cobra.Command, args []string) error { return u.save(cmd.Context(), args) },
	}
	u.policyFlag(cmd, storecache.Built)
	u.limitFlag(cmd)
	u.flags(cmd)
	return cmd
}

func (u *userBuild) save(ctx context.Context, args []string) error {
	user, paths, err := u.open(ctx, args)
	if err != nil {
		return err
	}
	saved, err := user.Save(ctx, u.policy, u.limit, paths)
	if err != nil {
		return err
	}
	return u.tell("saved", saved.Paths, saved)
}
