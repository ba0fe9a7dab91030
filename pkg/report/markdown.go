package report

import (
	"fmt"

	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// folded hides Markdown behind a line of our own.
func folded(title, markdown string) string {
	return "<details><summary>" + title + "</summary>\n\n" + markdown + "</details>\n\n"
}

// excerpt is a code block of what fits of the lines into limit bytes.
func excerpt(all []string, limit int, both bool) string {
	taken, cut, left := text.ClipLines(all, limit, both)
	if len(taken) == 0 {
		return ""
	}
	if left > 0 {
		gap := fmt.Sprintf("… %s left out …", text.Plural(left, "line"))
		taken = append(taken[:cut:cut], append([]string{gap}, taken[cut:]...)...)
	}
	return text.Fenced(taken)
}

// duration shows seconds that a document tells.
func duration(s float64) string {
	if d := verdict.Seconds(s); d > 0 {
		return text.Duration(d)
	}
	return text.None
}

// size shows bytes that a document tells.
func size(bytes int64) string {
	if bytes <= 0 {
		return text.None
	}
	return text.Size(bytes)
}
