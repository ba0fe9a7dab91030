package storecache

import (
	"context"
	"slices"
)

// Closure returns those paths of the closures of paths that packs have, and those that are
// referred to and in no pack. It loads the indexes of packs. The error is the end of the context.
func (ix *Index) Closure(ctx context.Context, paths ...string) (packed, outside []string, err error) {
	for {
		var missing []*Pack
		if packed, outside, missing = ix.walk(paths); len(missing) == 0 {
			return packed, outside, nil
		}
		all := slices.Clone(missing)
		for _, p := range missing {
			for _, other := range ix.needs(p) {
				if !slices.Contains(all, other) {
					all = append(all, other) // a restore needs it, and it may have what the path refers to
				}
			}
		}
		if err := ix.load(ctx, all, true); err != nil {
			return nil, nil, err
		}
	}
}

// walk walks over closures as far as packs are loaded. It returns those that should be loaded.
func (ix *Index) walk(paths []string) (packed, outside []string, missing []*Pack) {
	seen := map[string]bool{}
	todo := slices.Clone(paths)
	for len(todo) > 0 {
		path := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[path] {
			continue
		}
		seen[path] = true
		at, ok := ix.find(path)
		for _, p := range ix.paths[idOf(path)] {
			if !ok && p.Index == nil && ix.failed[p] == nil && !slices.Contains(missing, p) {
				missing = append(missing, p)
				break
			}
		}
		if !ok {
			outside = append(outside, path)
			continue
		}
		packed = append(packed, path)
		todo = append(todo, at.pack.Index.Records[at.record].References...)
	}
	return packed, outside, missing
}

// Holding returns an index of the packs that have paths of these paths' closures, and of those that they lean
// on. The error is the end of the context.
func (ix *Index) Holding(ctx context.Context, paths ...string) (*Index, error) {
	packed, _, err := ix.Closure(ctx, paths...)
	if err != nil {
		return nil, err
	}
	holding := map[*Pack]bool{}
	for _, path := range packed {
		at, _ := ix.find(path)
		for _, p := range ix.needs(at.pack) {
			holding[p] = true
		}
	}
	return ix.With(slices.DeleteFunc(slices.Clone(ix.Packs), func(p *Pack) bool { return !holding[p] })...), nil
}
