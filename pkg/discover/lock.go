package discover

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/access"
	"github.com/org/nix-matrix/pkg/nix"
)

// maxLockFile is the largest lock file, in bytes: a few thousand inputs.
const maxLockFile = 16 << 20

// lock has the flakes evaluated with the inputs that the options name.
func (o *Options) lock(env *access.Nix) error {
	flakes := o.Evaluate.Flakes()
	lock := nix.Lock{Overrides: o.Overrides}
	switch {
	case len(o.Overrides) == 0 && o.LockFile == "":
		return nil
	case len(flakes) == 0:
		return usage.Errorf("cannot evaluate the file %s with other inputs: only flakes have inputs. Leave out --override-input and --reference-lock-file", o.Evaluate.File)
	case o.LockFile != "" && len(flakes) > 1:
		return usage.Errorf("cannot evaluate %s with one lock file: it is for one flake. Name one, or leave out --reference-lock-file", strings.Join(flakes, " and "))
	case o.LockFile != "" && !env.HasReferenceLockFile():
		return usage.Errorf("cannot read another lock file with Nix %s. Update to Nix 2.18 or newer, or leave out --reference-lock-file", env.Version)
	}
	for i, override := range o.Overrides {
		if slices.ContainsFunc(o.Overrides[:i], func(other nix.Override) bool { return other.Input == override.Input }) {
			return usage.Errorf("cannot override the input %s twice. Leave out one of them", override.Input)
		}
	}
	if o.LockFile != "" {
		var err error
		if lock.File, err = lockFile(o.LockFile); err != nil {
			return usage.Errorf("cannot read the lock file of --reference-lock-file: %w. Name a file such as nix flake lock --output-lock-file FILE writes", err)
		}
	}
	env.Lock(lock)
	return nil
}

// lockFile returns the absolute path of a lock file. Nix would take one that is missing for an empty one.
func lockFile(name string) (string, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", errors.New(name + " is no file")
	case info.Size() > maxLockFile:
		return "", errors.New(name + " is larger than 16 MiB")
	}
	return filepath.Abs(name)
}

// resolveLock finds out which flakes have the inputs that are replaced, and by what exactly.
func (d *Discovery) resolveLock(ctx context.Context) error {
	err := d.Env.ResolveLock(ctx, d.Evaluate.Flakes())
	var missing *nix.InputError
	if errors.As(err, &missing) {
		return usage.Wrap(err)
	}
	return err
}

// lockFlags returns the flags with which nix build takes the same inputs of a flake.
func (d *Discovery) lockFlags(flake string) []string {
	var flags []string
	for _, o := range d.Env.Overrides(flake) {
		for _, given := range d.Overrides {
			if given.Input == o.Input && directory(given.Ref) != "" && !namesCommit(given.Ref) {
				o.Ref = given.Ref // a directory is as it is now, and its path may be relative
			}
		}
		flags = append(flags, "--override-input", o.Input, o.Ref)
	}
	if d.LockFile != "" {
		flags = append(flags, "--reference-lock-file", d.LockFile)
	}
	return flags
}

// moved reports whether a source may be another one by now than that which was evaluated, because a
// reference that replaces an input names a branch, or a directory that has changed.
func (s *source) moved(ctx context.Context) bool {
	return len(s.d.Overrides) > 0 && s.d.source(ctx).fingerprint != s.fingerprint
}
