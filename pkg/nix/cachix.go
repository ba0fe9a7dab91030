package nix

import (
	"context"
	"fmt"
	"io"
	"os"
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
		if program, err = n.fetchCachix(ctx); err != nil {
			return fmt.Errorf("push to cachix:%s: cachix is not on PATH, and nixpkgs#cachix can't be had: %w", name, err)
		}
		if hold, err := n.Hold(ctx, filepath.Dir(filepath.Dir(program))); err == nil {
			defer hold.Close()
		}
	}
	cmd := n.program(ctx, program, "push", name)
	cmd.WaitDelay = copyGrace
	cmd.Env = append(cmd.Env, n.secrets...)
	for _, variable := range []string{"CACHIX_AUTH_TOKEN", "CACHIX_SIGNING_KEY"} {
		// An empty one would be taken for a key that is wrong.
		if value := os.Getenv(variable); value != "" {
			cmd.Env = append(cmd.Env, variable+"="+value)
		}
	}
	cmd.Stderr = io.Discard // what matters of it is in the error
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\n") + "\n")
	if err := n.run(cmd); err != nil {
		return fmt.Errorf("push to cachix:%s: %w", name, err)
	}
	return nil
}

// fetchCachix gives the program of the nixpkgs that the registry names.
func (n *Nix) fetchCachix(ctx context.Context) (string, error) {
	out, err := n.output(ctx, "nix", "build", "--no-link", "--print-out-paths", "nixpkgs#cachix")
	if err != nil {
		return "", err
	}
	for _, path := range lines(out) {
		program := filepath.Join(path, "bin", "cachix")
		if _, err := os.Stat(program); err == nil {
			return program, nil
		}
	}
	return "", fmt.Errorf("there is no bin/cachix in %s", strings.Join(lines(out), ", "))
}
