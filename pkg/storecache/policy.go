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
	// Built saves what no public cache has: outputs that nobody else has signed.
	Built Policy = "built"
	// All saves everything but derivations.
	All Policy = "all"
	// Off saves nothing.
	Off Policy = "off"
)

// ParsePolicy returns the policy of a name.
func ParsePolicy(text string) (Policy, error) {
	switch p := Policy(text); p {
	case Built, All, Off:
		return p, nil
	default:
		return "", fmt.Errorf("it is built, all or off, not %q", text)
	}
}

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

// New returns the infos of the paths that a policy wants saved and that no pack has, as far
// as they are still valid; and of paths that they need and nobody has signed, such as the
// sources that they refer to, because no other place has these. Paths that others save are
// left out. References stand before the paths that refer to them.
func New(ctx context.Context, from Nix, saved *Index, policy Policy, paths []string, others ...string) ([]nix.PathInfo, error) {
	fail := func(err error) ([]nix.PathInfo, error) { return nil, fmt.Errorf("look for what is new: %w", err) }
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
		if policy.takes(&info) {
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

// unsaved returns the paths that no pack has, but for derivations, which every discovery
// makes.
func unsaved(saved *Index, paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		return saved.saved(path) || strings.HasSuffix(path, ".drv")
	})
}
