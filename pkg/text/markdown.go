package text

import "strings"

// None stands for a missing value.
const None = "–"

// Code returns foreign text as a code span of Markdown, of at most limit bytes without its
// delimiters. Nothing in it is markup, a link or a mention.
func Code(s string, limit int) string {
	s = Clip(Line(s), limit)
	if s == "" {
		return None
	}
	ticks := strings.Repeat("`", backticks(s)+1)
	if s[0] == '`' || s[len(s)-1] == '`' {
		s = " " + s + " "
	}
	return ticks + s + ticks
}

// CodeName returns a name as Code does, but cuts it in the middle.
func CodeName(name string, limit int) string { return Code(ClipName(Line(name), limit), limit) }

// Cell returns Code for the cell of a table. A pipe ends a cell even in a code span, unless
// it is escaped; and nobody has specified the meaning of a backslash before that.
func Cell(s string, limit int) string { return EscapePipes(Code(s, limit)) }

// EscapePipes returns Markdown for the cell of a table.
func EscapePipes(markdown string) string { return pipes.Replace(markdown) }

var pipes = strings.NewReplacer(`\|`, `\│`, `|`, `\|`)

// Fenced returns a code block of lines that Lines has returned. No line can end it.
func Fenced(lines []string) string {
	all := strings.Join(lines, "\n")
	ticks := strings.Repeat("`", max(3, backticks(all)+1))
	return ticks + "\n" + all + "\n" + ticks + "\n\n"
}

// backticks returns the length of the longest run of backticks.
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
