package verdict

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// Status is the status of a job, in GitHub's words, or of a Verdict.
type Status string

// The statuses. A Verdict is one of the first three.
const (
	Success   Status = "success"
	Failure   Status = "failure"
	Cancelled Status = "cancelled"
	Skipped   Status = "skipped"
)

// Needs is the `needs` context of the report job: the jobs that it waits for, by their ids. It is
// empty outside of a workflow.
type Needs map[string]Need

// A Need has the result and outputs of one job.
type Need struct {
	Result  Status            `json:"result"` // of all of its matrix
	Outputs map[string]string `json:"outputs"`
}

// ParseNeeds parses toJSON(needs). Empty text and null are empty Needs.
func ParseNeeds(data []byte) (Needs, error) {
	if strings.TrimSpace(string(data)) == "" {
		return nil, nil
	}
	var needs Needs
	if err := json.Unmarshal(data, &needs); err != nil {
		return nil, fmt.Errorf("invalid value for --needs: must be ${{ toJSON(needs) }}: %w", err)
	}
	for _, id := range needs.ids() {
		switch result := needs[id].Result; result {
		case Success, Failure, Cancelled, Skipped:
		default:
			return nil, fmt.Errorf("invalid value for --needs: must be ${{ toJSON(needs) }}: the job %q has the result %q", id, result)
		}
	}
	return needs, nil
}

func (n Needs) ids() []string { return slices.Sorted(maps.Keys(n)) }

// cancelled reports whether a job was cancelled.
func (n Needs) cancelled() bool {
	for _, need := range n {
		if need.Result == Cancelled {
			return true
		}
	}
	return false
}

// discovery has the jobs in Needs that made the Plan.
type discovery struct {
	ids       []string // empty if it is not among the needs
	result    Status   // the worst
	hasMatrix bool     // its output arrived
}

// findDiscovery returns the jobs that made the Plan with the key planKey: those that name it, else
// those with several outputs of discover, else the job with the usual id, else those with one
// such output, because the id is the user's choice and other jobs may have an output of the same
// name.
func (n Needs) findDiscovery(planKey string) discovery {
	for _, made := range []func(id string, outputs map[string]string) bool{
		func(_ string, outputs map[string]string) bool { return job.SamePlan(outputs["plan"], planKey) },
		func(_ string, outputs map[string]string) bool { return countOutputs(outputs) > 1 },
		func(id string, _ map[string]string) bool { return id == "discover" },
		func(_ string, outputs map[string]string) bool { return countOutputs(outputs) > 0 },
	} {
		d := discovery{result: Success}
		for _, id := range n.ids() {
			need := n[id]
			if !made(id, need.Outputs) {
				continue
			}
			d.ids = append(d.ids, id)
			d.result = worse(d.result, need.Result)
			d.hasMatrix = d.hasMatrix || strings.TrimSpace(need.Outputs["matrix"]) != ""
		}
		if len(d.ids) > 0 {
			return d
		}
	}
	return discovery{}
}

// countOutputs returns the number of outputs with a name of one of discover.
func countOutputs(outputs map[string]string) int {
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
