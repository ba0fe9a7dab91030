package access

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/nix"
)

// hasSecrets reports whether there are secrets that give access, other than the token of each workflow.
// The encryption key gives none, and is never in a file.
func (h *Host) hasSecrets() bool {
	variables := []string{NetrcVariable, ConfVariable, EnvVariable, SSHKeyVariable, SigningKeyVariable, GitCryptVariable, "ATTIC_TOKEN", "NIKS3_AUTH_TOKEN", "CACHIX_AUTH_TOKEN", "CACHIX_SIGNING_KEY"}
	return h.OwnToken() != "" || slices.ContainsFunc(variables, h.Has)
}

// Confine returns an error if there are secrets and a flake has an input that is a file of this machine,
// because an input can be any file of the home directory, or git-crypt's key in an unlocked work tree.
// The caller unlocks nothing before, because Nix copies the inputs when it is asked for them.
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
	if linked(n.LockFile()) {
		return usage.Errorf("cannot read the lock file %s where there are secrets: a symbolic link is in its path, as which a flake reads any file. Name the file itself", n.LockFile())
	}
	for _, flake := range flakes {
		for _, o := range n.Overrides(flake) {
			if linked(o.Ref) {
				return usage.Errorf("cannot override the input %s with %s where there are secrets: a symbolic link is in its path, as which a flake reads any file. Name the directory itself", o.Input, nix.Redact(o.Ref))
			}
		}
		local, err := n.LocalInputs(ctx, flake, cache)
		switch {
		case err != nil && unlocks:
			return fmt.Errorf("cannot check the inputs of %s before it is unlocked with git_crypt_key: %w", flake, err)
		case err != nil:
			continue // the evaluator returns the same error
		case len(local) > 0:
			return usage.Errorf("cannot evaluate %s where there are secrets: its input %s is a file of this machine, as which a flake reads any file. Give the input another address in flake.nix and run nix flake lock", flake, local[0])
		}
	}
	return nil
}

// linked reports whether a reference is a file or directory below the working directory that a symbolic link
// leads to, perhaps out of it.
func linked(ref string) bool {
	name, _, _ := strings.Cut(ref, "?")
	for _, scheme := range []string{"path:", "git+file://", "git+file:"} {
		name = strings.TrimPrefix(name, scheme)
	}
	if filepath.IsAbs(name) {
		here, err := os.Getwd()
		if err == nil {
			name, err = filepath.Rel(here, name)
		}
		if err != nil {
			return false
		}
	}
	if !filepath.IsLocal(name) {
		return false // it leads out of the working directory by itself
	}
	target, err := filepath.EvalSymlinks(name)
	return err == nil && target != filepath.Clean(name)
}
