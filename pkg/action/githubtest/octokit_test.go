package githubtest_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/action/githubtest"
)

// TestOfficialClient asks a server with the npm package @actions/github, which comes
// with @actions/artifact. What it sees must be what it sees at GitHub.
func TestOfficialClient(t *testing.T) {
	options := githubtest.Options{
		Base:        "/api/v3",
		Permissions: map[string]string{"actions": "write", "pull-requests": "write", "checks": "write"},
		Comments:    []githubtest.Comment{{Author: "anna", Body: "first"}},
	}
	for i := range 130 {
		created := time.Now().Add(-time.Duration(i) * time.Hour)
		options.Caches = append(options.Caches, githubtest.Cache{Key: "a-" + strconv.Itoa(i), Created: created, Used: created})
	}
	options.Caches = append(options.Caches, githubtest.Cache{Key: "b-0", Created: time.Now()})
	server := githubtest.Start(t, options)
	cmd := exec.CommandContext(t.Context(), testbench.Program(t, "node"), "testdata/octokit.mjs")
	cmd.Env = append(os.Environ(), "CLIENT="+testbench.Path(t, "npm/node_modules/@actions/github/lib/github.js"))
	for name, value := range server.Env() {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%v", err, &log, server.Requests())
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := map[string]any{
		"caches": 130., "oldest": "a-129", "total": 131.,
		"created": 201., "updated": "updated",
		"comments": []any{"anna first", "github-actions[bot] updated"},
		"checks":   []any{"201 in_progress null", "200 completed failure"},
		"newest":   []any{"b skipped title github-actions"}, "all": []any{"a", "b"},
		"refused":   []any{422., 422., 422., 422., 422., 422., 422., 422., 422., 404.},
		"annotated": 201.,
		"branch":    "main",
		"user":      403., "removed": 204., "again": 404., "unknown": 404.,
		"unversioned": 400., // at GitHub it would be the usual one, but we always want to say it
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("it sees something else:\n%s", diff)
	}
}
