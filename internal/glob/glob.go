// Package glob matches texts, such as the names of store paths and of git refs, with lists of globs.
//
// In a glob, * is any number of characters other than a slash and ** any number of all; every other
// character is itself. A glob that begins with ! is one of exclusion.
package glob

import (
	"errors"
	"regexp"
	"strings"

	"github.com/org/nix-matrix/internal/valid"
)

// longest is how long a glob may be, in bytes.
const longest = 1000

// A Glob is one line of a list.
type Glob struct {
	Text    string // as it was written
	Exclude bool   // it begins with !
	pattern *regexp.Regexp
}

// Parse reads a glob. Its error says what a glob must be.
func Parse(text string) (Glob, error) {
	rest, exclude := strings.CutPrefix(text, "!")
	if rest == "" || strings.HasPrefix(rest, "!") || valid.Line(rest, longest) != nil {
		return Glob{}, errors.New("must be a glob such as nixos-system-*, or ! and a glob")
	}
	var pattern strings.Builder
	pattern.WriteString(`^`)
	for rest != "" {
		star := strings.IndexByte(rest, '*')
		if star < 0 {
			star = len(rest)
		}
		pattern.WriteString(regexp.QuoteMeta(rest[:star]))
		rest = rest[star:]
		stars := len(rest) - len(strings.TrimLeft(rest, "*"))
		switch {
		case stars == 1:
			pattern.WriteString(`[^/]*`)
		case stars > 1:
			pattern.WriteString(`.*`)
		}
		rest = rest[stars:]
	}
	compiled, err := regexp.Compile(pattern.String() + `$`)
	return Glob{text, exclude, compiled}, err
}

// Match reports whether the glob, without its !, matches all of a text.
func (g *Glob) Match(text string) bool { return g.pattern.MatchString(text) }

// Prefixed reports whether the glob, without its !, begins with a text.
func (g *Glob) Prefixed(prefix string) bool {
	return strings.HasPrefix(strings.TrimPrefix(g.Text, "!"), prefix)
}

// Selects reports whether a list selects what match accepts: at least one of its globs, unless all are
// ones of exclusion, and none of those. Match is called for every glob.
func Selects(globs []Glob, match func(g *Glob) bool) bool {
	selected, excluded, included := true, false, false
	for i := range globs {
		g := &globs[i]
		matches := match(g)
		switch {
		case g.Exclude:
			excluded = excluded || matches
		case !included:
			included, selected = true, matches
		default:
			selected = selected || matches
		}
	}
	return selected && !excluded
}
