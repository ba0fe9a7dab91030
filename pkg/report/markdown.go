package report

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/job"
)

// code is foreign text as a code span of at most limit bytes, besides its
// delimiters. Nothing in it is markup, a link or a mention.
func code(s string, limit int) string {
	s = clip(oneLine(s), limit)
	if s == "" {
		return none
	}
	ticks := strings.Repeat("`", backticks(s)+1)
	if s[0] == '`' || s[len(s)-1] == '`' {
		s = " " + s + " "
	}
	return ticks + s + ticks
}

// none stands for what there is not.
const none = "–"

// cell is code in a cell of a table. A pipe ends a cell even in a code span,
// unless it is escaped; and what a backslash before that means, nobody has
// specified.
func cell(s string, limit int) string { return pipes.Replace(code(s, limit)) }

var pipes = strings.NewReplacer(`\|`, `\│`, `|`, `\|`)

// fenced is a code block of lines of foreign text. No line can end it.
func fenced(text []string) string {
	all := strings.Join(text, "\n")
	ticks := strings.Repeat("`", max(3, backticks(all)+1))
	return ticks + "\n" + all + "\n" + ticks + "\n\n"
}

// backticks is the length of the longest run of them.
func backticks(s string) int {
	longest, run := 0, 0
	for i := range len(s) {
		if s[i] != '`' {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return longest
}

// folded hides Markdown behind a line of our own.
func folded(title, markdown string) string {
	return "<details><summary>" + title + "</summary>\n\n" + markdown + "</details>\n\n"
}

// excerpt is a code block of what fits of the lines into limit bytes.
func excerpt(all []string, limit int, both bool) string {
	taken, cut, left := clipLines(all, limit, both)
	if len(taken) == 0 {
		return ""
	}
	if left > 0 {
		gap := fmt.Sprintf("… %s left out …", plural(left, "line"))
		taken = append(taken[:cut:cut], append([]string{gap}, taken[cut:]...)...)
	}
	return fenced(taken)
}

// duration shows seconds that a document tells.
func duration(s float64) string {
	if d := seconds(s); d > 0 {
		return job.Duration(d)
	}
	return none
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
		return none
	}
	return job.Size(bytes)
}
