package storecache

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
)

// A Policy decides which new paths are saved.
type Policy string

const (
	// Built saves outputs that are in no public cache: those that were built here, or are
	// neither signed nor content-addressed.
	Built Policy = "built"
	// All saves everything but derivations.
	All Policy = "all"
	// Off saves nothing.
	Off Policy = "off"
)

// takes reports whether a new path is saved.
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

// takesNamed is takes for a path that the user has named: it is saved unless a binary cache has
// it, though it is a source.
func (p Policy) takesNamed(info *nix.PathInfo) bool {
	return p == All || p == Built && (info.Ultimate || len(info.Signatures) == 0)
}

// Named is [New] for paths that the user has named, and the paths of their closures. why says
// of each named path that is not saved and in no pack why that is so.
func Named(ctx context.Context, from Nix, saved *Index, policy Policy, named []string) (fresh []nix.PathInfo, why map[string]string, err error) {
	paths, err := from.Requisites(ctx, named...)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot find the new store paths: %w", err)
	}
	fresh, err = find(ctx, from, saved, policy, paths, named, nil)
	if err != nil {
		return nil, nil, err
	}
	why = map[string]string{}
	for _, path := range named {
		switch {
		case saved.saved(path) || slices.ContainsFunc(fresh, func(info nix.PathInfo) bool { return info.Path == path }):
		case strings.HasSuffix(path, ".drv"):
			why[path] = "it is a derivation, which each evaluation makes"
		default:
			why[path] = "it is signed, so a binary cache has it; --store-cache all saves it"
		}
	}
	return fresh, why, nil
}

// New returns the infos of valid paths that a policy saves and no pack has, and of unsigned
// paths in their closures, such as sources, because no other place has these. Paths that others
// save are left out. The infos are in reference order.
func New(ctx context.Context, from Nix, saved *Index, policy Policy, paths []string, others ...string) ([]nix.PathInfo, error) {
	return find(ctx, from, saved, policy, paths, nil, others)
}

func find(ctx context.Context, from Nix, saved *Index, policy Policy, paths, named, others []string) ([]nix.PathInfo, error) {
	fail := func(err error) ([]nix.PathInfo, error) {
		return nil, fmt.Errorf("cannot find the new store paths: %w", err)
	}
	valid, err := from.Valid(ctx, unsaved(saved, paths)...)
	if err != nil {
		return fail(err)
	}
	known := map[string]nix.PathInfo{}
	ask := func(paths []string) error {
		infos, err := from.FullInfo(ctx, paths...)
		for _, info := range infos {
			known[info.Path] = info
		}
		return err
	}
	if err := ask(slices.Sorted(maps.Keys(valid))); err != nil {
		return fail(err)
	}
	wanted := map[string]bool{}
	for path, info := range known {
		if policy.takes(&info) || slices.Contains(named, path) && policy.takesNamed(&info) {
			wanted[path] = true
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
	if err := ask(slices.DeleteFunc(slices.Clone(closure), func(path string) bool { return valid[path] })); err != nil {
		return fail(err)
	}
	var fresh []nix.PathInfo
	for _, path := range closure {
		if info := known[path]; (wanted[path] || len(info.Signatures) == 0) && !slices.Contains(others, path) {
			fresh = append(fresh, info)
		}
	}
	return fresh, nil
}

// unsaved returns the paths that no pack has, except derivations, which every discovery makes.
func unsaved(saved *Index, paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		return saved.saved(path) || strings.HasSuffix(path, ".drv")
	})
}
