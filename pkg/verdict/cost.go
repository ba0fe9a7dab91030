package verdict

import (
	"time"

	"github.com/org/nix-matrix/internal/billing"
	"github.com/org/nix-matrix/pkg/job"
)

// A Cost is what the runners of a run cost: of the jobs that have left their times, in their last attempt.
type Cost struct {
	billing.Bill
	// Private is nil if it is unknown whether the repository is: in a public one, standard runners cost
	// nothing.
	Private *bool `json:"private,omitempty"`
	// Untimed counts the jobs of the Plan that have left no time, such as those that were killed.
	Untimed int `json:"untimed,omitempty"`
	// Saved is the time of builds that the run did without, and SharedSeconds that of builds that jobs took
	// from each other, without the time in which they only waited for them.
	job.Saved
	SharedSeconds float64 `json:"sharedSeconds,omitempty"`
}

// cost sets the cost of a run of GitHub Actions.
func (j *judgement) cost() {
	if j.plan.Machine == nil {
		return
	}
	c := &Cost{}
	add := func(m *job.Machine, labels []string, started, finished time.Time) {
		c.Add(m.Billing(labels), finished.Sub(m.Since(started)))
	}
	if created, finished := j.plan.Created, j.plan.Finished; !finished.Before(created) {
		add(j.plan.Machine, nil, created, finished)
	}
	for i := range j.plan.Entries {
		e := &j.plan.Entries[i]
		r := j.results[e.ID]
		if r == nil || r.Machine == nil || unfinished(r) || r.Finished.Before(r.Started) {
			c.Untimed++
			continue
		}
		add(r.Machine, e.Runner, r.Started, r.Finished)
	}
	if j.plan.Saved != nil {
		c.Saved = *j.plan.Saved
	}
	if s := j.v.Shared; s != nil {
		c.SharedSeconds = max(0, s.taken(j.plan)-s.Waited)
	}
	j.v.Cost = c
}

// taken returns the time of builds that entries took from other jobs. A helper takes what it builds others with.
func (s *Shared) taken(plan *job.Plan) (seconds float64) {
	helpers := map[string]bool{}
	for i := range plan.Entries {
		helpers[plan.Entries[i].Name] = plan.Entries[i].Helper
	}
	for _, u := range s.Units {
		for _, name := range u.Taken {
			if !helpers[name] {
				seconds += u.Seconds
			}
		}
	}
	return seconds
}

// AddReport adds the job that reports, which has been running until now, to the cost of a run.
func (v *Verdict) AddReport(m *job.Machine, now time.Time) {
	if v.Cost != nil && m != nil {
		v.Cost.Add(m.Billing(nil), now.Sub(m.Since(now)))
	}
}
