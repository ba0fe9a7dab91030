package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/nearest"
	"github.com/org/nix-matrix/internal/usage"
)

// shells are those that completion has a script for.
var shells = []string{"bash", "zsh", "fish"}

func newCompletion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the script that completes command lines in a shell",
		Long: `Prints the script by which a shell completes commands, flags and their values. The
archives and packages of a release contain all three.`,
		Example: `  source <(nix-matrix completion bash)   # in this shell; it needs the package bash-completion
  nix-matrix completion zsh >"${fpath[1]}/_nix-matrix"
  nix-matrix completion fish >~/.config/fish/completions/nix-matrix.fish`,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) != 1:
				return usage.Errorf("completion takes one shell: bash, zsh or fish")
			case !slices.Contains(shells, args[0]):
				return usage.Errorf("there is no completion for %q%s; there are bash, zsh and fish", args[0], nearest.Hint(args[0], shells))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.streams.out, true)
			case "zsh":
				return root.GenZshCompletion(a.streams.out)
			default:
				return root.GenFishCompletion(a.streams.out, true)
			}
		},
	}
}

// completeValue returns the completion of a flag's value: its choices, if it has a few, and files where it is one.
func completeValue(v flagvalue.Value) cobra.CompletionFunc {
	switch {
	case v.Choices() != nil:
		return cobra.FixedCompletions(v.Choices(), cobra.ShellCompDirectiveNoFileComp)
	case v.Type() == "DIR":
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	case v.Type() == "FILE" || strings.HasSuffix(v.Type(), "=PATH"):
		return nil // as a shell does by itself
	}
	return cobra.NoFileCompletions
}

// completeArguments has shells offer no files to commands that take no arguments.
func completeArguments(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		if cmd.ValidArgs == nil && cmd.ValidateArgs([]string{"file"}) != nil {
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
}
