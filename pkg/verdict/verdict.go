package verdict

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/org/nix-matrix/pkg/job"
)

// A Verdict says whether all of a Plan is done, with the outcome of each part. Programs read it
// as JSON.
type Verdict struct {
	Status Status `json:"status"`         // Success, Failure or Cancelled
	Reason string `json:"reason"`         // in one line, without foreign text
	Next   string `json:"next,omitempty"` // the next step, if it is not obvious
	// Origin says what the verdict is about, nil if unknown.
	Origin *Origin `json:"origin,omitempty"`
	// Cancelled says that the run was cancelled, whatever the Status.
	Cancelled bool `json:"cancelled"`
	// Refused says that the Plan was not judged, for the Reason.
	Refused bool   `json:"refused,omitempty"`
	Counts  Counts `json:"counts"`
	// Seconds is the time in which at least one entry was running, JobSeconds the sum over all
	// entries.
	Seconds    float64 `json:"seconds"`
	JobSeconds float64 `json:"jobSeconds"`

	Targets []Target `json:"targets"` // all of the Plan, in its order
	// Failures are the derivations that failed, as the causes of targets name them.
	Failures []job.Failure  `json:"failures,omitempty"`
	Entries  []EntryProblem `json:"entries,omitempty"` // errors outside of targets
	Jobs     []JobProblem   `json:"jobs,omitempty"`    // jobs of the workflow that did not succeed
	Work     []Work         `json:"work,omitempty"`    // of the entries that have a Result, in the order of the Plan
	Shared   *Shared        `json:"shared,omitempty"`  // nil if the Plan has no units
	Cost     *Cost          `json:"cost,omitempty"`    // nil outside of GitHub Actions
	Pushes   []Push         `json:"pushes,omitempty"`
	Ignored  []Ignored      `json:"ignored,omitempty"`  // Results that don't count
	Notices  []string       `json:"notices,omitempty"`  // of the Plan
	Emulated []string       `json:"emulated,omitempty"` // of the Plan
	// Change is the difference from another run, nil if none is known.
	Change *Change `json:"change,omitempty"`
}

// Counts are the numbers of targets by TargetStatus.
type Counts struct {
	Built     int `json:"built"`
	Fetched   int `json:"fetched"`
	Present   int `json:"present"`
	Skipped   int `json:"skipped"`
	Failed    int `json:"failed"` // those that could not be evaluated included
	Cancelled int `json:"cancelled"`
	Missing   int `json:"missing"`
}

// Done returns the number of targets that are done.
func (c Counts) Done() int { return c.Built + c.Fetched + c.Present + c.Skipped }

func (c *Counts) add(s TargetStatus) {
	switch s {
	case TargetBuilt:
		c.Built++
	case TargetFetched:
		c.Fetched++
	case TargetPresent:
		c.Present++
	case TargetSkipped:
		c.Skipped++
	case TargetFailed:
		c.Failed++
	case TargetCancelled:
		c.Cancelled++
	case TargetMissing:
		c.Missing++
	}
}

// TargetStatus is the status of a target.
type TargetStatus string

// The statuses of targets.
const (
	TargetBuilt     TargetStatus = "built"
	TargetFetched   TargetStatus = "fetched"
	TargetPresent   TargetStatus = "present"
	TargetSkipped   TargetStatus = "skipped"
	TargetFailed    TargetStatus = "failed"    // to build or to evaluate
	TargetCancelled TargetStatus = "cancelled" // stopped, or never started, because the run was cancelled
	TargetMissing   TargetStatus = "missing"   // without a result
)

// A Target is the verdict on one target of the Plan.
type Target struct {
	N        int               `json:"n"` // number in the Plan
	Target   job.Target        `json:"target"`
	Entry    string            `json:"entry,omitempty"`    // name of the entry that builds it
	Emulated bool              `json:"emulated,omitempty"` // one of its builds ran in an emulator, such as qemu
	Result   *job.TargetResult `json:"result,omitempty"`   // nil if none counts
	Status   TargetStatus      `json:"status"`
	// TimedOut says that the deadline of its entry came before it was done.
	TimedOut bool `json:"timedOut,omitempty"`
	// Why is the reason of a skip, the error of a failure (both foreign text), or the reason
	// why a target is cancelled or missing. Empty otherwise.
	Why string `json:"why,omitempty"`
}

// Done reports whether the target is done.
func (t *Target) Done() bool {
	switch t.Status {
	case TargetBuilt, TargetFetched, TargetPresent, TargetSkipped:
		return true
	case TargetFailed, TargetCancelled, TargetMissing:
	}
	return false
}

// Unevaluated reports whether the target could not be evaluated, so that there is no
// derivation.
func (t *Target) Unevaluated() bool { return t.Target.State == job.StateFailed }

// Name returns the name of a target for a person.
func (t *Target) Name() string {
	return cmp.Or(t.Target.Name, t.Target.Attr, fmt.Sprintf("target %d", t.N))
}

// Output returns the output that stands for a target: "out", or else the first.
func (t *Target) Output() job.Output {
	if t.Result != nil && len(t.Result.Outputs) > 0 {
		outputs := t.Result.Outputs
		return outputs[max(0, slices.IndexFunc(outputs, func(o job.Output) bool { return o.Name == "out" }))]
	}
	if t.Status != TargetSkipped {
		return job.Output{}
	}
	for _, name := range append([]string{"out"}, slices.Sorted(maps.Keys(t.Target.OutPaths))...) {
		if path := t.Target.OutPaths[name]; path != "" {
			return job.Output{Name: name, Path: path}
		}
	}
	return job.Output{}
}

// BlockedBy returns the dependency whose failure kept the target from being built; empty if there
// is none.
func (t *Target) BlockedBy() string {
	if t.Status != TargetFailed || t.Result == nil || t.Result.Cause == t.Target.DrvPath {
		return ""
	}
	return t.Result.Cause
}

// StepFailed reports whether the target was built and the step after the build failed.
func (t *Target) StepFailed() bool { return t.Result != nil && stepFailed(t.Result) }

// Log returns the last lines of the build or the step that failed.
func (t *Target) Log() []string {
	switch {
	case t.Result == nil:
		return nil
	case t.StepFailed():
		return t.Result.PostBuild.Log
	default:
		return t.Result.Log
	}
}

// Reproduce returns the command that reproduces the failure of the target locally, "" if there is
// none. The Plan's command counts before the worker's.
func (t *Target) Reproduce() string {
	if t.StepFailed() || t.TimedOut {
		return ""
	}
	if t.Target.Reproduce == "" && t.Result != nil {
		return t.Result.Reproduce
	}
	return t.Target.Reproduce
}

// An EntryProblem is an error of an entry outside of its targets.
type EntryProblem struct {
	Entry   string `json:"entry"` // Entry.ID
	Name    string `json:"name"`  // Entry.Name
	Status  Status `json:"status"`
	Message string `json:"message"` // foreign text
}

// A JobProblem is a job of the workflow that did not succeed.
type JobProblem struct {
	Job    string `json:"job"`
	Result Status `json:"result"`
	Status Status `json:"status"` // its effect on the verdict
}

// Work is the work of one entry, and its time.
type Work struct {
	Entry   string      `json:"entry"` // Entry.Name
	Outcome job.Outcome `json:"outcome"`
	// Start is the number of seconds between the start of the first entry and of this one,
	// without pauses in which no entry was running, as before a rerun.
	Start        float64 `json:"start"`
	Seconds      float64 `json:"seconds"`
	Before       float64 `json:"before,omitempty"` // seconds of the last build by the default branch; 0 is unknown
	Built        int     `json:"built"`            // derivations
	Imported     int     `json:"imported"`         // store paths from the drv pack
	Downloaded   int64   `json:"downloaded"`       // bytes for that
	Fetched      int     `json:"fetched"`          // store paths from substituters
	FetchedBytes int64   `json:"fetchedBytes"`     // of their NARs
	Restored     Traffic `json:"restored"`         // from the store cache
	Saved        Traffic `json:"saved"`            // to it
	URL          string  `json:"url,omitempty"`    // of the job, from the worker; foreign text
}

// Traffic counts store paths to or from the store cache.
type Traffic struct {
	Paths int   `json:"paths"` // store paths
	Bytes int64 `json:"bytes"` // of packs
}

// Add adds store paths and bytes of packs. Negative numbers, which only a broken document has, count as 0.
func (t *Traffic) Add(paths int, bytes int64) {
	t.Paths, t.Bytes = t.Paths+max(paths, 0), t.Bytes+max(bytes, 0)
}

// A Push is the outcome of an entry's push to one binary cache.
type Push struct {
	Entry string `json:"entry"` // Entry.Name
	job.Push
}

// Ignored is a Result that does not count.
type Ignored struct {
	Entry string `json:"entry"` // Result.Entry
	Name  string `json:"name"`  // Result.Name
	Why   string `json:"why"`
}

// HostsFirst returns the targets of the given statuses, or all of them: hosts before others,
// else in the order of the Plan.
func (v *Verdict) HostsFirst(of ...TargetStatus) []*Target {
	var targets []*Target
	for i := range v.Targets {
		if t := &v.Targets[i]; len(of) == 0 || slices.Contains(of, t.Status) {
			targets = append(targets, t)
		}
	}
	slices.SortStableFunc(targets, func(a, b *Target) int {
		switch hostA, hostB := a.Target.Kind.IsHost(), b.Target.Kind.IsHost(); {
		case hostA == hostB:
			return 0
		case hostA:
			return -1
		default:
			return 1
		}
	})
	return targets
}

// addFailures adds the failures of a Result of an entry. If several Results mention a derivation, the failure
// with the longer log stays. known has the index of each derivation.
func (v *Verdict) addFailures(entry string, r *job.Result, known map[string]int) {
	for _, f := range r.Failures {
		f.Entry = cmp.Or(f.Entry, entry)
		if n, ok := known[f.DrvPath]; !ok {
			known[f.DrvPath] = len(v.Failures)
			v.Failures = append(v.Failures, f)
		} else if known := &v.Failures[n]; len(f.Log) > len(known.Log) || len(f.Log) == len(known.Log) && known.LogFile == "" {
			v.Failures[n] = f
		}
	}
}

// Seconds returns the duration of a number of seconds in a document, which may be any number.
func Seconds(s float64) time.Duration {
	const most = 1e8
	if math.IsNaN(s) || s <= 0 {
		return 0
	}
	return time.Duration(min(s, most) * float64(time.Second))
}
