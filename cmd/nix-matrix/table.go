package main

import (
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/report"
)

// maxOutlook is the length of discovery's part of a job's summary, in bytes. The report's has more.
const maxOutlook = 256 << 10

// tell logs the Plan: first the entries, and last the failures and notices.
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
