package action_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
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
		proposed := strings.HasPrefix(test.name, "pull_request") || test.name == "merge_group"
		if got := a.Proposed(); got != (proposed && test.running == "true") {
			t.Errorf("%+v: proposed is %t", test, got)
		}
	}
}

func TestPublic(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer t0ken":
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Path == "/api/repos/org/private":
			_, _ = io.WriteString(w, `{"name": "private", "private": true}`)
		case r.URL.Path == "/api/repos/org/public":
			_, _ = io.WriteString(w, `{"name": "public", "private": false}`)
		default:
			_, _ = io.WriteString(w, `{"private"`)
		}
	}))
	defer server.Close()
	event := filepath.Join(t.TempDir(), "event.json")
	for name, test := range map[string]struct {
		event, repository, token string
		running, public          bool
	}{
		"not in Actions":             {`{"repository": {"private": false}}`, "org/public", "t0ken", false, false},
		"the event says private":     {`{"repository": {"private": true, "visibility": "internal"}}`, "org/public", "t0ken", true, false},
		"the event says public":      {`{"repository": {"private": false}}`, "org/private", "t0ken", true, true},
		"the API says private":       {`{"schedule": "0 0 * * *"}`, "org/private", "t0ken", true, false},
		"the API says public":        {`{}`, "org/public", "t0ken", true, true},
		"a repository of no meaning": {`{"repository": {}}`, "org/private", "t0ken", true, false},
		"no token":                   {`{}`, "org/private", "", true, true},
		"the API says nonsense":      {`{}`, "org/other", "t0ken", true, true},
		"an event that is none":      {`[`, "", "", true, true},
	} {
		if err := os.WriteFile(event, []byte(test.event), 0o600); err != nil {
			t.Fatal(err)
		}
		env := map[string]string{"GITHUB_EVENT_PATH": event, "GITHUB_API_URL": server.URL + "/api", "GITHUB_REPOSITORY": test.repository, action.GitHubVariable: test.token}
		if test.running {
			env["GITHUB_ACTIONS"] = "true"
		}
		a := action.New(func(name string) string { return env[name] }, io.Discard)
		if got := a.Public(t.Context()); got != test.public {
			t.Errorf("%s: public is %v", name, got)
		}
	}
}

// What a job may read, its own first. It always has one.
func TestRefs(t *testing.T) {
	event := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(event, []byte(`{"repository": {"default_branch": "main"}, "merge_group": {"base_ref": "refs/heads/next"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, env := range map[string]map[string]string{
		"[local]":            {"GITHUB_REF": "refs/heads/topic"},
		"[refs/heads/topic]": {"GITHUB_ACTIONS": "true", "GITHUB_REF": "refs/heads/topic"},
		"[local refs/heads/next refs/heads/main]": {"GITHUB_ACTIONS": "true", "GITHUB_EVENT_PATH": event},
		"[refs/pull/7/merge refs/heads/next refs/heads/main]": {
			"GITHUB_ACTIONS": "true", "GITHUB_EVENT_PATH": event, "GITHUB_REF": "refs/pull/7/merge", "GITHUB_BASE_REF": "main",
		},
	} {
		a := action.New(func(name string) string { return env[name] }, io.Discard)
		if got := fmt.Sprint(a.Refs()); got != want {
			t.Errorf("%v may read %s, want %s", env, got, want)
		}
	}
}
