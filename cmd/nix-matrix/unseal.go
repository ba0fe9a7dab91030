package main

import (
	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/usage"
)

func newUnseal(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "unseal FILE",
		Short: "Print a sealed plan, result, log or report",
		Long: `Prints a sealed file of an artifact: a plan, a result, the log of a failed build, a
JUnit report, or the store paths of targets.
The secret encryption_key is taken from the environment variable
NIX_MATRIX_ENCRYPTION_KEY, or, where the workflow has only that one, git_crypt_key from
NIX_MATRIX_GIT_CRYPT_KEY.`,
		Example: `  NIX_MATRIX_ENCRYPTION_KEY=$(pass ci/nix-matrix) nix-matrix unseal plan.json | jq .`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage.Errorf("unseal takes one file")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			docs, err := a.documents()
			if err != nil {
				return err
			}
			return docs.Unseal(a.streams.out, args[0])
		},
	}
}
