package verdict

import (
	"encoding/json"
	"maps"
	"slices"
	"unicode/utf16"
)

// Paths are the store paths of targets, by attribute path and by the name of the output.
type Paths map[string]map[string]string

// Paths returns the store paths of the targets that a later step can fetch or has: those that were
// built, and those that were skipped because their outputs are available. A target that was skipped for
// another reason has none.
//
// Targets of several flakes may have the same attribute path. If their store paths differ, the
// attribute path stands for none of them: it is missing, and among the ambiguous ones, which are sorted.
func (v *Verdict) Paths() (paths Paths, ambiguous []string) {
	paths = Paths{}
	twice := map[string]bool{}
	for i := range v.Targets {
		t := &v.Targets[i]
		for output, path := range t.outPaths() {
			of := paths[t.Target.Attr]
			if of == nil {
				of = map[string]string{}
				paths[t.Target.Attr] = of
			}
			if other, ok := of[output]; ok && other != path {
				twice[t.Target.Attr] = true
			}
			of[output] = path
		}
	}
	for attr := range twice {
		delete(paths, attr)
	}
	return paths, slices.Sorted(maps.Keys(twice))
}

// outPaths returns the store paths of a target by output, none unless it is done.
func (t *Target) outPaths() map[string]string {
	paths := map[string]string{}
	switch {
	case !t.Done():
	case t.Result != nil:
		for _, o := range t.Result.Outputs {
			paths[o.Name] = o.Path
		}
	case t.Target.Available:
		for _, output := range t.Target.Outputs {
			if path := t.Target.OutPaths[output]; path != "" {
				paths[output] = path
			}
		}
	}
	return paths
}

// Marshal returns the JSON of the paths on one line: an object of an object for each attribute path.
func (p Paths) Marshal() ([]byte, error) { return json.Marshal(p) }

// OutputSize returns the size of an output of a workflow as GitHub measures it, in UTF-16 code units.
func OutputSize(data []byte) int { return len(utf16.Encode([]rune(string(data)))) }
