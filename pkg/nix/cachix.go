package nix

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/org/nix-matrix/internal/valid"
)

// Cachix pushes the closures of the paths to a Cachix cache with the program cachix, see
// FindProgram. The program reads the credentials from the environment.
func (n *Nix) Cachix(ctx context.Context, name string, paths []string) error {
	if err := cmp.Or(valid.Name(name), valid.All(valid.StorePath, paths...)); err != nil { // the paths are lines of its stdin
		return fmt.Errorf("cannot push to cachix: %w", err)
	}
	program, release, err := n.FindProgram(ctx, "cachix")
	if err != nil {
		return fmt.Errorf("cannot push to cachix:%s: %w", name, err)
	}
	defer release()
	cmd := n.program(ctx, program, args("push").checked(valid.Name, name))
	cmd.WaitDelay = copyGrace
	cmd.Env = append(cmd.Env, n.secrets...)
	for _, variable := range []string{"CACHIX_AUTH_TOKEN", "CACHIX_SIGNING_KEY"} {
		// The program takes an empty one for an invalid key.
		if value := os.Getenv(variable); value != "" {
			cmd.Env = append(cmd.Env, variable+"="+value)
		}
	}
	cmd.Stderr = io.Discard // its end is in the error
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\n") + "\n")
	if err := n.run(cmd); err != nil {
		return fmt.Errorf("cannot push to cachix:%s: %w", name, err)
	}
	return nil
}
