package verdict

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// Status is how a job ended, in GitHub's words, and what a Verdict says.
type Status string

// The statuses. A Verdict is one of the first three.
const (
	Success   Status = "success"
	Failure   Status = "failure"
	Cancelled Status = "cancelled"
	Skipped   Status = "skipped"
)

// Needs is the `needs` context of the job that reports: what became of the jobs
// that it waits for, by their ids. It is empty outside of a workflow.
type Needs map[string]Need

// A Need is what became of one job.
type Need struct {
	Result  Status            `json:"result"` // of all of its matrix
	Outputs map[string]string `json:"outputs"`
}

// ParseNeeds reads toJSON(needs). Nothing at all and null are empty Needs.
func ParseNeeds(data []byte) (Needs, error) {
	if strings.TrimSpace(string(data)) == "" {
		return nil, nil
	}
	var needs Needs
	if err := json.Unmarshal(data, &needs); err != nil {
		return nil, fmt.Errorf("needs is not what ${{ toJSON(needs) }} gives: %w", err)
	}
	for _, id := range needs.ids() {
		switch result := needs[id].Result; result {
		case Success, Failure, Cancelled, Skipped:
		default:
			return nil, fmt.Errorf("needs is not what ${{ toJSON(needs) }} gives: the job %q has the result %q", id, result)
		}
	}
	return needs, nil
}

func (n Needs) ids() []string { return slices.Sorted(maps.Keys(n)) }

// cancelled reports whether a job was.
func (n Needs) cancelled() bool {
	for _, need := range n {
		if need.Result == Cancelled {
			return true
		}
	}
	return false
}

// discovery is what Needs tell about the job, or the jobs, that made the Plan.
type discovery struct {
	ids    []string // none: it is not among the needs
	result Status   // the worst of theirs
	matrix bool     // its output arrived
}

// discovery looks for the jobs that made the Plan with the key planKey. The id
// of that job is the user's choice, and what it is called here is a habit, so its
// outputs come first. Other jobs may have an output of the same name as one of
// ours, hence the order.
func (n Needs) discovery(planKey string) discovery {
	for _, made := range []func(id string, outputs map[string]string) bool{
		func(_ string, outputs map[string]string) bool { return job.SamePlan(outputs["plan"], planKey) },
		func(_ string, outputs map[string]string) bool { return ours(outputs) > 1 },
		func(id string, _ map[string]string) bool { return id == "discover" },
		func(_ string, outputs map[string]string) bool { return ours(outputs) > 0 },
	} {
		d := discovery{result: Success}
		for _, id := range n.ids() {
			need := n[id]
			if !made(id, need.Outputs) {
				continue
			}
			d.ids = append(d.ids, id)
			d.result = worse(d.result, need.Result)
			d.matrix = d.matrix || strings.TrimSpace(need.Outputs["matrix"]) != ""
		}
		if len(d.ids) > 0 {
			return d
		}
	}
	return discovery{}
}

// ours counts the outputs that are called as those of discover.
func ours(outputs map[string]string) int {
	n := 0
	for _, name := range []string{"matrix", "count", "plan"} {
		if _, ok := outputs[name]; ok {
			n++
		}
	}
	return n
}

// worse returns the worse of two statuses. A status that GitHub may add in future is as bad as
// a failure.
func worse(a, b Status) Status {
	rank := []Status{Success, Skipped, Cancelled}
	at, bt := slices.Index(rank, a), slices.Index(rank, b)
	if at < 0 || bt < 0 {
		return Failure
	}
	return rank[max(at, bt)]
}
