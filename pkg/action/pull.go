package action

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-github/v60/github"
)

// A FileChange is a commit that changes one file, for a pull request.
type FileChange struct {
	Base    string // branch that it goes to
	Commit  string // the commit of that branch which it changes
	Branch  string // that it is on
	File    string // below the root of the repository, with slashes
	Content string
	Title   string // of the pull request, and the first line of the commit
	Message string // the rest of it
	Body    string // of the pull request: Markdown
	// Mark is a line of the commit's message by which a later change knows that the branch has nobody else's
	// commits.
	Mark string
}

// A Pull is an open pull request.
type Pull struct {
	Number  int
	URL     string
	Created bool // it is new
	Pushed  bool // its branch has a new commit

	node      string // its id for GraphQL
	autoMerge bool
}

// ErrOthersCommits says that a branch has commits by somebody else, which nothing may overwrite.
var ErrOthersCommits = errors.New("it has commits that this is not the author of")

const (
	contentsPermission = "contents: write"
	pullsPermission    = "pull-requests: write"
)

// Propose puts a change on its branch, on top of its base, and opens a pull request with it or brings the open one
// up to date. If the branch has the same change of the same commit already, it stays. It needs the permissions contents:
// write and pull-requests: write.
func (g *GitHub) Propose(ctx context.Context, c *FileChange) (*Pull, error) {
	if c.Branch == c.Base {
		return nil, fmt.Errorf("cannot propose a change of %s on the branch itself. Name another branch", c.Base)
	}
	pushed, err := g.pushChange(ctx, c)
	if err != nil {
		return nil, err
	}
	pull, err := g.openPull(ctx, c)
	if err != nil {
		return nil, err
	}
	pull.Pushed = pushed
	return pull, nil
}

// pushChange makes the branch the change on top of its base, in one step, so that the pull request is never empty.
func (g *GitHub) pushChange(ctx context.Context, c *FileChange) (pushed bool, err error) {
	what := "cannot push to the branch " + c.Branch
	old, err := g.tip(ctx, c.Branch)
	if err != nil {
		return false, g.explain(ctx, err, what, contentsPermission)
	}
	if old != nil && !strings.Contains("\n"+old.GetMessage()+"\n", "\n"+c.Mark+"\n") {
		return false, fmt.Errorf("%s: %w (%.10s). Merge or close its pull request and delete the branch, or name another one", what, ErrOthersCommits, old.GetSHA())
	}
	base, _, err := g.client.Git.GetCommit(ctx, g.owner, g.name, c.Commit)
	if err != nil {
		return false, g.explain(ctx, err, what, contentsPermission)
	}
	tree, _, err := g.client.Git.CreateTree(ctx, g.owner, g.name, base.GetTree().GetSHA(), []*github.TreeEntry{{
		Path: &c.File, Mode: github.String("100644"), Type: github.String("blob"), Content: &c.Content,
	}})
	if err != nil {
		return false, g.explain(ctx, err, what, contentsPermission)
	}
	if old != nil && old.GetTree().GetSHA() == tree.GetSHA() && len(old.Parents) == 1 && old.Parents[0].GetSHA() == c.Commit {
		return false, nil
	}
	message := c.Title + "\n\n" + c.Message + "\n" + c.Mark + "\n"
	commit, _, err := g.client.Git.CreateCommit(ctx, g.owner, g.name, &github.Commit{
		Message: &message, Tree: tree, Parents: []*github.Commit{{SHA: &c.Commit}},
	}, nil)
	if err != nil {
		return false, g.explain(ctx, err, what, contentsPermission)
	}
	ref := &github.Reference{Ref: github.String(branchRef + c.Branch), Object: &github.GitObject{SHA: commit.SHA}}
	if old == nil {
		_, _, err = g.client.Git.CreateRef(ctx, g.owner, g.name, ref)
	} else {
		_, _, err = g.client.Git.UpdateRef(ctx, g.owner, g.name, ref, true)
	}
	return err == nil, g.explain(ctx, err, what, contentsPermission)
}

// tip returns the last commit of a branch, nil if there is no such branch.
func (g *GitHub) tip(ctx context.Context, branch string) (*github.Commit, error) {
	ref, _, err := g.client.Git.GetRef(ctx, g.owner, g.name, branchRef+branch)
	if status(err) == http.StatusNotFound {
		return nil, nil //nolint:nilnil // none is one of the answers
	}
	if err != nil {
		return nil, err
	}
	commit, _, err := g.client.Git.GetCommit(ctx, g.owner, g.name, ref.GetObject().GetSHA())
	return commit, err
}

// openPull brings the open pull request of the branch up to date, or opens one.
func (g *GitHub) openPull(ctx context.Context, c *FileChange) (*Pull, error) {
	what := "cannot open a pull request for the branch " + c.Branch
	open, _, err := g.client.PullRequests.List(ctx, g.owner, g.name, &github.PullRequestListOptions{
		State: "open", Head: g.owner + ":" + c.Branch, Base: c.Base,
	})
	if err != nil {
		return nil, g.explain(ctx, err, what, pullsPermission)
	}
	if len(open) > 0 { // GitHub has one at most
		p := open[0]
		if p.GetTitle() != c.Title || p.GetBody() != c.Body {
			what := fmt.Sprintf("cannot edit pull request %d", p.GetNumber())
			if p, _, err = g.client.PullRequests.Edit(ctx, g.owner, g.name, p.GetNumber(), &github.PullRequest{Title: &c.Title, Body: &c.Body}); err != nil {
				return nil, g.explain(ctx, err, what, pullsPermission)
			}
		}
		return newPull(p), nil
	}
	p, _, err := g.client.PullRequests.Create(ctx, g.owner, g.name, &github.NewPullRequest{
		Title: &c.Title, Body: &c.Body, Head: &c.Branch, Base: &c.Base, MaintainerCanModify: github.Bool(true),
	})
	if err != nil {
		err = g.explain(ctx, err, what, pullsPermission)
		if errors.Is(err, ErrForbidden) { // GitHub refuses the token of a workflow for two reasons
			err = fmt.Errorf(`%w, and allow "GitHub Actions to create and approve pull requests" in the settings of the repository, or give a token of your own`, err)
		}
		return nil, err
	}
	pull := newPull(p)
	pull.Created = true
	return pull, nil
}

func newPull(p *github.PullRequest) *Pull {
	return &Pull{Number: p.GetNumber(), URL: p.GetHTMLURL(), node: p.GetNodeID(), autoMerge: p.AutoMerge != nil}
}

// The ways to merge a pull request.
const (
	MergeSquash = "squash"
	MergeCommit = "merge"
	MergeRebase = "rebase"
)

// AutoMerge has GitHub merge a pull request as soon as the branch rules are met, unless that is so already. Only the
// GraphQL API can. It needs the permissions contents: write and pull-requests: write.
func (g *GitHub) AutoMerge(ctx context.Context, pull *Pull, method string) error {
	if pull.autoMerge {
		return nil
	}
	what := fmt.Sprintf("cannot have pull request %d merge itself", pull.Number)
	const mutation = `mutation($pull: ID!, $method: PullRequestMergeMethod!) { enablePullRequestAutoMerge(input: {pullRequestId: $pull, mergeMethod: $method}) { clientMutationId } }`
	req, err := g.client.NewRequest(http.MethodPost, g.graphQL(), map[string]any{
		"query": mutation, "variables": map[string]string{"pull": pull.node, "method": strings.ToUpper(method)},
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	var said struct {
		Errors []struct{ Message string }
	}
	if _, err := g.client.Do(ctx, req, &said); err != nil {
		return g.explain(ctx, err, what, contentsPermission)
	}
	if len(said.Errors) > 0 {
		return fmt.Errorf(`%s: GitHub says %s. Set "Allow auto-merge" in the settings of the repository, and have a rule for the base branch require a check, such as "nix / report"`, what, g.quote(said.Errors[0].Message))
	}
	return nil
}

// graphQL returns the address of the GraphQL API, which an Enterprise Server has beside that of REST.
func (g *GitHub) graphQL() string {
	base := strings.TrimSuffix(g.client.BaseURL.String(), "/")
	return strings.TrimSuffix(base, "/v3") + "/graphql"
}
