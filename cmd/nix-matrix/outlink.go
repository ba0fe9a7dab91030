package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// An outPath is an output of a target that is done.
type outPath struct{ name, path string }

// outPaths returns the outputs of the targets that are done, by the names of the targets, with
// the output's name behind it where that is not out.
func outPaths(v *verdict.Verdict) []outPath {
	var all []outPath
	add := func(target, output, path string) {
		if output != "out" {
			target += "-" + output
		}
		all = append(all, outPath{target, path})
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

// link makes a directory with a link for each output that is in the store, which keeps it from
// the garbage collector. Links of outputs that are not among them any more are removed.
func link(ctx context.Context, n *nix.Nix, dir string, outputs []outPath) (count int, err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return 0, err
	}
	old, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, entry := range old { // none but links into the store are ours
		file := filepath.Join(dir, entry.Name())
		if to, err := os.Readlink(file); err == nil && strings.HasPrefix(to, "/nix/store/") {
			if err := os.Remove(file); err != nil {
				return 0, err
			}
		}
	}
	var paths []string
	for _, o := range outputs {
		paths = append(paths, o.path)
	}
	valid, err := n.Valid(ctx, paths...)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, o := range outputs {
		if !valid[o.path] {
			continue // it is at a binary cache alone
		}
		name := strings.ReplaceAll(o.name, "/", "-")
		if !filepath.IsLocal(name) || name == "." {
			errs = append(errs, fmt.Errorf("%q cannot be the name of a link", o.name))
			continue
		}
		file := filepath.Join(dir, name)
		if err := n.AddRoot(ctx, file, o.path); err != nil {
			errs = append(errs, err)
			continue
		}
		count++
	}
	return count, errors.Join(errs...)
}

// tellOutputs says where the outputs are: all of a few, or where the links are.
func (r *runner) tellOutputs(ctx context.Context, n *nix.Nix, v *verdict.Verdict) error {
	outputs := outPaths(v)
	if r.outLink != "" {
		count, err := link(ctx, n, r.outLink, outputs)
		r.app.log.Printf("%s in %s", text.Plural(count, "output is linked", "outputs are linked"), r.outLink)
		if err != nil {
			return fmt.Errorf("cannot link all outputs in %s: %w", r.outLink, err)
		}
		return nil
	}
	const most = 10
	for i, o := range outputs {
		if i == most {
			r.app.log.Printf("… and %d more; --out-link DIR links them all", len(outputs)-most)
			break
		}
		r.app.log.Printf("%s  %s", o.path, o.name)
	}
	return nil
}
