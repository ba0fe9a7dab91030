package push

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/org/nix-matrix/internal/glob"
	"github.com/org/nix-matrix/pkg/nix"
)

// A Filter decides which of the paths that a build makes are pushed. Globs are compared with the name of a
// path, which is its file name without the hash, or with all of it if they begin with a slash. A path is
// pushed if one of the globs matches it, unless all are ones of exclusion, and if its closure has no path
// that a glob of exclusion matches: a binary cache without that path could not deliver the others. The
// closure of a path that is pushed goes with it, whatever the other globs say.
//
// A nil Filter lets all paths through. The methods are safe for concurrent use.
type Filter struct {
	globs []glob.Glob

	mu      sync.Mutex
	passes  map[string]bool // by path
	matched map[string]bool // by the text of a glob
}

// NewFilter returns the Filter of a list of globs, which is nil for an empty list.
func NewFilter(globs []glob.Glob) *Filter {
	if len(globs) == 0 {
		return nil
	}
	return &Filter{globs: globs, passes: map[string]bool{}, matched: map[string]bool{}}
}

// Kept returns the sorted paths that were held back so far.
func (f *Filter) Kept() []string {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var kept []string
	for path, passes := range f.passes {
		if !passes {
			kept = append(kept, path)
		}
	}
	slices.Sort(kept)
	return kept
}

// Holds reports whether a path was held back.
func (f *Filter) Holds(path string) bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	passes, known := f.passes[path]
	return known && !passes
}

// Unused returns the globs that have matched nothing, if there was anything to push.
func (f *Filter) Unused() []string {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var unused []string
	for _, g := range f.globs {
		if !f.matched[g.Text] && len(f.passes) > 0 {
			unused = append(unused, g.Text)
		}
	}
	return unused
}

// closureStore is what a Filter needs of Nix.
type closureStore interface {
	Closure(ctx context.Context, paths ...string) (map[string]nix.PathInfo, error)
}

// pass returns the paths that are pushed. It drops every DRV!*, because that may stand for an output that
// is held back.
func (f *Filter) pass(ctx context.Context, store closureStore, paths []string) ([]string, error) {
	if f == nil {
		return paths, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	paths = outputs(paths)
	var fresh []string
	for _, path := range paths {
		if _, known := f.passes[path]; !known {
			fresh = append(fresh, path)
		}
	}
	if err := f.decide(ctx, store, fresh); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(paths, func(path string) bool { return !f.passes[path] }), nil
}

// decide decides about paths that are new.
func (f *Filter) decide(ctx context.Context, store closureStore, paths []string) error {
	var infos map[string]nix.PathInfo
	if len(paths) > 0 && slices.ContainsFunc(f.globs, func(g glob.Glob) bool { return g.Exclude }) {
		var err error
		if infos, err = store.Closure(ctx, paths...); err != nil {
			return err
		}
	}
	tainted := f.excluded(infos)
	for _, path := range paths {
		f.passes[path] = f.selects(path) && !tainted[path]
	}
	return nil
}

// Selects reports whether the globs select a path, whatever they say about its closure.
func (f *Filter) Selects(path string) bool {
	if f == nil {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.selects(path)
}

func (f *Filter) selects(path string) bool {
	return glob.Selects(f.globs, func(g *glob.Glob) bool { return f.matches(g, path) })
}

// matches reports whether a glob matches a path, and notes it.
func (f *Filter) matches(g *glob.Glob, storePath string) bool {
	text := storePath
	if !g.Prefixed("/") {
		_, text, _ = strings.Cut(path.Base(storePath), "-")
	}
	if !g.Match(text) {
		return false
	}
	f.matched[g.Text] = true
	return true
}

// excluded returns the paths that a glob of exclusion matches, and those that refer to them, directly or not.
func (f *Filter) excluded(infos map[string]nix.PathInfo) map[string]bool {
	referrers := map[string][]string{}
	for path, info := range infos {
		for _, reference := range info.References {
			referrers[reference] = append(referrers[reference], path)
		}
	}
	tainted := map[string]bool{}
	var next []string
	for path := range maps.Keys(infos) {
		for i := range f.globs {
			if g := &f.globs[i]; g.Exclude && f.matches(g, path) {
				next = append(next, path)
			}
		}
	}
	for len(next) > 0 {
		path := next[len(next)-1]
		next = next[:len(next)-1]
		if !tainted[path] {
			tainted[path] = true
			next = append(next, referrers[path]...)
		}
	}
	return tainted
}
