package verdict

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// A Refusal says why a Plan is not judged. The verdict is then red.
type Refusal struct {
	Reason string // in one line, without foreign text
	Next   string // the next step; foreign text in it is code
	Detail string // foreign text
}

const (
	reasonDropped = "the matrix did not arrive, so nothing was built: the runner drops an output that contains the value of a secret"
	nextDropped   = "The name or the path of a host or a package contains a secret, most likely a short one. " +
		"Change the secret, or rename the host or package. The log of discovery has the warning “Skip output 'matrix' since it may contain secret”; " +
		"if it has not, add `matrix` and `plan` to the `outputs` of the job."

	exportPlan = "export the output `plan` of the discover job: `outputs: { plan: '${{ steps.ID.outputs.plan }}' }` with the id of its step, in addition to `matrix` and `count`."
)

// A claim is the key of a Plan in the outputs of a job that says it made it.
type claim struct {
	job, key string
}

// claims returns the Plans that jobs name for the use of nix-matrix with an id, each once for a
// job: in the output plan, and in the rows of the output matrix.
func (n Needs) claims(id string) []claim {
	var all []claim
	for _, name := range n.ids() {
		keys := []string{n[name].Outputs["plan"]}
		for _, row := range matrixRows(n[name].Outputs["matrix"]) {
			keys = append(keys, row.Plan)
		}
		for _, key := range keys {
			c := claim{name, strings.TrimSpace(key)}
			if named, ok := job.PlanKeyID(c.key); ok && named == id && !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	return all
}

// PlanKey returns the key of the Plan that jobs name for an id, empty if they name none or
// several.
func (n Needs) PlanKey(id string) string {
	claims := n.claims(id)
	if len(claims) == 0 || slices.ContainsFunc(claims, func(c claim) bool { return !job.SamePlan(c.key, claims[0].key) }) {
		return ""
	}
	return claims[0].key
}

// A matrixRow has the fields that identify a row of a matrix.
type matrixRow struct {
	ID   string `json:"id"`
	Plan string `json:"plan"`
}

// matrixRows returns the rows of the output matrix, none for other text.
func matrixRows(text string) []matrixRow {
	var matrix struct {
		Include []matrixRow `json:"include"`
	}
	if json.Unmarshal([]byte(text), &matrix) != nil {
		return nil
	}
	return matrix.Include
}

// check returns a Refusal unless the Plan with a key is the one that the discover job names in
// Needs.
func (n Needs) check(plan *job.Plan, key string) *Refusal {
	id, ok := job.PlanKeyID(key)
	claims := n.claims(id)
	if !ok || len(claims) == 0 {
		return n.noPlanNamed()
	}
	made := claims[0]
	for _, c := range claims[1:] {
		if !job.SamePlan(made.key, c.key) {
			return ambiguous(id, made, c)
		}
	}
	if plan.ID != id || !job.SamePlan(made.key, key) {
		return wrongPlan(plan, id, made)
	}
	for _, c := range claims {
		if refusal := sameEntries(plan, n[c.job].Outputs); refusal != nil {
			return refusal
		}
	}
	return nil
}

// noPlanNamed returns the Refusal if no job names a Plan.
func (n Needs) noPlanNamed() *Refusal {
	switch d := n.findDiscovery(""); {
	case len(d.ids) == 0:
		return &Refusal{
			Reason: "the plan to judge is unknown, because no job in needs names one",
			Next:   "Add the discover job to the `needs` of the report job, pass it toJSON(needs), and " + exportPlan,
		}
	case d.result != Success:
		return &Refusal{Reason: "discovery did not succeed, and names no plan", Next: "See the log of the discover job."}
	case !d.hasMatrix && !n.renamedOutputs(d.ids):
		return &Refusal{Reason: reasonDropped, Next: nextDropped}
	default:
		return &Refusal{
			Reason: "the plan to judge is unknown, because discovery names none",
			Next:   "To let the report identify the plan of this run, " + exportPlan,
		}
	}
}

// renamedOutputs reports whether jobs have outputs, but none with the name of one of discover.
func (n Needs) renamedOutputs(ids []string) bool {
	return slices.ContainsFunc(ids, func(id string) bool { return len(n[id].Outputs) > 0 && countOutputs(n[id].Outputs) == 0 })
}

// ambiguous returns the Refusal if jobs name two Plans for one id.
func ambiguous(id string, a, b claim) *Refusal {
	who := fmt.Sprintf("The job %s names", text.Code(a.job, 100))
	if a.job != b.job {
		who = fmt.Sprintf("The jobs %s and %s name", text.Code(a.job, 100), text.Code(b.job, 100))
	}
	return &Refusal{
		Reason: "two uses of nix-matrix in this workflow have the same id",
		Next: fmt.Sprintf("%s two plans of the id %s, which overwrite each other's artifacts. Give each use an `id` of its own, in all of its jobs.",
			who, text.Code(id, 100)),
	}
}

// wrongPlan returns the Refusal of a Plan that is not the one that a job names.
func wrongPlan(plan *job.Plan, id string, made claim) *Refusal {
	of := "another plan"
	if plan.Run != 0 {
		of = fmt.Sprintf("a plan that was made in the run %d, attempt %d", plan.Run, plan.Attempt)
	}
	return &Refusal{
		Reason: "the plan that arrived is not the one that discovery made",
		Next: fmt.Sprintf("The job %s names the plan %s, and the artifact %s has %s. If this workflow uses nix-matrix twice, give each use an `id` of its own: "+
			"with the same `id` they overwrite each other's artifacts. If not, another job has replaced the artifact: rerun all jobs, and check which jobs can write artifacts in this run.",
			text.Code(made.job, 100), text.Code(made.key, 200), text.Code(id+".plan", 100), of),
	}
}

// sameEntries returns a Refusal unless the other outputs of the job that made a Plan agree with
// it. A missing output agrees.
func sameEntries(plan *job.Plan, outputs map[string]string) *Refusal {
	const next = "The outputs `matrix`, `count` and `plan` must be those of one discover step. Rerun all jobs."
	if count := strings.TrimSpace(outputs["count"]); count != "" && count != strconv.Itoa(len(plan.Entries)) {
		says := "something else"
		if n, err := strconv.Atoi(count); err == nil {
			says = strconv.Itoa(n)
		}
		return &Refusal{Reason: fmt.Sprintf("the plan has %s, and the count of discovery is %s", text.Plural(len(plan.Entries), "entry", "entries"), says), Next: next}
	}
	matrix := outputs["matrix"]
	if strings.TrimSpace(matrix) == "" {
		return nil // the verdict handles it
	}
	rows := map[string]bool{}
	for _, row := range matrixRows(matrix) {
		rows[row.ID] = true
	}
	differs := len(rows) != len(plan.Entries) || len(matrixRows(matrix)) != len(rows)
	for i := range plan.Entries {
		differs = differs || !rows[plan.Entries[i].ID]
	}
	if differs {
		return &Refusal{Reason: "the matrix of discovery does not have the entries of the plan", Next: next}
	}
	return nil
}

// Unreadable returns the Refusal of a Plan that arrived but cannot be read.
func Unreadable(err error) *Refusal {
	return &Refusal{
		Reason: "the plan that arrived cannot be read",
		Next:   "All jobs need the same version of nix-matrix and the same `encryption_key`. If they have them, another job has replaced the artifact: rerun all jobs.",
		Detail: err.Error(),
	}
}

// OtherRun returns a Refusal unless a Plan belongs to a run. The attempt of the Plan may be an
// earlier one, because a rerun of failed jobs keeps the Plan.
func OtherRun(plan *job.Plan, run int64, attempt int) *Refusal {
	if plan.Run == run && plan.Attempt <= attempt {
		return nil
	}
	return &Refusal{
		Reason: "the plan that arrived is of another run",
		Next:   fmt.Sprintf("It was made in the run %d, attempt %d, and this is the run %d, attempt %d. Rerun all jobs.", plan.Run, plan.Attempt, run, attempt),
	}
}

// Refuse returns the verdict on a run whose Plan is not judged.
func Refuse(r *Refusal, needs Needs) *Verdict {
	j := &judgement{
		v:         &Verdict{Cancelled: needs.cancelled(), Targets: []Target{}, Refused: true},
		needs:     needs,
		discovery: needs.findDiscovery(""),
	}
	j.jobs(true)
	v := j.v
	v.Status, v.Reason, v.Next = Failure, r.Reason, r.Next
	if r.Detail != "" {
		v.Entries = append(v.Entries, EntryProblem{Name: "plan", Status: Failure, Message: r.Detail})
	}
	if v.Cancelled {
		v.Reason += "; the run was also cancelled"
	}
	return v
}
