package evaluate

import (
	"encoding/json"
	"slices"
	"strconv"
)

// A position is a point of the walk: the number of a root, and the path from there.
type position struct {
	root int
	path []string
}

// beforeAll is the position of an evaluator that has listed all sets.
var beforeAll = position{root: -1}

// compare compares positions by the order of the walk.
func (p position) compare(q position) int {
	if p.root != q.root {
		return p.root - q.root
	}
	return slices.Compare(p.path, q.path)
}

// contains reports whether q is p or below it.
func (p position) contains(q position) bool {
	return p.root == q.root && len(p.path) <= len(q.path) && slices.Equal(p.path, q.path[:len(p.path)])
}

func (p position) String() string { return string(p.json()) }

// MarshalJSON returns the list that evaluate.nix takes for a position.
func (p position) MarshalJSON() ([]byte, error) { return p.json(), nil }

func (p position) json() []byte {
	list := []any{p.root}
	for _, name := range p.path {
		list = append(list, name)
	}
	data, err := json.Marshal(list)
	if err != nil {
		panic(err) // impossible: numbers and texts only
	}
	return data
}

// A bound is the beginning of a span: a position, or After it and all that it contains.
type bound struct {
	Path  position `json:"path"`
	After bool     `json:"after"`
}

// before reports whether a position is within the bound, not before it.
func (b *bound) before(p position) bool {
	if b.After {
		return p.compare(b.Path) > 0 && !b.Path.contains(p)
	}
	return p.compare(b.Path) >= 0
}

func (p position) child(name string) position {
	return position{p.root, append(slices.Clone(p.path), name)}
}

// tree returns positions as nested sets, as evaluate.nix takes them, or nil for nil.
func tree(all []position) map[string]any {
	if all == nil {
		return nil
	}
	top := map[string]any{}
	for _, p := range all {
		set := top
		for _, name := range append([]string{strconv.Itoa(p.root)}, p.path...) {
			below, ok := set[name].(map[string]any)
			if !ok {
				below = map[string]any{}
				set[name] = below
			}
			set = below
		}
	}
	return top
}
