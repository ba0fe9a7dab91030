package action_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/action"
)

func TestSecretsWithheld(t *testing.T) {
	const fork = `{"repository": {"full_name": "org/fleet"}, "pull_request": {"number": 7, "head": {"repo": {"full_name": "somebody/fleet"}}}}`
	const deleted = `{"repository": {"full_name": "org/fleet"}, "pull_request": {"number": 7, "head": {"repo": null}}}`
	const own = `{"repository": {"full_name": "org/fleet"}, "pull_request": {"number": 7, "head": {"repo": {"full_name": "Org/Fleet"}}}}`
	const none = `{"repository": {"full_name": "org/fleet"}}`
	for _, test := range []struct {
		name, event, content, actor string
		want                        bool
	}{
		{"a push", "push", none, "somebody", false},
		{"a branch of one's own", "pull_request", own, "somebody", false},
		{"a fork", "pull_request", fork, "somebody", true},
		{"a fork that was deleted", "pull_request", deleted, "somebody", true},
		{"a review of a fork", "pull_request_review", fork, "somebody", true},
		{"a comment on a fork", "pull_request_review_comment", fork, "somebody", true},
		{"a fork with the rights of the base", "pull_request_target", fork, "somebody", false},
		{"Dependabot's pull request", "pull_request", own, "dependabot[bot]", true},
		{"Dependabot's push", "push", none, "dependabot[bot]", true},
		{"a schedule that Dependabot has changed last", "schedule", none, "dependabot[bot]", false},
		{"what follows on Dependabot", "workflow_run", none, "dependabot[bot]", false},
		{"a merge queue", "merge_group", none, "somebody", false},
		{"somebody with such a name", "push", none, "dependabot", false},
		{"an event that can't be read", "pull_request", "{", "somebody", false},
		{"an event without a pull request", "pull_request", none, "somebody", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "event.json")
			if err := os.WriteFile(file, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			for running, want := range map[string]bool{"true": test.want, "": false} {
				a := action.New(env("GITHUB_ACTIONS", running, "GITHUB_EVENT_NAME", test.event, "GITHUB_EVENT_PATH", file, "GITHUB_ACTOR", test.actor), io.Discard)
				if got := a.SecretsWithheld(); got != want {
					t.Errorf("in GitHub Actions: %t, got %t", strings.EqualFold(running, "true"), got)
				}
			}
		})
	}
}
