package report

import (
	"cmp"
	"strings"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// originLine returns the origin in a line, in which quote makes foreign text safe. It is empty if
// nothing is known.
func originLine(o *verdict.Origin, quote func(string) string) string {
	if o == nil {
		return ""
	}
	const short = 12 // characters of a commit
	var parts []string
	where := cmp.Or(o.Repository, o.Source)
	if where != "" && o.Commit != "" {
		where = quote(where) + " at " + quote(start(o.Commit, short))
	} else if where != "" {
		where = quote(where)
	}
	if where != "" {
		parts = append(parts, where)
	}
	if !o.Created.IsZero() {
		parts = append(parts, o.Created.UTC().Format("2006-01-02 15:04 UTC"))
	}
	if o.Nix != "" && o.Machine != "" {
		nix := o.Nix
		if nix[0] >= '0' && nix[0] <= '9' { // others have their name
			nix = "Nix " + nix
		}
		parts = append(parts, "evaluated by "+quote(nix)+" on "+quote(o.Machine))
	}
	return strings.Join(parts, ", ")
}

// start returns the first n bytes of a foreign text, such as a commit.
func start(s string, n int) string {
	s = text.Line(s) // an escape sequence must not be cut
	return s[:min(n, len(s))]
}
