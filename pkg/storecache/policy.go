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
func Named(ctx context.Context, from Nix, saved *Index, policy Policy, named []string) (found News, why map[string]string, err error) {
	f := finder{Nix: from, saved: saved, policy: policy, named: named}
	if f.all, err = from.Requisites(ctx, named...); err == nil {
		found, err = f.find(ctx, unsaved(saved, f.all), nil)
	}
	if err != nil {
		return News{}, nil, fmt.Errorf("cannot find the new store paths: %w", err)
	}
	why = map[string]string{}
	for _, path := range named {
		switch {
		case saved.saved(path) || slices.ContainsFunc(found.Fresh, func(info nix.PathInfo) bool { return info.Path == path }):
		case strings.HasSuffix(path, ".drv"):
			why[path] = "it is a derivation, which each evaluation makes"
		default:
			why[path] = "it is signed, so a binary cache has it; --store-cache all saves it"
		}
	}
	return found, why, nil
}

// News are paths to save.
type News struct {
	Fresh  []nix.PathInfo // of these paths, in reference order
	Needed []string       // the closures of the paths that the policy saves
}

// New returns the valid paths that a policy saves and no pack has, and the unsigned
// paths in their closures, such as sources, because no other place has these. Paths that others
// save are not fresh.
func New(ctx context.Context, from Nix, saved *Index, policy Policy, paths []string, others ...string) (News, error) {
	f := finder{Nix: from, saved: saved, policy: policy}
	valid, err := from.Valid(ctx, unsaved(saved, paths)...)
	var found News
	if err == nil {
		found, err = f.find(ctx, slices.Sorted(maps.Keys(valid)), others)
	}
	if err != nil {
		return News{}, fmt.Errorf("cannot find the new store paths: %w", err)
	}
	return found, nil
}

// A finder finds new paths.
type finder struct {
	Nix
	saved  *Index
	policy Policy
	named  []string
	all    []string // the closure of the named paths, in reference order; nil without names
	infos  map[string]nix.PathInfo
}

// find finds new ones of valid paths that no pack has.
func (f *finder) find(ctx context.Context, valid, others []string) (found News, err error) {
	f.infos = make(map[string]nix.PathInfo, len(valid))
	if err := f.ask(ctx, valid); err != nil {
		return found, err
	}
	wanted := map[string]bool{}
	for path, info := range f.infos {
		if f.policy.takes(&info) || slices.Contains(f.named, path) && f.policy.takesNamed(&info) {
			wanted[path] = true
		}
	}
	if len(wanted) == 0 {
		return found, nil
	}
	if found.Needed, err = f.closure(ctx, slices.Collect(maps.Keys(wanted))); err != nil {
		return found, err
	}
	closure := unsaved(f.saved, found.Needed)
	if err := f.ask(ctx, closure); err != nil {
		return found, err
	}
	for _, path := range closure {
		if info := f.infos[path]; (wanted[path] || len(info.Signatures) == 0) && !slices.Contains(others, path) {
			found.Fresh = append(found.Fresh, info)
		}
	}
	return found, nil
}

// ask queries the infos of paths that are not known yet.
func (f *finder) ask(ctx context.Context, paths []string) error {
	infos, err := f.FullInfo(ctx, slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		_, known := f.infos[path]
		return known
	})...)
	for _, info := range infos {
		f.infos[info.Path] = info
	}
	return err
}

// closure returns the closure of paths in reference order. Nix is not asked again where all infos are known, as in
// a first save.
func (f *finder) closure(ctx context.Context, paths []string) ([]string, error) {
	if len(f.infos) < len(f.all) || len(f.all) == 0 {
		return f.Requisites(ctx, paths...)
	}
	seen := map[string]bool{}
	for todo := paths; len(todo) > 0; {
		path := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !seen[path] {
			seen[path] = true
			todo = append(todo, f.infos[path].References...)
		}
	}
	return slices.DeleteFunc(slices.Clone(f.all), func(path string) bool { return !seen[path] }), nil
}

// unsaved returns the paths that no pack has, except derivations, which every discovery makes.
func unsaved(saved *Index, paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		return saved.saved(path) || strings.HasSuffix(path, ".drv")
	})
}
