package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/verdict"
)

// An OutPath is an output of a target that is done.
type OutPath struct{ Name, Path string }

// OutPaths returns the outputs of the targets that are done, by the names of the targets, with
// the output's name behind it where that is not out.
func OutPaths(v *verdict.Verdict) []OutPath {
	var all []OutPath
	add := func(target, output, path string) {
		if output != "out" {
			target += "-" + output
		}
		all = append(all, OutPath{target, path})
	}
	for i := range v.Targets {
		t := &v.Targets[i]
		switch {
		case !t.Done():
		case t.Result != nil:
			for _, o := range t.Result.Outputs {
				add(t.Target.Name, o.Name, o.Path)
			}
		default:
			for _, name := range t.Target.Outputs {
				if path := t.Target.OutPaths[name]; path != "" {
					add(t.Target.Name, name, path)
				}
			}
		}
	}
	return all
}

// Link makes a directory with a link for each output that is in the store, which keeps it from
// the garbage collector. Links of outputs that are not among them any more are removed.
func Link(ctx context.Context, n *nix.Nix, dir string, outputs []OutPath) (count int, err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return 0, err
	}
	old, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, entry := range old { // only links into the store are ours
		file := filepath.Join(dir, entry.Name())
		if to, err := os.Readlink(file); err == nil && strings.HasPrefix(to, "/nix/store/") {
			if err := os.Remove(file); err != nil {
				return 0, err
			}
		}
	}
	var paths []string
	for _, o := range outputs {
		paths = append(paths, o.Path)
	}
	valid, err := n.Valid(ctx, paths...)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, o := range outputs {
		if !valid[o.Path] {
			continue // it is at a binary cache alone
		}
		name := strings.ReplaceAll(strings.TrimPrefix(o.Name, "./"), "/", "-") // no hidden file
		if !filepath.IsLocal(name) || name == "." {
			errs = append(errs, fmt.Errorf("%q cannot be the name of a link", o.Name))
			continue
		}
		file := filepath.Join(dir, name)
		if err := n.AddRoot(ctx, file, o.Path); err != nil {
			errs = append(errs, err)
			continue
		}
		count++
	}
	return count, errors.Join(errs...)
}
