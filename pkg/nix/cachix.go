package nix

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
)

// Cachix sends the closures of the paths to a Cachix cache, by Cachix's own
// program: the one on PATH, else one that Nix fetches. The credentials are in
// the environment, as the program wants them.
func (n *Nix) Cachix(ctx context.Context, name string, paths []string) error {
	program, err := exec.LookPath("cachix")
	if err != nil {
		out, err := n.output(ctx, "nix", "build", "--no-link", "--print-out-paths", "nixpkgs#cachix^bin")
		if err != nil {
			return fmt.Errorf("push to cachix:%s: cachix is not on PATH, and nixpkgs#cachix can't be had: %w", name, err)
		}
		program = filepath.Join(strings.TrimSpace(string(out)), "bin", "cachix")
	}
	cmd := n.command(ctx, program, "push", name)
	cmd.Stderr = io.Discard // what matters of it is in the error
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\n") + "\n")
	if err := n.run(cmd); err != nil {
		return fmt.Errorf("push to cachix:%s: %w", name, err)
	}
	return nil
}
