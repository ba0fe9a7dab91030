package access

import (
	"context"
	"fmt"
	"slices"

	"github.com/org/nix-matrix/internal/usage"
)

// hasSecrets reports whether this program was given any that gives access to something, beside
// the token that each workflow has. The encryption key does not, and is never in a file.
func (h *Host) hasSecrets() bool {
	variables := []string{NetrcVariable, ConfVariable, EnvVariable, SSHKeyVariable, SigningKeyVariable, GitCryptVariable, "ATTIC_TOKEN", "CACHIX_AUTH_TOKEN", "CACHIX_SIGNING_KEY"}
	return h.OwnToken() != "" || slices.ContainsFunc(variables, h.has)
}

// Confine refuses flakes with inputs that are files of this machine while there are
// secrets: what is in the home directory of its user is such a file, and what is unlocked
// brings git-crypt's key into the work tree. That must not have been done yet, since Nix
// copies what an input names before one can ask.
func (n *Nix) Confine(ctx context.Context, flakes []string, unlocks bool) (err error) {
	if !n.host.hasSecrets() {
		return nil
	}
	var cache string
	if unlocks { // Nix 2.8 would not look again at a commit that it has seen before
		if cache, err = n.host.Secrets.Dir(); err != nil {
			return err
		}
	}
	for _, flake := range flakes {
		local, err := n.LocalInputs(ctx, flake, cache)
		switch {
		case err != nil && unlocks:
			return fmt.Errorf("cannot check the inputs of %s before it is unlocked with git_crypt_key: %w", flake, err)
		case err != nil:
			continue // of which the evaluator says the same
		case len(local) > 0:
			return usage.Errorf("cannot evaluate %s where there are secrets: its input %s is a file of this machine, as which a flake reads any file. Give the input another address in flake.nix and run nix flake lock", flake, local[0])
		}
	}
	return nil
}
