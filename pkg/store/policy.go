package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
)

// A Policy says what is saved of what is new.
type Policy string

const (
	// Built is what no public cache has: outputs that nobody else has signed.
	Built Policy = "built"
	// All is everything but derivations.
	All Policy = "all"
	// Off is nothing.
	Off Policy = "off"
)

// takes says whether a path is saved that is new.
func (p Policy) takes(info *nix.PathInfo) bool {
	switch p {
	case All:
		return true
	case Built:
		source := info.CA != "" && info.Deriver == ""
		return !source && (info.Ultimate || info.CA == "" && len(info.Signatures) == 0)
	case Off:
	}
	return false
}

// New gives those of the paths, as far as they are still valid, that a policy wants saved and that
// no pack has; and of what they need, such as the sources that they refer to, what
// nobody has signed: else it would be nowhere. Those that are somebody else's to save are
// left out. References stand before what refers to them.
func New(ctx context.Context, from Nix, saved *Index, policy Policy, paths []string, others ...string) ([]string, error) {
	fail := func(err error) ([]string, error) { return nil, fmt.Errorf("look for what is new: %w", err) }
	valid, err := from.Valid(ctx, unsaved(saved, paths)...)
	if err != nil {
		return fail(err)
	}
	infos, err := from.FullInfo(ctx, slices.Sorted(maps.Keys(valid))...)
	if err != nil {
		return fail(err)
	}
	wanted := map[string]bool{}
	for i := range infos {
		if policy.takes(&infos[i]) {
			wanted[infos[i].Path] = true
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	closure, err := from.Requisites(ctx, slices.Collect(maps.Keys(wanted))...)
	if err != nil {
		return fail(err)
	}
	closure = unsaved(saved, closure)
	if infos, err = from.FullInfo(ctx, closure...); err != nil {
		return fail(err)
	}
	var fresh []string
	for i, path := range closure {
		if (wanted[path] || len(infos[i].Signatures) == 0) && !slices.Contains(others, path) {
			fresh = append(fresh, path)
		}
	}
	return fresh, nil
}

// unsaved are the paths that no pack has, but for derivations, which whoever evaluates
// has.
func unsaved(saved *Index, paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		return saved.saved(path) || strings.HasSuffix(path, ".drv")
	})
}
