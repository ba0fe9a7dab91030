package action_test

import (
	"fmt"
	"testing"

	"github.com/org/nix-matrix/pkg/action"
)

func TestScopes(t *testing.T) {
	const main, next = "refs/heads/main", "refs/heads/next"
	for _, test := range []struct {
		name  string
		trust action.Trust
		want  string // the one that is written, and the others
	}{
		{"outside", action.Trust{}, "[{local } { }]"},
		{"push to the default branch", action.Trust{Event: "push", Ref: main}, "[{ }]"},
		{"schedule", action.Trust{Event: "schedule", Ref: main}, "[{ }]"},
		{"push to a branch", action.Trust{Event: "push", Ref: next}, "[{branches o/r refs/heads/next} { }]"},
		{"push of a tag", action.Trust{Event: "push", Ref: "refs/tags/v1"}, "[{branches o/r refs/tags/v1} { }]"},
		{"pull request", action.Trust{Event: "pull_request", Ref: "refs/pull/7/merge", BaseRefs: []string{next}},
			"[{proposals o/r refs/pull/7/merge} {branches o/r refs/heads/next} { }]"},
		{"pull request to the default branch", action.Trust{Event: "pull_request", Ref: "refs/pull/7/merge", BaseRefs: []string{main}},
			"[{proposals o/r refs/pull/7/merge} { }]"},
		{"merge queue", action.Trust{Event: "merge_group", Ref: "refs/heads/gh-readonly-queue/next/pr-7", BaseRefs: []string{next}},
			"[{proposals o/r refs/heads/gh-readonly-queue/next/pr-7} {branches o/r refs/heads/next} { }]"},
		{"push of a merge queue", action.Trust{Event: "push", Ref: "refs/heads/gh-readonly-queue/main/pr-7"},
			"[{proposals o/r refs/heads/gh-readonly-queue/main/pr-7} { }]"},
		{"comment", action.Trust{Event: "issue_comment", Ref: main}, "[{proposals o/r refs/heads/main} { }]"},
		{"pull_request_target", action.Trust{Event: "pull_request_target", Ref: main, BaseRefs: []string{next}},
			"[{proposals o/r refs/heads/main} {branches o/r refs/heads/next} { }]"},
		{"unknown event", action.Trust{Event: "an_event_to_come", Ref: main}, "[{proposals o/r refs/heads/main} { }]"},
		{"no ref", action.Trust{Event: "an_event_to_come"}, "[{proposals o/r local} { }]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name != "outside" {
				test.trust.Running, test.trust.DefaultBranch = true, "main"
			}
			if got := fmt.Sprint(test.trust.Scopes("o/r")); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	unknown := action.Trust{Running: true, Event: "push", Ref: main}
	if got := fmt.Sprint(unknown.Scopes("o/r")); got != "[{branches o/r refs/heads/main}]" {
		t.Errorf("without the name of the default branch: %s", got)
	}
}
