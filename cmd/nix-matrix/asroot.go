package main

import (
	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/engine"
)

// serveDirect is the command that this program runs as root to restore into a store
// that its user may not write to.
const serveDirect = "serve-direct"

func newServeDirect(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    serveDirect + " DIRECTORY ROOT",
		Short:  "Restore store paths from stdin, as root, for another nix-matrix",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return engine.ServeDirect(cmd.Context(), a.streams.in, a.streams.out, args[0], args[1])
		},
	}
}
