package nix

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// OutputMap gives the store paths of a valid derivation's outputs by name. That of
// an output with a content address is empty until it is known, which is when it was
// built or fetched.
func (d *Daemon) OutputMap(drv string) (map[string]string, error) {
	var q request
	q.numbers(opQueryDerivationOutputMap)
	q.texts(drv)
	outputs := map[string]string{}
	err := d.ask(&q, func(a *answer) {
		for n := a.number(); n > 0 && a.err == nil; n-- {
			name := a.text()
			outputs[name] = a.text()
		}
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the outputs of %s: %w", drv, err)
	}
	return outputs, nil
}

// PathInfo gives all that the store knows of a valid path. The hash is base16.
func (d *Daemon) PathInfo(path string) (PathInfo, error) {
	var q request
	q.numbers(opQueryPathInfo)
	q.texts(path)
	info := PathInfo{Path: path}
	valid := false
	err := d.ask(&q, func(a *answer) {
		if valid = a.number() != 0; !valid {
			return
		}
		info.Deriver, info.NarHash, info.References = a.text(), a.text(), a.list()
		a.number()                       // registration time
		info.NarSize = int64(a.number()) //nolint:gosec // Nix has it from an int64
		info.Ultimate = a.number() != 0
		info.Signatures, info.CA = a.list(), a.text()
	})
	if err != nil {
		return PathInfo{}, fmt.Errorf("ask the store for %s: %w", path, err)
	}
	if !valid {
		return PathInfo{}, fmt.Errorf("%s is not valid in the store", path)
	}
	return info, nil
}

// FullInfo gives all that the store knows of valid paths, signatures and content
// addresses too, in the order given. The hashes are base16. Unlike ClosureInfo it
// takes derivations with all versions of Nix.
func (n *Nix) FullInfo(ctx context.Context, paths ...string) ([]PathInfo, error) {
	d, err := n.Connect(ctx)
	if err != nil {
		return nil, err
	}
	infos := make([]PathInfo, 0, len(paths))
	for _, path := range paths {
		info, err := d.PathInfo(path)
		if err != nil {
			return nil, d.explain(errors.Join(err, d.Close()))
		}
		infos = append(infos, info)
	}
	return infos, d.Close()
}

// Valid says which of the paths are valid.
func (d *Daemon) Valid(paths ...string) (map[string]bool, error) {
	var q request
	q.numbers(opQueryValidPaths)
	q.list(paths)
	q.numbers(0) // and not what could be fetched
	valid := make(map[string]bool, len(paths))
	err := d.ask(&q, func(a *answer) {
		for _, path := range a.list() {
			valid[path] = true
		}
	})
	if err != nil {
		return nil, fmt.Errorf("ask the store for valid paths: %w", err)
	}
	return valid, nil
}

// AllValid gives all valid paths, in no order.
func (n *Nix) AllValid(ctx context.Context) ([]string, error) {
	d, err := n.Connect(ctx)
	if err != nil {
		return nil, err
	}
	var q request
	q.numbers(opQueryAllValidPaths)
	var paths []string
	if err := d.ask(&q, func(a *answer) { paths = a.list() }); err != nil {
		return nil, d.explain(errors.Join(fmt.Errorf("ask the store for all valid paths: %w", err), d.Close()))
	}
	return paths, d.Close()
}

// Built gives the outputs of derivations that are in the store, and the
// derivations that have others.
func (n *Nix) Built(ctx context.Context, drvs ...string) (paths, unbuilt []string, err error) {
	d, err := n.Connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	paths, unbuilt, err = d.built(drvs)
	if err != nil {
		return nil, nil, d.explain(errors.Join(err, d.Close()))
	}
	return paths, unbuilt, d.Close()
}

func (d *Daemon) built(drvs []string) (paths, unbuilt []string, err error) {
	for _, drv := range drvs {
		outputs, err := d.OutputMap(drv)
		if err != nil {
			return nil, nil, err
		}
		known := slices.DeleteFunc(slices.Sorted(maps.Values(outputs)), func(path string) bool { return path == "" })
		valid, err := d.Valid(known...)
		if err != nil {
			return nil, nil, err
		}
		paths = slices.AppendSeq(paths, maps.Keys(valid))
		if len(valid) < len(outputs) {
			unbuilt = append(unbuilt, drv)
		}
	}
	return paths, unbuilt, nil
}
