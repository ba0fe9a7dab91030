package report

import (
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// targetFailure returns lines about a failed target of a Result: the error, with its log's end if that is
// wanted, the other derivations that failed, the command that reproduces it, and the whole log's location,
// or the job that has it. All of it is foreign text.
func targetFailure(r *job.Result, t *job.TargetResult, withLog bool) string {
	const (
		logTail = 10 // lines
		most    = 20 // derivations
	)
	message := t.Error
	if withLog && len(t.Log) > 0 {
		message += "\n> " + strings.Join(t.Log[max(0, len(t.Log)-logTail):], "\n> ")
	}
	if len(t.Causes) > 1 {
		var others []string
		for _, drv := range t.Causes[1:] {
			others = append(others, job.DrvName(drv))
		}
		message += "\nAlso failed: " + text.Some(others, most)
	}
	if t.Reproduce != "" && t.Outcome == job.OutcomeFailed {
		message += "\nReproduce locally: " + t.Reproduce
	}
	for i := range r.Failures {
		if f := &r.Failures[i]; f.DrvPath == t.Cause {
			if f.Entry != "" {
				message += "\nIt failed in the job of " + strings.TrimSpace(f.Entry+" "+f.URL)
			}
			for _, where := range WholeLog(f) {
				message += "\nIts log: " + where
			}
		}
	}
	return message
}
