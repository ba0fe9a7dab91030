package action

import "strings"

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
