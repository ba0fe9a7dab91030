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

// Cachix sends the closures of the paths to a Cachix cache, by Cachix's own
// program: see FindProgram. The credentials are in the environment, as the program
// wants them.
func (n *Nix) Cachix(ctx context.Context, name string, paths []string) error {
	if err := cmp.Or(valid.Name(name), valid.All(valid.StorePath, paths...)); err != nil { // the paths are lines of its stdin
		return fmt.Errorf("push to cachix: %w", err)
	}
	program, release, err := n.FindProgram(ctx, "cachix")
	if err != nil {
		return fmt.Errorf("push to cachix:%s: %w", name, err)
	}
	defer release()
	cmd := n.program(ctx, program, args("push").checked(valid.Name, name))
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
