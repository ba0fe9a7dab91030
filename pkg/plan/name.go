package plan

import (
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// jobName returns the name of a job, in a line of at most maxLabel bytes, for a name that
// consists of attributes. A name that is cut has a hash, so that it differs from all others.
func jobName(name string) string {
	line := text.Words(name)
	if len(line) <= maxLabel && line != "" {
		return line
	}
	end := "… " + job.NewEntryID(name)
	return strings.ToValidUTF8(line[:min(len(line), maxLabel-len(end))], "") + end
}
