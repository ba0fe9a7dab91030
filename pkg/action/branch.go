package action

import (
	"encoding/json"
	"os"
)

// event is what there is to know of what started the workflow, as the runner writes
// it for each event.
type event struct {
	Repository struct {
		Private       *bool
		DefaultBranch string `json:"default_branch"`
	}
}

// readEvent reads it. What can't be read says nothing.
func (a *Action) readEvent() event {
	var e event
	if data, err := os.ReadFile(a.getenv("GITHUB_EVENT_PATH")); err == nil {
		_ = json.Unmarshal(data, &e)
	}
	return e
}

// DefaultBranch gives the branch that this job is for, if it is the default branch of
// its repository, whose own state the job has checked out. That is not so for pull
// requests and merge queues, whatever ref they run on.
func (a *Action) DefaultBranch() (branch string, ok bool) {
	if !a.Running() || a.getenv("GITHUB_REF_TYPE") == "tag" {
		return "", false
	}
	branch = a.getenv("GITHUB_REF_NAME")
	switch a.getenv("GITHUB_EVENT_NAME") {
	case "schedule": // for no other branch
		return branch, branch != ""
	case "push", "workflow_dispatch", "repository_dispatch":
		return branch, branch != "" && branch == a.readEvent().Repository.DefaultBranch
	default:
		return "", false
	}
}
