package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/access"
)

func newRestore(a *app) *cobra.Command {
	u := &userBuild{app: a}
	cmd := &cobra.Command{
		Use:   "restore [STORE-PATH…]",
		Short: "Restore store paths from the cache",
		Long: `Restores the store paths that "nix-matrix save" has saved in the cache: the closures
of the paths that are named, or all paths of the newest index. Paths that are valid
already are not read. Nix fetches the references that only a substituter has.

A path is restored only if its contents have the hash in the index. A job reads the
packs of its own branch or pull request, of the branch that it merges into, and of the
default branch. A Nix daemon must trust this user (trusted-users in
nix.conf), or takes only what has a content address or a signature by a trusted key. So
does a job for a pull request or a merge queue, on a runner that GitHub does not host,
unless the cache is sealed or a directory, because anybody can write to the cache.

In GitHub Actions no fault of the cache is an error: it costs a warning, and missing
paths are built. The key of a sealed cache comes from ` + access.EncryptionVariable + `.`,
		Example: `  nix-matrix restore
  nix-matrix restore --cache dir:/srv/cache /nix/store/…-nixos-system-pi3
  nix-matrix restore --store /mnt --engine protocol`,
		RunE: func(cmd *cobra.Command, args []string) error { return u.restore(cmd.Context(), args) },
	}
	u.restoreFlags(a, cmd)
	u.flags(cmd)
	return cmd
}

func (u *userBuild) restore(ctx context.Context, args []string) error {
	user, paths, err := u.open(ctx, args)
	if err != nil {
		return err
	}
	restored, err := user.Restore(ctx, u.engine, paths)
	if err != nil {
		return err
	}
	return u.tell("restored", restored.Paths, struct {
		Paths   int      `json:"paths"`
		Size    int64    `json:"size"`    // bytes of NARs
		Read    int64    `json:"read"`    // bytes of packs
		Fetched int      `json:"fetched"` // further paths, from substituters
		Packs   []string `json:"packs"`
	}{restored.Paths, restored.Size, restored.Bytes, restored.Fetched.Paths, append([]string{}, restored.Packs...)})
}
