package action_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/org/nix-matrix/pkg/action"
)

func TestDefaultBranch(t *testing.T) {
	event := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(event, []byte(`{"repository": {"default_branch": "trunk", "private": false}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		running, name, ref, kind, event string
		want                            bool
	}{
		{"true", "push", "trunk", "branch", event, true},
		{"true", "workflow_dispatch", "trunk", "branch", event, true},
		{"true", "schedule", "trunk", "branch", "", true},
		{"true", "push", "trunk", "branch", "nosuch", false},
		{"true", "push", "main", "branch", event, false},
		{"true", "push", "trunk", "tag", event, false},
		{"true", "pull_request", "7/merge", "branch", event, false},
		{"true", "pull_request_target", "trunk", "branch", event, false},
		{"true", "merge_group", "gh-readonly-queue/trunk/pr-7", "branch", event, false},
		{"true", "workflow_run", "trunk", "branch", event, false},
		{"", "push", "trunk", "branch", event, false},
		{"true", "schedule", "", "branch", "", false},
	} {
		a := action.New(env("GITHUB_ACTIONS", test.running, "GITHUB_EVENT_NAME", test.name, "GITHUB_REF_NAME", test.ref, "GITHUB_REF_TYPE", test.kind, "GITHUB_EVENT_PATH", test.event), io.Discard)
		if branch, ok := a.DefaultBranch(); ok != test.want || ok && branch != test.ref {
			t.Errorf("%+v: %q, %t", test, branch, ok)
		}
	}
}
