package action_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/action/githubtest"
)

const (
	headCommit  = "0123456789012345678901234567890123456789"
	mergeCommit = "abcdefabcdefabcdefabcdefabcdefabcdefabcd"
	prefix      = "nix-matrix/nix/0011/"
)

var mayCheck = map[string]string{"checks": "write"}

// checkOf is the check of a target that has this outcome.
func checkOf(name string, conclusion action.CheckConclusion) action.CheckRun {
	return action.CheckRun{
		ExternalID: prefix + name, Name: "nix: " + name, Conclusion: conclusion, Title: "Title", Summary: "`" + name + "`\n", Took: time.Minute,
		DetailsURL: "https://github.com/org/fleet/actions/runs/5",
	}
}

func checksOf(n int, conclusion action.CheckConclusion) []action.CheckRun {
	all := make([]action.CheckRun, n)
	for i := range all {
		all[i] = checkOf(strconv.Itoa(i), conclusion)
	}
	return all
}

// shown are names and conclusions of check runs.
func shown(server *githubtest.Server) map[string]string {
	all := map[string]string{}
	for _, c := range server.CheckRuns() {
		all[fmt.Sprintf("%s %s %d", c.Name, c.HeadSHA[:4], c.ID)] = fmt.Sprintf("%s %s changed %d times", c.Status, c.Conclusion, c.Revisions)
	}
	return all
}

func writeChecks(t *testing.T, g *action.GitHub, checks ...action.CheckRun) {
	t.Helper()
	if left, err := g.WriteChecks(t.Context(), headCommit, prefix, checks); err != nil || left != 0 {
		t.Fatalf("%d are left: %v", left, err)
	}
}

// A rerun changes the check runs that say something else now, and no others.
func TestWriteChecks(t *testing.T) {
	for _, base := range []string{"", "/api/v3"} {
		server := githubtest.Start(t, githubtest.Options{Base: base, Permissions: mayCheck, Heads: []string{headCommit}, CheckRuns: []githubtest.CheckRun{
			{HeadSHA: headCommit, Name: "nix: a", ExternalID: "nix-matrix/other/0011/a", Status: "completed", Conclusion: "success"},
			{HeadSHA: mergeCommit, Name: "nix: a", ExternalID: prefix + "a", Status: "completed", Conclusion: "success"},
		}})
		g := connect(t, server)
		writeChecks(t, g, checkOf("a", action.CheckFailure), checkOf("b", action.CheckSuccess), checkOf("gone", action.CheckFailure))
		requests := len(server.Requests())
		writeChecks(t, g, checkOf("a", action.CheckSuccess), checkOf("b", action.CheckSuccess))
		if n := len(server.Requests()) - requests; n != 3 { // list, a, gone
			t.Errorf("%d requests, want 3: %v", n, server.Requests())
		}
		writeChecks(t, g, checkOf("a", action.CheckSuccess), checkOf("b", action.CheckSuccess))
		want := map[string]string{
			"nix: a 0123 1": "completed success changed 0 times", "nix: a abcd 2": "completed success changed 0 times",
			"nix: a 0123 3": "completed success changed 1 times", "nix: b 0123 4": "completed success changed 0 times",
			"nix: gone 0123 5": "completed neutral changed 1 times",
		}
		got := shown(server)
		for name, says := range got { // several are written at the same time, in any order
			if want[name] == "" {
				for id := 3; id <= 5; id++ {
					if other := name[:len(name)-1] + strconv.Itoa(id); want[other] != "" && got[other] == "" {
						delete(got, name)
						got[other] = says
					}
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("check runs (-want +got):\n%s", diff)
		}
		for _, c := range server.CheckRuns()[2:] {
			if took := c.CompletedAt.Sub(c.StartedAt); c.Revisions == 0 && took != time.Minute {
				t.Errorf("%s took %v", c.Name, took)
			}
		}
	}
}

// Check runs of another app may not be changed, whatever they are called.
func TestChecksOfAnotherApp(t *testing.T) {
	server := githubtest.Start(t, githubtest.Options{Permissions: mayCheck, CheckRuns: []githubtest.CheckRun{
		{App: "other", HeadSHA: headCommit, Name: "nix: a", ExternalID: prefix + "a", Status: "completed", Conclusion: "failure"},
	}})
	g := connect(t, server)
	for range 2 {
		writeChecks(t, g, checkOf("a", action.CheckSuccess))
	}
	want := map[string]string{"nix: a 0123 1": "completed failure changed 0 times", "nix: a 0123 2": "completed success changed 0 times"}
	if diff := cmp.Diff(want, shown(server)); diff != "" {
		t.Errorf("check runs (-want +got):\n%s", diff)
	}
}

// Five hundred checks are written though GitHub takes only so many at a time, and each once; then a rerun writes those
// that are new.
func TestManyChecks(t *testing.T) {
	server := githubtest.Start(t, githubtest.Options{Permissions: mayCheck, Writes: 80})
	g := connect(t, server)
	checks := checksOf(500, action.CheckSkipped)
	writeChecks(t, g, checks...)
	if n := len(server.CheckRuns()); n != 500 {
		t.Fatalf("there are %d check runs", n)
	}
	requests := len(server.Requests())
	if requests > 520 {
		t.Errorf("%d requests for 500 check runs", requests)
	}
	checks[7].Conclusion = action.CheckFailure
	writeChecks(t, g, checks...)
	if n := len(server.Requests()) - requests; n != 5+1 {
		t.Errorf("%d requests for one that has changed, want 5 pages and 1", n)
	}
}

// GitHub says when it takes requests again: what that is too long for is left, and the reason told.
func TestChecksAreLeft(t *testing.T) {
	later := githubtest.Options{Permissions: mayCheck, Writes: 80, RetryAfter: 3600}
	for name, test := range map[string]struct {
		options githubtest.Options
		fail    []githubtest.Failure
		kind    error
		left    int
		most    int // requests
		says    string
	}{
		"a limit":         {options: later, kind: action.ErrLimited, left: 420, most: 90, says: "later"},
		"no permission":   {kind: action.ErrForbidden, left: 500, most: 1, says: "Add the line `checks: write` below `permissions:` of the job"},
		"only to read":    {options: githubtest.Options{Permissions: map[string]string{"checks": "read"}}, kind: action.ErrForbidden, left: 500, most: 5, says: "`checks: write`"},
		"another commit":  {options: githubtest.Options{Permissions: mayCheck, Heads: []string{mergeCommit}}, left: 500, most: 20, says: "No commit found for SHA"},
		"a used-up limit": {options: githubtest.Options{Permissions: mayCheck}, fail: []githubtest.Failure{{Header: map[string]string{"X-RateLimit-Remaining": "99"}}}, kind: action.ErrLimited, left: 500, most: 1, says: "but for 99 requests, which are left to other jobs"},
	} {
		t.Run(name, func(t *testing.T) {
			server := githubtest.Start(t, test.options)
			server.Fail(test.fail...)
			left, err := connect(t, server).WriteChecks(t.Context(), headCommit, prefix, checksOf(500, action.CheckSuccess))
			expectError(t, err, test.kind, test.says)
			if left != test.left {
				t.Errorf("%d are left, want %d", left, test.left)
			}
			if n := len(server.Requests()); n > test.most {
				t.Errorf("%d requests, want at most %d", n, test.most)
			}
		})
	}
}

// A request whose answer is lost has made its check run: none is made twice.
func TestChecksOnce(t *testing.T) {
	for name, failure := range map[string]githubtest.Failure{
		"no answer": {Status: 0, Gone: true}, "half an answer": {Half: true}, "server error": {Status: http.StatusBadGateway},
	} {
		t.Run(name, func(t *testing.T) {
			server := githubtest.Start(t, githubtest.Options{Permissions: mayCheck})
			server.Fail(githubtest.Failure{}, failure) // the list is answered
			writeChecks(t, connect(t, server), checksOf(3, action.CheckSuccess)...)
			if n := len(server.CheckRuns()); n != 3 {
				t.Errorf("there are %d check runs", n)
			}
		})
	}
}

func TestChecksEnd(t *testing.T) {
	server := githubtest.Start(t, githubtest.Options{Permissions: mayCheck})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if left, err := connect(t, server).WriteChecks(ctx, headCommit, prefix, checksOf(3, action.CheckSuccess)); left != 3 || err == nil {
		t.Errorf("%d are left, %v", left, err)
	}
}

// The checks of a pull request are those of its head, not of the merge that is built.
func TestCheckedCommit(t *testing.T) {
	for name, test := range map[string]struct {
		event, sha, payload string
		want, says          string
	}{
		"push":                 {event: "push", sha: mergeCommit, payload: `{}`, want: mergeCommit},
		"schedule":             {event: "schedule", sha: mergeCommit, payload: `{}`, want: mergeCommit},
		"merge queue":          {event: "merge_group", sha: mergeCommit, payload: `{}`, want: mergeCommit},
		"pull request":         {event: "pull_request", sha: mergeCommit, payload: `{"pull_request": {"number": 7, "head": {"sha": "` + headCommit + `"}}}`, want: headCommit},
		"without a head":       {event: "pull_request", sha: mergeCommit, payload: `{"pull_request": {"number": 7}}`, says: "has no commit"},
		"an unreadable event":  {event: "pull_request", sha: mergeCommit, payload: `{`, says: "cannot read the event"},
		"no commit":            {event: "push", payload: `{}`, says: "has no commit"},
		"an odd commit":        {event: "push", sha: "../x", payload: `{}`, says: "has no commit"},
		"of a pull request":    {event: "pull_request_target", sha: mergeCommit, payload: `{"pull_request": {"head": {"sha": "` + headCommit + `"}}}`},
		"after another run":    {event: "workflow_run", sha: mergeCommit, payload: `{}`},
		"an event of tomorrow": {event: "new", sha: mergeCommit, payload: `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "event.json")
			if err := os.WriteFile(file, []byte(test.payload), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := action.New(env("GITHUB_ACTIONS", "true", "GITHUB_EVENT_NAME", test.event, "GITHUB_SHA", test.sha, "GITHUB_EVENT_PATH", file), nil).CheckedCommit()
			if got != test.want || (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
