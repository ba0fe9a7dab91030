package verdict

import (
	"encoding/json"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
)

// Output returns the Verdict's JSON on one line, without logs and without parts of closures, for
// programs that read it from an output of a workflow. If it has more than maxLen UTF-16 code
// units, it has only the status, reason, counts and times, and no targets.
func (v *Verdict) Output(maxLen int) ([]byte, error) {
	short := *v
	short.Targets = slices.Clone(v.Targets)
	for i := range short.Targets {
		short.Targets[i].Result = shortResult(short.Targets[i].Result)
	}
	short.Failures = slices.Clone(v.Failures)
	for i := range short.Failures {
		short.Failures[i].Log = nil
	}
	data, err := json.Marshal(&short)
	if err != nil || OutputSize(data) <= maxLen {
		return data, err
	}
	return json.Marshal(&Verdict{
		Status: v.Status, Reason: v.Reason, Next: v.Next, Cancelled: v.Cancelled, Counts: v.Counts,
		Seconds: v.Seconds, JobSeconds: v.JobSeconds, Targets: []Target{},
	})
}

// shortResult returns a result without logs and parts of closures.
func shortResult(r *job.TargetResult) *job.TargetResult {
	if r == nil {
		return nil
	}
	short := *r
	short.Log = nil
	short.Outputs = slices.Clone(r.Outputs)
	for i := range short.Outputs {
		short.Outputs[i].Parts = nil
	}
	if r.PostBuild != nil {
		step := *r.PostBuild
		step.Log = nil
		short.PostBuild = &step
	}
	return &short
}
