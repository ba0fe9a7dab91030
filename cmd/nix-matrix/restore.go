package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/reuse"
	"github.com/org/nix-matrix/pkg/storecache"
)

func newRestore(a *app) *cobra.Command {
	u := &userBuild{app: a}
	var export bool
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

With --on-demand, a step of GitHub Actions restores only the paths that are named, and
starts "nix-matrix serve" for the later steps, whose Nix fetches what it needs.

In GitHub Actions no fault of the cache is an error: it costs a warning, and missing
paths are built.

With --export, the paths are written to stdout and added to no store, as nix-store --export
writes them, without their signatures. This needs no Nix, and any fault is an error.

The key of a sealed cache comes from ` + access.EncryptionVariable + `.`,
		Example: `  nix-matrix restore
  nix-matrix restore --cache dir:/srv/cache /nix/store/…-nixos-system-pi3
  nix-matrix restore --store-root /mnt
  nix-matrix restore --export /nix/store/…-nixos-system-pi3 | ssh pi3 sudo nix-store --import`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if export {
				return u.export(cmd.Context(), args)
			}
			return u.restore(cmd.Context(), args)
		},
	}
	addFlag(cmd, flagvalue.Bool(&export, false), "export", "write the paths to stdout for nix-store --import")
	u.restoreFlags(a, cmd)
	bind(cmd, flagvalue.Bool(&u.later, false), "on-demand")
	u.flags(cmd)
	return cmd
}

// export writes the export stream to stdout, and everything for a person to stderr.
func (u *userBuild) export(ctx context.Context, args []string) error {
	a := u.app
	switch {
	case a.streams.width() > 0:
		return usage.Errorf("cannot write an export stream to a terminal. Redirect stdout to a file or to nix-store --import")
	case u.json || u.root != "":
		return usage.Errorf("cannot combine --export with --json or --store-root: it writes to stdout and to no store")
	}
	a.collectOften()
	paths, err := a.storePaths(args)
	if err != nil {
		return err
	}
	docs, err := a.documents()
	if err != nil {
		return err
	}
	if docs.Cache, err = a.openCache(docs.Trust); err != nil {
		return err
	}
	user := &reuse.UserBuild{Cache: &reuse.Cache{Docs: docs, Log: a.log}, Nix: &nix.Nix{System: nix.HostSystem()}}
	restored, err := user.Export(ctx, a.streams.out, paths)
	if err != nil {
		return err
	}
	return a.action.SetOutput("restored", strconv.Itoa(restored.Paths))
}

func (u *userBuild) restore(ctx context.Context, args []string) error {
	user, paths, err := u.open(ctx, args)
	if err != nil {
		return err
	}
	if u.later {
		served, err := u.onDemand(ctx, user)
		if err != nil {
			return err
		}
		if served && len(paths) == 0 {
			return u.told(&storecache.Restored{})
		}
	}
	restored, err := user.Restore(ctx, u.engine, paths)
	if err != nil {
		return err
	}
	return u.told(&restored)
}

// told prints and sets the counts of a restore.
func (u *userBuild) told(restored *storecache.Restored) error {
	return u.tell("restored", restored.Paths, struct {
		Paths   int      `json:"paths"`
		Size    int64    `json:"size"`    // bytes of NARs
		Read    int64    `json:"read"`    // bytes of packs
		Fetched int      `json:"fetched"` // further paths, from substituters
		Packs   []string `json:"packs"`
	}{restored.Paths, restored.Size, restored.Bytes, restored.Fetched.Paths, append([]string{}, restored.Packs...)})
}
