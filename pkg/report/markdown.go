package report

import (
	"fmt"
	"math"
	"time"

	"github.com/org/nix-matrix/pkg/text"
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
	if d := seconds(s); d > 0 {
		return text.Duration(d)
	}
	return text.None
}

// seconds takes seconds that a document tells, which may be any number.
func seconds(s float64) time.Duration {
	const most = 1e8
	if math.IsNaN(s) || s <= 0 {
		return 0
	}
	return time.Duration(min(s, most) * float64(time.Second))
}

// size shows bytes that a document tells.
func size(bytes int64) string {
	if bytes <= 0 {
		return text.None
	}
	return text.Size(bytes)
}
