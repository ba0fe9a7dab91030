package action

import (
	"fmt"
	"strings"
)

// dependabot is the actor of runs that Dependabot has started.
const dependabot = "dependabot[bot]"

// SecretsWithheld reports whether GitHub gives this job none of the repository's secrets,
// because its change comes from a fork or Dependabot has started it. For an event that
// can't be read it is false.
func (a *Action) SecretsWithheld() bool {
	if !a.Running() {
		return false
	}
	byDependabot := a.getenv("GITHUB_ACTOR") == dependabot
	switch a.getenv("GITHUB_EVENT_NAME") {
	case "pull_request", "pull_request_review", "pull_request_review_comment":
		e, err := a.readEvent()
		head := e.PullRequest.Head.Repo // nil for a fork that was deleted
		fork := err == nil && e.PullRequest.Number > 0 && (head == nil || !strings.EqualFold(head.FullName, e.Repository.FullName))
		return fork || byDependabot
	case "push", "create", "deployment", "deployment_status":
		return byDependabot
	default: // which run with the rights of the default branch
		return false
	}
}

// ForeignChange returns why the change of this job may be that of a stranger, in a clause, or an empty text if
// a person with write access to the repository has made or queued it. Dependabot's changes are foreign, too.
func (a *Action) ForeignChange() string {
	t := a.Trust()
	switch {
	case a.SecretsWithheld():
		return "it is a pull request from a fork, or Dependabot has started it"
	case !t.Proposed(), t.Event == "push", t.Event == "merge_group":
		return ""
	case t.Event != "pull_request":
		return fmt.Sprintf("a run for the event %q may be about anybody's change", t.Event)
	}
	pull, err := a.PullRequest()
	switch {
	case err != nil:
		return err.Error()
	case pull.Fork:
		return "it is a pull request from a fork"
	}
	return ""
}
