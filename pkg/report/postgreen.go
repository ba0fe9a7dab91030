package report

import (
	"fmt"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// PostGreen returns the failure of the script that runs after a green verdict, as Markdown to add to the
// summary.
func PostGreen(step *job.Step) string {
	const longest, log = 1000, 16 << 10 // bytes
	return fmt.Sprintf("## ❌ post_green failed\n\n%s\n\n%sEverything is built all the same: the verdict above is green.\n", text.Code(text.Line(step.Error), longest), excerpt(step.Log, log, false))
}
