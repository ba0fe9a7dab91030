package nix

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/org/nix-matrix/internal/valid"
)

// OutputMap returns the store paths of a valid derivation's outputs by name. That of
// an output with a content address is empty until it was built or fetched.
func (d *Daemon) OutputMap(drv string) (map[string]string, error) {
	var q request
	q.numbers(opQueryDerivationOutputMap)
	q.checked(valid.StorePath, drv)
	outputs := map[string]string{}
	err := d.ask(&q, func(a *answer) {
		for n := a.number(); n > 0 && a.err == nil; n-- {
			name := a.text()
			outputs[name] = a.text()
		}
	})
	if err != nil {
		return nil, fmt.Errorf("cannot query the outputs of %s: %w", valid.Quote(drv), err)
	}
	return outputs, nil
}

// PathInfo returns the metadata of a valid path. The hash is base16.
func (d *Daemon) PathInfo(path string) (PathInfo, error) {
	var q request
	q.numbers(opQueryPathInfo)
	q.checked(valid.StorePath, path)
	info := PathInfo{Path: path}
	known := false
	err := d.ask(&q, func(a *answer) {
		if known = a.number() != 0; !known {
			return
		}
		info.Deriver, info.NarHash, info.References = a.text(), a.text(), a.list()
		a.number()                       // registration time
		info.NarSize = int64(a.number()) //nolint:gosec // an int64 in Nix
		info.Ultimate = a.number() != 0
		info.Signatures, info.CA = a.list(), a.text()
	})
	if err != nil {
		return PathInfo{}, fmt.Errorf("cannot query %s: %w", valid.Quote(path), err)
	}
	if !known {
		return PathInfo{}, &PathError{path, errors.New("it is not valid in the store")}
	}
	return info, nil
}

// FullInfo returns the metadata of valid paths, in the order given. The hashes are base16.
// Unlike Closure it accepts derivations with all versions of Nix.
func (n *Nix) FullInfo(ctx context.Context, paths ...string) ([]PathInfo, error) {
	if len(paths) == 0 {
		return nil, nil
	}
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

// Valid returns which of the paths are valid.
func (d *Daemon) Valid(paths ...string) (map[string]bool, error) {
	var q request
	q.numbers(opQueryValidPaths, uint64(len(paths)))
	q.checked(valid.StorePath, paths...)
	q.numbers(0) // do not substitute
	validPaths := make(map[string]bool, len(paths))
	err := d.ask(&q, func(a *answer) {
		for _, path := range a.list() {
			validPaths[path] = true
		}
	})
	if err != nil {
		return nil, fmt.Errorf("cannot query valid paths: %w", err)
	}
	return validPaths, nil
}

// AllValid returns all valid paths, in no order.
func (n *Nix) AllValid(ctx context.Context) ([]string, error) {
	d, err := n.Connect(ctx)
	if err != nil {
		return nil, err
	}
	var q request
	q.numbers(opQueryAllValidPaths)
	var paths []string
	if err := d.ask(&q, func(a *answer) { paths = a.list() }); err != nil {
		return nil, d.explain(errors.Join(fmt.Errorf("cannot query all valid paths: %w", err), d.Close()))
	}
	return paths, d.Close()
}

// ValidOutputs are the outputs of a derivation that are valid.
type ValidOutputs struct {
	Paths []string // sorted
	All   bool     // the derivation has no other outputs
}

// ValidOutputs returns the valid outputs of derivations.
func (n *Nix) ValidOutputs(ctx context.Context, drvs ...string) (map[string]ValidOutputs, error) {
	all := make(map[string]ValidOutputs, len(drvs))
	if len(drvs) == 0 {
		return all, nil
	}
	d, err := n.Connect(ctx)
	if err != nil {
		return nil, err
	}
	outputs, err := d.outputMaps(drvs)
	var valid map[string]bool
	if err == nil {
		var paths []string
		for _, byName := range outputs {
			paths = slices.AppendSeq(paths, maps.Values(byName))
		}
		valid, err = d.Valid(slices.DeleteFunc(paths, func(path string) bool { return path == "" })...)
	}
	if err != nil {
		return nil, d.explain(errors.Join(err, d.Close()))
	}
	for drv, byName := range outputs {
		paths := slices.DeleteFunc(slices.Sorted(maps.Values(byName)), func(path string) bool { return !valid[path] })
		all[drv] = ValidOutputs{paths, len(paths) == len(byName)}
	}
	return all, d.Close()
}

func (d *Daemon) outputMaps(drvs []string) (outputs map[string]map[string]string, err error) {
	outputs = make(map[string]map[string]string, len(drvs))
	for _, drv := range drvs {
		if outputs[drv] == nil {
			if outputs[drv], err = d.OutputMap(drv); err != nil {
				return nil, err
			}
		}
	}
	return outputs, nil
}

// Built returns the valid outputs of derivations, and the derivations with outputs that are not
// valid. Where the outputs of a derivation were known only after its build, DRV!* follows them,
// for Copy.
func (n *Nix) Built(ctx context.Context, drvs ...string) (paths, unbuilt []string, err error) {
	outputs, err := n.ValidOutputs(ctx, drvs...)
	if err != nil {
		return nil, nil, err
	}
	for _, drv := range drvs {
		paths = append(paths, n.copied(drv, outputs[drv])...)
		if !outputs[drv].All {
			unbuilt = append(unbuilt, drv)
		}
	}
	return paths, unbuilt, nil
}

// BuiltHere returns the paths of Built for the derivations of which this store has built an
// output itself.
func (n *Nix) BuiltHere(ctx context.Context, drvs ...string) (paths []string, err error) {
	outputs, err := n.ValidOutputs(ctx, drvs...)
	if err != nil {
		return nil, err
	}
	var valid []string
	for _, of := range outputs {
		valid = append(valid, of.Paths...)
	}
	if len(valid) == 0 {
		return nil, nil
	}
	infos, err := n.FullInfo(ctx, valid...)
	if err != nil {
		return nil, err
	}
	here := map[string]bool{}
	for i := range infos {
		here[infos[i].Path] = infos[i].Ultimate
	}
	for _, drv := range drvs {
		if slices.ContainsFunc(outputs[drv].Paths, func(path string) bool { return here[path] }) {
			paths = append(paths, n.copied(drv, outputs[drv])...)
		}
	}
	return paths, nil
}

// copied returns the outputs of a derivation in the form of Copy.
func (n *Nix) copied(drv string, outputs ValidOutputs) []string {
	if outputs.All && n.floats(drv) {
		return append(slices.Clone(outputs.Paths), drv+allOutputs)
	}
	return outputs.Paths
}

// allOutputs is the suffix of a derivation's path that stands for all its outputs.
const allOutputs = "!*"

// floats reports whether outputs of a derivation are known only after its build. It is false
// if this machine can't read the derivation.
func (n *Nix) floats(drv string) bool {
	d, err := n.Derivation(drv)
	return err == nil && isFloating(d)
}
