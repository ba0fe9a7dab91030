package action_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/action/githubtest"
)

const baseCommit = "0123456789abcdef0123456789abcdef01234567"

var mayPropose = map[string]string{"contents": "write", "pull-requests": "write"}

// pullServer is a repository with one commit.
func pullServer(t *testing.T, with githubtest.Options) *githubtest.Server {
	with.Commits = map[string]githubtest.Commit{baseCommit: {Message: "first", Files: map[string]string{"flake.lock": "old", "flake.nix": "{ }"}}}
	with.Branches = map[string]string{"main": baseCommit}
	if with.Permissions == nil {
		with.Permissions = mayPropose
	}
	return githubtest.Start(t, with)
}

func change() *action.FileChange {
	return &action.FileChange{
		Base: "main", Commit: baseCommit, Branch: "update/flake-lock", File: "flake.lock", Content: "new", Title: "flake.lock: update a",
		Message: "- a: x → y", Body: "## What this rebuilds", Mark: "Updated-by: nix-matrix test",
	}
}

// One commit is on top of the base, with the one file changed; the open pull request is brought up to date and not
// repeated, and what is there already stays.
func TestPropose(t *testing.T) {
	for _, base := range []string{"", "/api/v3"} {
		server := pullServer(t, githubtest.Options{Base: base})
		g := connect(t, server)
		propose := func(c *action.FileChange, created, pushed bool) *action.Pull {
			t.Helper()
			pull, err := g.Propose(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if pull.Created != created || pull.Pushed != pushed || pull.Number != 8 || pull.URL != "https://github.com/org/fleet/pull/8" {
				t.Errorf("got %+v", pull)
			}
			return pull
		}
		expect := func(c *action.FileChange) {
			t.Helper()
			commit := server.Commit(server.Branches()[c.Branch])
			want := githubtest.Commit{
				Parent: c.Commit, Message: c.Title + "\n\n" + c.Message + "\nUpdated-by: nix-matrix test\n", Files: map[string]string{"flake.lock": c.Content, "flake.nix": "{ }"},
			}
			if diff := cmp.Diff(want, commit); diff != "" {
				t.Errorf("the commit, - want + got:\n%s", diff)
			}
			if diff := cmp.Diff([]githubtest.Pull{{Number: 8, Head: c.Branch, Base: "main", Title: c.Title, Body: c.Body}}, server.Pulls()); diff != "" {
				t.Errorf("pull requests, - want + got:\n%s", diff)
			}
		}
		c := change()
		propose(c, true, true)
		expect(c)
		tip := server.Branches()[c.Branch]
		propose(c, false, false)
		if server.Branches()[c.Branch] != tip {
			t.Error("the same change is pushed again")
		}
		c.Content, c.Title, c.Body = "newer", "flake.lock: update b", "other"
		pull := propose(c, false, true)
		expect(c)

		if err := g.AutoMerge(t.Context(), pull, action.MergeSquash); err != nil {
			t.Fatal(err)
		}
		if p := server.Pulls()[0]; !p.AutoMerge || p.Method != "squash" {
			t.Errorf("got %+v", p)
		}
		before := len(server.Requests())
		if err := g.AutoMerge(t.Context(), propose(c, false, false), action.MergeSquash); err != nil {
			t.Fatal(err)
		}
		for _, request := range server.Requests()[before:] {
			if strings.Contains(request, "graphql") {
				t.Error("what merges itself is told so again")
			}
		}
	}
}

// Commits of somebody else, the base itself, missing permissions and settings are errors that say what to do.
func TestCannotPropose(t *testing.T) {
	const others = "89abcdef0123456789abcdef0123456789abcdef"
	server := pullServer(t, githubtest.Options{})
	g := connect(t, server)
	c := change()
	c.Branch = "main"
	_, err := g.Propose(t.Context(), c)
	expectError(t, err, nil, "cannot propose a change of main on the branch itself")

	if _, err = g.Propose(t.Context(), change()); err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{"fix the update", "fix\n\n> Updated-by: nix-matrix test"} {
		server := pullServer(t, githubtest.Options{})
		server.AddCommit("update/flake-lock", others, githubtest.Commit{Parent: baseCommit, Message: message, Files: map[string]string{"flake.nix": "{ }"}})
		_, err := connect(t, server).Propose(t.Context(), change())
		expectError(t, err, action.ErrOthersCommits, "cannot push to the branch update/flake-lock", "89abcdef01", "Merge or close its pull request and delete the branch")
		if server.Branches()["update/flake-lock"] != others {
			t.Error("the commit of somebody else is gone")
		}
	}

	_, err = connect(t, pullServer(t, githubtest.Options{Permissions: map[string]string{"contents": "read", "pull-requests": "write"}})).Propose(t.Context(), change())
	expectError(t, err, action.ErrForbidden, "Add the line `contents: write` below `permissions:` of the job")
	_, err = connect(t, pullServer(t, githubtest.Options{Permissions: map[string]string{"contents": "write"}})).Propose(t.Context(), change())
	expectError(t, err, action.ErrForbidden, "Add the line `pull-requests: write` below `permissions:` of the job")
	_, err = connect(t, pullServer(t, githubtest.Options{NoPulls: true})).Propose(t.Context(), change())
	expectError(t, err, action.ErrForbidden, "not permitted to create or approve", "in the settings of the repository, or give a token of your own")

	server = pullServer(t, githubtest.Options{NoAutoMerge: true})
	g = connect(t, server)
	pull, err := g.Propose(t.Context(), change())
	if err != nil {
		t.Fatal(err)
	}
	err = g.AutoMerge(t.Context(), pull, action.MergeRebase)
	expectError(t, err, nil, "cannot have pull request 8 merge itself", "Auto merge is not allowed for this repository", `Set "Allow auto-merge"`)
	server.Fail(githubtest.Failure{Status: 401})
	expectError(t, g.AutoMerge(t.Context(), pull, action.MergeRebase), action.ErrForbidden)

	// A connection that breaks after a commit was made leaves no half of anything: it is done again the next time.
	server = pullServer(t, githubtest.Options{})
	g = connect(t, server)
	server.Fail(githubtest.Failure{}, githubtest.Failure{}, githubtest.Failure{}, githubtest.Failure{Gone: true})
	if _, err := g.Propose(t.Context(), change()); err == nil {
		t.Error("a broken connection is no error")
	}
	if _, there := server.Branches()["update/flake-lock"]; there {
		t.Error("the branch is there")
	}
	if _, err := g.Propose(t.Context(), change()); err != nil {
		t.Error(err)
	}
}
