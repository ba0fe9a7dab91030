package plan

import (
	"strings"
	"unicode"

	"github.com/org/nix-matrix/pkg/job"
)

// visible makes a blank of what controls how text is shown.
func visible(r rune) rune {
	if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
		return ' '
	}
	return r
}

// jobName makes the name of a job, in a line of at most maxLabel bytes, of one that
// attributes give. What is cut off is not lost: other names stay other names.
func jobName(name string) string {
	line := strings.Join(strings.Fields(strings.Map(visible, name)), " ")
	if len(line) <= maxLabel && line != "" {
		return line
	}
	end := "… " + job.NewEntryID(name)
	return strings.ToValidUTF8(line[:min(len(line), maxLabel-len(end))], "") + end
}
