package nix

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/org/nix-matrix/internal/valid"
)

// Roots are a connection that keeps the garbage collector away from paths until it is closed.
type Roots interface {
	io.Closer
	// Valid returns which of the paths are valid, these or others.
	Valid(paths ...string) (map[string]bool, error)
}

// AddTempRoots keeps the garbage collector away from paths, valid or not yet, until the caller
// closes the roots or the context ends.
func (n *Nix) AddTempRoots(ctx context.Context, paths ...string) (Roots, error) {
	d, err := n.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.AddTempRoots(paths...); err != nil {
		return nil, err
	}
	return d, nil
}

// AddRoot creates or replaces the symlink file to a valid path and registers it as a root for
// the garbage collector.
func (n *Nix) AddRoot(ctx context.Context, file, path string) error {
	absolute, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if err := cmp.Or(fileName(absolute), valid.StorePath(path)); err != nil {
		return fmt.Errorf("cannot link: %w", err)
	}
	if _, err := n.output(ctx, "nix-store", args("--realise", "--add-root").checked(fileName, absolute).operands(valid.StorePath, path)); err != nil {
		return fmt.Errorf("cannot link %s to %s: %w", file, path, err)
	}
	return nil
}
