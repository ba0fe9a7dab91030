package evaluate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/nearest"
)

// A glob selects attribute paths. evaluate.nix matches it.
type glob struct {
	N       int       `json:"n"`
	Exclude bool      `json:"exclude"`
	Rest    []segment `json:"rest"`

	text string
}

// A segment matches a name: a list of pieces with anything between them, or the text "**" for
// any number of names.
type segment any

const anyNames = "**"

func readGlobs(include, exclude []string) ([]glob, error) {
	var globs []glob
	for _, text := range slices.Concat(include, exclude) {
		g := glob{N: len(globs), Exclude: len(globs) >= len(include), text: text}
		var err error
		if g.Rest, err = readGlob(text); err != nil {
			return nil, err
		}
		globs = append(globs, g)
	}
	return globs, nil
}

// readGlob splits a glob. In double quotes, dots and asterisks are literal, and escapes are as
// in [JoinAttr].
func readGlob(text string) ([]segment, error) {
	var segments []segment
	var piece strings.Builder
	var pieces []string
	literal, plain := false, 0 // of the segment: has quotes, and so many plain asterisks
	end := func() error {
		pieces = append(pieces, piece.String())
		switch {
		case plain == 2 && len(pieces) == 3 && strings.Join(pieces, "") == "":
			if len(segments) == 0 || segments[len(segments)-1] != segment(anyNames) {
				segments = append(segments, anyNames)
			}
		case plain == 0 && pieces[0] == "" && !literal:
			return requestf("invalid glob %q: there is an empty name in it. Remove the dot, or write the empty name as \"\"", text)
		default:
			segments = append(segments, pieces)
		}
		piece.Reset()
		pieces, literal, plain = nil, false, 0
		return nil
	}
	for at := 0; at < len(text); at++ {
		switch text[at] {
		case '"':
			inside, size, closed := quoted(text[at:])
			if !closed {
				return nil, requestf("invalid glob %q: it has no closing quote. Add a double quote", text)
			}
			piece.WriteString(inside)
			literal = true
			at += size - 1
		case '.':
			if err := end(); err != nil {
				return nil, err
			}
		case '*':
			pieces = append(pieces, piece.String())
			piece.Reset()
			plain++
		default:
			piece.WriteByte(text[at])
		}
	}
	return segments, end()
}

// GlobError says that a glob matches nothing.
type GlobError struct {
	Glob    string
	In      string
	Nearest []string // names to suggest, the likeliest first
}

func (e *GlobError) Error() string {
	names := ""
	if len(e.Nearest) > 0 {
		names = "; the nearest names are: " + strings.Join(e.Nearest, ", ")
	}
	return fmt.Sprintf("nothing in %s matches %s%s", e.In, e.Glob, names)
}

// unmatched returns an error for the first glob that has not matched anything. A glob that may
// match something of an omitted system is no error if there is anything to build.
func (d *evaluation) unmatched() error {
	for _, g := range d.globs {
		if d.hits[g.N] {
			continue
		}
		err := &GlobError{Glob: g.text, In: d.request(), Nearest: nearest.Names(g.text, d.known, 5)}
		switch {
		case !d.maybe[g.N]:
			return err
		case len(d.Targets) == 0:
			return requestf("%w. Left out because of their system: %s. Name more systems with --systems (input systems) to include them", err, someOf(d.Omitted))
		case d.o.Log != nil:
			d.o.Log(fmt.Sprintf("%v, unless it is of a system that is not wanted (%s)", err, someOf(d.Omitted)))
		}
	}
	return nil
}

// excluded reports whether globs leave out all of an output of a flake. Older versions of Nix
// evaluate the output before evaluate.nix can match globs.
func (d *evaluation) excluded(base []string) bool {
	if len(base) == 0 {
		return false
	}
	included, left := len(d.o.Include) == 0, false
	for _, g := range d.globs {
		switch {
		case !g.mayBeIn(base[0]):
		case !g.Exclude:
			included = true
		case len(g.Rest) == 1 && !g.startsWild():
			left = true
			d.hits[g.N] = true
		}
	}
	if included && !left {
		return false
	}
	d.known = append(d.known, shown(base))
	return true
}

// startsWild reports whether the first segment of the glob can match several names.
func (g *glob) startsWild() bool {
	pieces, ok := g.Rest[0].([]string)
	return !ok || len(pieces) > 1
}

// output returns the output of a flake that a glob to include names in full.
func (g *glob) output() (name string, ok bool) {
	if g.Exclude || g.startsWild() {
		return "", false
	}
	name = g.Rest[0].([]string)[0]
	return name, name != ""
}

// mayBeIn reports whether the glob may match something in an output, as far as is known
// without its evaluation.
func (g *glob) mayBeIn(output string) bool {
	return g.startsWild() || g.Rest[0].([]string)[0] == output
}
