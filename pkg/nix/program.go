package nix

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// FindProgram gives a program that is no part of Nix: the one on PATH, else that of
// the package of the same name in the nixpkgs that the registry names. It stays
// where it is until release is called.
func (n *Nix) FindProgram(ctx context.Context, name string) (program string, release func(), err error) {
	if program, err = exec.LookPath(name); err == nil {
		return program, func() {}, nil
	}
	if program, err = n.fetchProgram(ctx, name); err != nil {
		return "", nil, fmt.Errorf("%s is not on PATH, and nixpkgs#%s can't be had: %w", name, name, err)
	}
	hold, err := n.Hold(ctx, filepath.Dir(filepath.Dir(program)))
	if err != nil {
		return program, func() {}, nil //nolint:nilerr // the garbage collector is not likely to come
	}
	return program, func() { _ = hold.Close() }, nil
}

func (n *Nix) fetchProgram(ctx context.Context, name string) (string, error) {
	out, err := n.output(ctx, "nix", "build", "--no-link", "--print-out-paths", "nixpkgs#"+name)
	if err != nil {
		return "", err
	}
	for _, path := range lines(out) {
		program := filepath.Join(path, "bin", name)
		if _, err := os.Stat(program); err == nil {
			return program, nil
		}
	}
	return "", fmt.Errorf("there is no bin/%s in %s", name, strings.Join(lines(out), ", "))
}
