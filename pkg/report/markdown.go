package report

import (
	"fmt"
	"slices"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// folded returns Markdown that is folded below a title, which must not be foreign text.
func folded(title, markdown string) string {
	return "<details><summary>" + title + "</summary>\n\n" + markdown + "</details>\n\n"
}

// excerpt returns a code block of as many lines as fit into limit bytes.
func excerpt(all []string, limit int, both bool) string {
	taken := clipped(all, limit, both)
	if len(taken) == 0 {
		return ""
	}
	return text.Fenced(taken)
}

// clipped returns as many lines as fit into limit bytes, with a line for those that are left out.
func clipped(all []string, limit int, both bool) []string {
	taken, cut, left := text.ClipLines(all, limit, both)
	if len(taken) > 0 && left > 0 {
		taken = slices.Insert(taken, cut, fmt.Sprintf("… %s left out …", text.Plural(left, "line")))
	}
	return taken
}

// duration returns seconds of a document for a person.
func duration(s float64) string {
	if d := verdict.Seconds(s); d > 0 {
		return text.Duration(d)
	}
	return text.None
}

// size returns bytes of a document for a person.
func size(bytes int64) string {
	if bytes <= 0 {
		return text.None
	}
	return text.Size(bytes)
}
