package main

import (
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/report"
)

// maxOutlook is how much of a job's summary discovery takes, in bytes. The report's
// tells more.
const maxOutlook = 64 << 10

// tell shows the Plan on the log: first what is built, and last what needs somebody
// to look at it.
func tell(show *jobLog, p *job.Plan) {
	outlook := report.NewOutlook(p, show.Width())
	for _, lines := range [][]string{outlook.Entries, outlook.Skipped, outlook.Counts} {
		for _, line := range lines {
			show.Printf("%s", line)
		}
	}
	for _, line := range outlook.Failed {
		show.Bad("%s", line)
	}
	for _, notice := range report.Notices(p) {
		show.Warnf("%s", notice)
	}
	show.Printf("%s", outlook.Total)
}
