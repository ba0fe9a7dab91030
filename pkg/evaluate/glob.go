package evaluate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/nearest"
)

// A glob chooses attribute paths. evaluate.nix matches it.
type glob struct {
	N       int       `json:"n"`
	Exclude bool      `json:"exclude"`
	Rest    []segment `json:"rest"`

	text string
}

// A segment matches a name: a list of pieces, between which anything may be, or
// the text "**", for any number of names.
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

// readGlob takes a glob apart. In double quotes, dots and asterisks are only
// themselves, and escapes are as in [JoinAttr].
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
			return requestf("the glob %q has an empty name in it", text)
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
				return nil, requestf("the glob %q has no closing quote", text)
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
	Nearest []string // names that it might have meant, the likeliest first
}

func (e *GlobError) Error() string {
	names := ""
	if len(e.Nearest) > 0 {
		names = "; the nearest names are: " + strings.Join(e.Nearest, ", ")
	}
	return fmt.Sprintf("nothing in %s matches %s%s", e.In, e.Glob, names)
}

// unmatched returns an error for the first glob that has not matched anything. One that may
// match something of a system that is not wanted is no error if there is anything to build.
func (d *evaluation) unmatched() error {
	for _, g := range d.globs {
		if d.hits[g.N] {
			continue
		}
		err := &GlobError{Glob: g.text, In: d.what(), Nearest: nearest.Names(g.text, d.known, 5)}
		switch {
		case !d.perhaps[g.N]:
			return err
		case len(d.Targets) == 0:
			return requestf("%w. Left out because of their system: %s; to look there too, name more systems with --systems (input systems)", err, someOf(d.Omitted))
		case d.o.Log != nil:
			d.o.Log(fmt.Sprintf("%v, unless it is of a system that is not wanted (%s)", err, someOf(d.Omitted)))
		}
	}
	return nil
}

// leftOut says whether globs leave out all of an output of a flake. Older
// versions of Nix evaluate it before evaluate.nix can tell.
func (d *evaluation) leftOut(base []string) bool {
	if len(base) == 0 {
		return false
	}
	included, left := len(d.o.Include) == 0, false
	for _, g := range d.globs {
		switch {
		case !g.mayBeIn(base[0]):
		case !g.Exclude:
			included = true
		case len(g.Rest) == 1 && !g.wild():
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

// wild says whether the glob begins with what may match several names.
func (g *glob) wild() bool {
	pieces, ok := g.Rest[0].([]string)
	return !ok || len(pieces) > 1
}

// mayBeIn says whether the glob may match something in an output, as far as that
// is known without a look at it.
func (g *glob) mayBeIn(output string) bool {
	return g.wild() || g.Rest[0].([]string)[0] == output
}
