package action_test

import (
	"bytes"
	"context"
	"errors"
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

// connect returns a client of a server, with short pauses.
func connect(t *testing.T, server *githubtest.Server) *action.GitHub {
	t.Helper()
	c := action.New(server.Getenv, nil).GitHubConfig()
	c.Wait, c.LimitedWait, c.MaxWait, c.Writes = time.Millisecond, time.Millisecond, time.Second, 0
	return client(t, c)
}

func client(t *testing.T, c action.GitHubConfig) *action.GitHub {
	t.Helper()
	g, err := action.NewGitHub(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

var (
	mayRead    = map[string]string{"actions": "read"}
	mayWrite   = map[string]string{"actions": "write"}
	mayComment = map[string]string{"pull-requests": "write"}
)

// expectError wants an error that is of a kind, if one is given, and says so.
func expectError(t *testing.T, err, kind error, says ...string) {
	t.Helper()
	if err == nil || kind != nil && !errors.Is(err, kind) {
		t.Errorf("the error is %v, want one that is %v", err, kind)
		return
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error %q does not say %q", err, text)
		}
	}
}

func expectRequests(t *testing.T, server *githubtest.Server, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, server.Requests()); diff != "" {
		t.Errorf("the requests differ:\n%s", diff)
	}
}

var day = 24 * time.Hour

// caches are many entries, the last of which is the oldest.
func caches(n int) []githubtest.Cache {
	now := time.Now().Truncate(time.Second)
	var all []githubtest.Cache
	for i := range n {
		created := now.Add(-time.Duration(i) * day)
		all = append(all, githubtest.Cache{Key: "a-" + strconv.Itoa(i), Ref: "refs/heads/main", Size: int64(1 + i), Created: created, Used: created.Add(time.Hour)})
	}
	return all
}

// All pages, the oldest first, and only what begins with the prefix.
func TestCaches(t *testing.T) {
	for _, base := range []string{"", "/api/v3"} {
		all := append(caches(250), githubtest.Cache{Key: "b-0"}, githubtest.Cache{Key: "xa-0"})
		server := githubtest.Start(t, githubtest.Options{Base: base, Permissions: mayRead, Caches: all})
		got, err := connect(t, server).Caches(t.Context(), "a-")
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 250 {
			t.Fatalf("%d entries, want 250", len(got))
		}
		oldest := all[249]
		want := action.CacheEntry{ID: oldest.ID, Key: "a-249", Ref: "refs/heads/main", Size: 250, Created: oldest.Created.UTC(), Used: oldest.Used.UTC()}
		if diff := cmp.Diff(want, got[0]); diff != "" {
			t.Errorf("the first differs:\n%s", diff)
		}
		const list = "GET /repos/org/fleet/actions/caches?direction=asc&key=a-"
		expectRequests(t, server, list+"&per_page=100&sort=created_at", list+"&page=2&per_page=100&sort=created_at", list+"&page=3&per_page=100&sort=created_at")
	}
}

func TestNoCaches(t *testing.T) {
	server := githubtest.Start(t, githubtest.Options{Permissions: mayRead})
	if got, err := connect(t, server).Caches(t.Context(), "a-"); err != nil || len(got) != 0 {
		t.Errorf("%v, %v, want nothing", got, err)
	}
}

func TestRemoveCache(t *testing.T) {
	server := githubtest.Start(t, githubtest.Options{Permissions: mayWrite, Caches: caches(3)})
	g := connect(t, server)
	entry := action.CacheEntry{ID: server.Caches()[1].ID, Key: "a-1"}
	for range 2 { // the second time it is gone already
		if err := g.RemoveCache(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}
	left := server.Caches()
	if len(left) != 2 || left[0].Key != "a-0" || left[1].Key != "a-2" {
		t.Errorf("left are %v", left)
	}
}

// For want of a permission, an error says which line to add.
func TestForbidden(t *testing.T) {
	entry := action.CacheEntry{ID: 1, Key: "a-0"}
	for name, test := range map[string]struct {
		options githubtest.Options
		do      func(context.Context, *action.GitHub) error
		says    []string
	}{
		"caches": {
			do:   func(ctx context.Context, g *action.GitHub) error { _, err := g.Caches(ctx, "a-"); return err },
			says: []string{"403 Resource not accessible by integration", "`actions: read` below `permissions:`"},
		},
		"caches of a repository that may not be known": {
			options: githubtest.Options{Hidden: true, Permissions: mayWrite},
			do:      func(ctx context.Context, g *action.GitHub) error { _, err := g.Caches(ctx, "a-"); return err },
			says:    []string{"404 Not Found", "`actions: read`"},
		},
		"remove": {
			options: githubtest.Options{Permissions: mayRead},
			do:      func(ctx context.Context, g *action.GitHub) error { return g.RemoveCache(ctx, entry) },
			says:    []string{"remove a-0", "`actions: write`"},
		},
		"read comments": {
			do: func(ctx context.Context, g *action.GitHub) error {
				return g.Comment(ctx, githubtest.PullRequest, "<!-- m -->\n", "text")
			},
			says: []string{"`pull-requests: write`"},
		},
		"write comments": {
			options: githubtest.Options{Permissions: map[string]string{"pull-requests": "read"}},
			do: func(ctx context.Context, g *action.GitHub) error {
				return g.Comment(ctx, githubtest.PullRequest, "<!-- m -->\n", "text")
			},
			says: []string{"`pull-requests: write`"},
		},
		"repository": {
			options: githubtest.Options{Hidden: true},
			do:      func(ctx context.Context, g *action.GitHub) error { _, err := g.Repository(ctx); return err },
			says:    []string{"org/fleet", "`contents: read`"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			test.options.Caches = caches(1)
			server := githubtest.Start(t, test.options)
			expectError(t, test.do(t.Context(), connect(t, server)), action.ErrForbidden, test.says...)
			if n := len(server.Requests()); n > 2 { // to comment takes two
				t.Errorf("%d requests: it was tried again in vain", n)
			}
			if len(server.Caches()) != 1 || len(server.Comments()) != 0 {
				t.Error("it was done all the same")
			}
		})
	}
}

// A server that says "not found" where a token may not remove.
func TestRemoveNotFound(t *testing.T) {
	server := githubtest.Start(t, githubtest.Options{Permissions: mayWrite, Caches: caches(1)})
	server.Fail(githubtest.Failure{Status: http.StatusNotFound})
	entry := action.CacheEntry{ID: server.Caches()[0].ID, Key: "a-0"}
	expectError(t, connect(t, server).RemoveCache(t.Context(), entry), action.ErrForbidden, "`actions: write`")
}

func TestWrongToken(t *testing.T) {
	server := githubtest.Start(t, githubtest.Options{Permissions: mayRead})
	c := action.New(server.Getenv, nil).GitHubConfig()
	c.Token = "ghs_expired"
	_, err := client(t, c).Caches(t.Context(), "a-")
	expectError(t, err, action.ErrForbidden, "401 Bad credentials", "NIX_MATRIX_GITHUB_TOKEN")
	if strings.Contains(err.Error(), c.Token) {
		t.Errorf("%v has the token", err)
	}
	c.Own = "NIX_MATRIX_PROPOSE_TOKEN"
	_, err = client(t, c).Caches(t.Context(), "a-")
	expectError(t, err, action.ErrForbidden, "401 Bad credentials", "Set another one in NIX_MATRIX_PROPOSE_TOKEN")
	for _, status := range []int{http.StatusForbidden, http.StatusNotFound} {
		server.Fail(githubtest.Failure{Status: status})
		_, err = client(t, c).Caches(t.Context(), "a-")
		expectError(t, err, action.ErrForbidden, "the GitHub App or the person's token in NIX_MATRIX_PROPOSE_TOKEN the permission `actions:")
		if strings.Contains(err.Error(), "permissions:` of the job") {
			t.Errorf("%v is about the job's token", err)
		}
	}
}

func TestConfig(t *testing.T) {
	environment := []string{"GITHUB_REPOSITORY", "org/fleet", "NIX_MATRIX_GITHUB_TOKEN", " secret\n", "GITHUB_ACTIONS", "true"}
	var log bytes.Buffer
	c := action.New(env(environment...), &log).GitHubConfig()
	if c.API != "https://api.github.com" || c.Token != "secret" {
		t.Errorf("%+v", c)
	}
	if log.String() != "::add-mask::secret\n" {
		t.Errorf("the log is %q", &log)
	}
	for _, change := range []func(*action.GitHubConfig){
		func(c *action.GitHubConfig) { c.Repository = "" },
		func(c *action.GitHubConfig) { c.Repository = "fleet" },
		func(c *action.GitHubConfig) { c.Repository = "a/b/c" },
		func(c *action.GitHubConfig) { c.API = "api.github.com" },
		func(c *action.GitHubConfig) { c.API = "https:///api" },
		func(c *action.GitHubConfig) { c.Token = "" },
	} {
		wrong := c
		change(&wrong)
		if _, err := action.NewGitHub(wrong); err == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
}

// A failed request is sent again.
func TestTryAgain(t *testing.T) {
	limited := map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": strconv.FormatInt(time.Now().Unix()-1, 10)}
	for name, failure := range map[string]githubtest.Failure{
		"server error":             {Status: http.StatusBadGateway},
		"broken connection":        {Status: http.StatusOK, Gone: true},
		"broken answer":            {Half: true},
		"limit with Retry-After":   {Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "0"}},
		"limit until a time":       {Status: http.StatusForbidden, Header: limited},
		"limit without a time":     {Status: http.StatusTooManyRequests},
		"secondary limit":          {Status: http.StatusForbidden, Secondary: true},
		"secondary limit with 429": {Status: http.StatusTooManyRequests, Secondary: true},
	} {
		t.Run(name, func(t *testing.T) {
			server := githubtest.Start(t, githubtest.Options{Permissions: mayRead, Caches: caches(2)})
			server.Fail(failure, failure)
			if got, err := connect(t, server).Caches(t.Context(), "a-"); err != nil || len(got) != 2 {
				t.Errorf("%v, %v", got, err)
			}
			if n := len(server.Requests()); n != 3 {
				t.Errorf("%d requests, want 3", n)
			}
		})
	}
}

// A limit that lasts for longer than is worth waiting is not waited for.
func TestLimited(t *testing.T) {
	reset := time.Now().Add(time.Hour)
	for name, test := range map[string]struct {
		failure githubtest.Failure
		says    string
	}{
		"Retry-After": {githubtest.Failure{Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "3600"}}, "later"},
		"Reset": {githubtest.Failure{Status: http.StatusForbidden, Header: map[string]string{
			"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": strconv.FormatInt(reset.Unix(), 10),
		}}, "until " + reset.UTC().Format("15:04 UTC")},
		"secondary": {githubtest.Failure{Status: http.StatusForbidden, Secondary: true, Header: map[string]string{"Retry-After": "3600"}}, "later"},
	} {
		t.Run(name, func(t *testing.T) {
			server := githubtest.Start(t, githubtest.Options{Permissions: mayRead})
			server.Fail(test.failure)
			_, err := connect(t, server).Caches(t.Context(), "a-")
			expectError(t, err, action.ErrLimited, test.says)
			if n := len(server.Requests()); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	}
}

// A budget that is used up is GitHub's to refuse, and ours to wait for: the client library
// itself refuses nothing.
func TestBudgetUsedUp(t *testing.T) {
	server := githubtest.Start(t, githubtest.Options{Permissions: mayRead, Caches: caches(150)})
	server.Fail(githubtest.Failure{Header: map[string]string{
		"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10),
	}})
	if got, err := connect(t, server).Caches(t.Context(), "a-"); err != nil || len(got) != 150 {
		t.Errorf("%d caches, %v", len(got), err)
	}
}

// The waits without a time that GitHub names become longer, and are told of.
func TestWaits(t *testing.T) {
	server := githubtest.Start(t, githubtest.Options{Permissions: mayRead})
	c := action.New(server.Getenv, nil).GitHubConfig()
	c.LimitedWait, c.MaxWait, c.Retries = 2*time.Millisecond, 10*time.Millisecond, 10
	waits := 0
	c.Log = func(string, ...any) { waits++ }
	failure := githubtest.Failure{Status: http.StatusForbidden, Secondary: true}
	server.Fail(failure, failure, failure, failure) // 2, 4, 8 ms, and 16 is too much
	_, err := client(t, c).Caches(t.Context(), "a-")
	expectError(t, err, action.ErrLimited)
	if waits != 3 {
		t.Errorf("it waited %d times, want 3", waits)
	}
}

func TestGivesUp(t *testing.T) {
	server := githubtest.Start(t, githubtest.Options{Permissions: mayRead})
	failure := githubtest.Failure{Status: http.StatusBadGateway}
	server.Fail(failure, failure, failure, failure, failure, failure)
	_, err := connect(t, server).Caches(t.Context(), "a-")
	expectError(t, err, nil, "cannot list the Actions cache", "502")
	if n := len(server.Requests()); n != 5 {
		t.Errorf("%d requests, want 5", n)
	}
}

func TestCancelled(t *testing.T) {
	server := githubtest.Start(t, githubtest.Options{Permissions: mayRead})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := connect(t, server).Caches(ctx, "a-")
	expectError(t, err, context.Canceled)
}

func TestRepository(t *testing.T) {
	for visibility, public := range map[string]bool{"public": true, "private": false, "internal": false} {
		server := githubtest.Start(t, githubtest.Options{Visibility: visibility})
		got, err := connect(t, server).Repository(t.Context())
		if want := (action.Repository{DefaultBranch: "main", Public: public}); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", visibility, got, err, want)
		}
	}
}

func TestComment(t *testing.T) {
	const bot = "github-actions[bot]"
	marker, other := action.CommentMarker("nix"), action.CommentMarker("nix-two")
	many := make([]githubtest.Comment, 150)
	for i := range many {
		many[i] = githubtest.Comment{Author: "anna", Body: "a comment"}
	}
	for name, test := range map[string]struct {
		login   string
		there   []githubtest.Comment
		want    []string // bodies, from the first that is not of many
		changes int
	}{
		"new":        {want: []string{marker + "text"}, changes: 1},
		"mine":       {there: []githubtest.Comment{{Author: bot, Body: marker + "old"}}, want: []string{marker + "text"}, changes: 1},
		"same":       {there: []githubtest.Comment{{Author: bot, Body: marker + "text"}}, want: []string{marker + "text"}},
		"other id":   {there: []githubtest.Comment{{Author: bot, Body: other + "old"}}, want: []string{other + "old", marker + "text"}, changes: 1},
		"pasted":     {there: []githubtest.Comment{{Author: "anna", Body: marker + "old"}}, want: []string{marker + "old", marker + "text"}, changes: 1},
		"quoted":     {there: []githubtest.Comment{{Author: bot, Body: "it said " + marker}}, want: []string{"it said " + marker, marker + "text"}, changes: 1},
		"own token":  {login: "anna", there: []githubtest.Comment{{Author: bot, Body: marker}, {Author: "anna", Body: marker}}, want: []string{marker, marker + "text"}, changes: 1},
		"the oldest": {there: []githubtest.Comment{{Author: bot, Body: marker}, {Author: bot, Body: marker}}, want: []string{marker + "text", marker}, changes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			changes := 0
			server := githubtest.Start(t, githubtest.Options{
				Permissions: mayComment, Login: test.login, Comments: append(many[:150:150], test.there...),
				Changed: func([]githubtest.Cache, []githubtest.Comment) { changes++ },
			})
			if err := connect(t, server).Comment(t.Context(), githubtest.PullRequest, marker, "text"); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range server.Comments()[150:] {
				got = append(got, c.Body)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("the comments differ:\n%s", diff)
			}
			if changes != test.changes {
				t.Errorf("%d changes, want %d", changes, test.changes)
			}
		})
	}
}

// A comment that may have been made though nobody said so is not made again.
func TestCommentOnce(t *testing.T) {
	marker := action.CommentMarker("nix")
	server := githubtest.Start(t, githubtest.Options{Permissions: mayComment})
	server.Fail(githubtest.Failure{}, githubtest.Failure{Gone: true})
	if err := connect(t, server).Comment(t.Context(), githubtest.PullRequest, marker, "text"); err == nil {
		t.Error("no error")
	}
	if n := len(server.Comments()); n != 1 {
		t.Errorf("%d comments, want 1", n)
	}
	limit := githubtest.Failure{Status: http.StatusForbidden, Secondary: true}
	server = githubtest.Start(t, githubtest.Options{Permissions: mayComment})
	server.Fail(githubtest.Failure{}, limit) // which has done nothing
	if err := connect(t, server).Comment(t.Context(), githubtest.PullRequest, marker, "text"); err != nil || len(server.Comments()) != 1 {
		t.Errorf("%v, %v", server.Comments(), err)
	}
}

func TestCommentTooLong(t *testing.T) {
	server := githubtest.Start(t, githubtest.Options{Permissions: mayComment})
	g := connect(t, server)
	expectError(t, g.Comment(t.Context(), githubtest.PullRequest, "", strings.Repeat("ä", action.MaxComment+1)), nil, "65537 characters")
	if err := g.Comment(t.Context(), githubtest.PullRequest, "", strings.Repeat("ä", action.MaxComment)); err != nil {
		t.Error(err)
	}
}

func TestPullRequest(t *testing.T) {
	const (
		same    = `{"pull_request": {"number": 7, "head": {"repo": {"full_name": "Org/fleet"}}}, "repository": {"full_name": "org/fleet"}}`
		fork    = `{"pull_request": {"number": 7, "head": {"repo": {"full_name": "anna/fleet"}}}, "repository": {"full_name": "org/fleet"}}`
		deleted = `{"pull_request": {"number": 7, "head": {"repo": null}}, "repository": {"full_name": "org/fleet"}}`
	)
	for name, test := range map[string]struct {
		event, payload string
		want           action.PullRequest
		err            bool
	}{
		"push":    {event: "push", payload: `{}`},
		"same":    {event: "pull_request", payload: same, want: action.PullRequest{Number: 7}},
		"fork":    {event: "pull_request", payload: fork, want: action.PullRequest{Number: 7, Fork: true}},
		"deleted": {event: "pull_request", payload: deleted, want: action.PullRequest{Number: 7, Fork: true}},
		"target":  {event: "pull_request_target", payload: fork},
		"strange": {event: "pull_request", payload: `{}`, err: true},
		"no JSON": {event: "pull_request", payload: `x`, err: true},
	} {
		file := filepath.Join(t.TempDir(), "event.json")
		if err := os.WriteFile(file, []byte(test.payload), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := action.New(env("GITHUB_EVENT_NAME", test.event, "GITHUB_EVENT_PATH", file), nil).PullRequest()
		if got != test.want || (err != nil) != test.err {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := action.New(env("GITHUB_EVENT_NAME", "pull_request"), nil).PullRequest(); err == nil {
		t.Error("an event that can't be read is none")
	}
}
