package action

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/google/go-github/v60/github"
)

// MaxComment is how long a comment may be, in characters.
const MaxComment = 65536

// CommentMarker returns the invisible first line of the comment of a use of nix-matrix.
func CommentMarker(id string) string { return "<!-- nix-matrix comment " + id + " -->\n" }

// actionsBot is the author of comments by a job's own token.
const actionsBot = "github-actions[bot]"

// Comment puts Markdown into the one comment on an issue or a pull request that
// begins with the marker and is by the token's owner, or into a new one where there is
// none. It needs the permission pull-requests: write.
func (g *GitHub) Comment(ctx context.Context, number int, marker, markdown string) error {
	what := fmt.Sprintf("cannot comment on pull request %d", number)
	const permission = "pull-requests: write"
	body := marker + markdown
	if n := utf8.RuneCountInString(body); n > MaxComment {
		return fmt.Errorf("%s: it has %d characters, more than GitHub's %d", what, n, MaxComment)
	}
	mine, err := g.findComment(ctx, number, marker)
	if err != nil {
		return g.explain(ctx, err, what, permission)
	}
	comment := &github.IssueComment{Body: &body}
	switch {
	case mine == nil:
		_, _, err = g.client.Issues.CreateComment(ctx, g.owner, g.name, number, comment)
	case mine.GetBody() != body:
		_, _, err = g.client.Issues.EditComment(ctx, g.owner, g.name, mine.GetID(), comment)
	}
	return g.explain(ctx, err, what, permission)
}

// findComment returns the first comment with the marker that is by the token's owner,
// or nil. Anybody can write the marker.
func (g *GitHub) findComment(ctx context.Context, number int, marker string) (*github.IssueComment, error) {
	me := ""
	options := &github.IssueListCommentsOptions{}
	for c, err := range pages(&options.ListOptions, func() ([]*github.IssueComment, *github.Response, error) {
		return g.client.Issues.ListComments(ctx, g.owner, g.name, number, options)
	}) {
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(c.GetBody(), marker) {
			continue
		}
		if me == "" {
			if me, err = g.login(ctx); err != nil {
				return nil, err
			}
		}
		if c.GetUser().GetLogin() == me {
			return c, nil
		}
	}
	return nil, nil //nolint:nilnil // none is one of the answers
}

// login returns the token's owner. A job's own token may not ask.
func (g *GitHub) login(ctx context.Context) (string, error) {
	user, _, err := g.client.Users.Get(ctx, "")
	switch {
	case status(err) == http.StatusForbidden:
		return actionsBot, nil
	case err != nil:
		return "", err
	}
	return user.GetLogin(), nil
}
