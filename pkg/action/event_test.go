package action_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/org/nix-matrix/pkg/action"
)

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
