package conclude

import (
	"context"
	"errors"
	"time"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/verdict"
)

const (
	// maxCommentText is the length of a comment that a person reads in a discussion, in bytes; the job's
	// summary has more.
	maxCommentText = 16 << 10
	// commentTime is how long the verdict waits for its comment, however busy GitHub is.
	commentTime = 2 * time.Minute
)

// Comment writes the verdict into the comment on the pull request of the job, if there is one and the token
// may. A failure changes no verdict.
func (c *Conclusion) Comment(ctx context.Context, on *action.Action, v *verdict.Verdict) {
	const failed = "Cannot comment on the pull request"
	pull, err := on.PullRequest()
	switch {
	case err != nil:
		c.Log.Warn(failed, err)
		return
	case pull.Number == 0:
		c.Log.Printf("no comment: the run's event is none of a pull request")
		return
	case pull.Fork:
		c.Log.Printf("no comment on pull request %d: it comes from a fork, so the token may not write", pull.Number)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, commentTime)
	defer cancel()
	c.Log.Doing("commenting on pull request %d", pull.Number)
	api, err := on.GitHub(c.Log.Printf)
	if err == nil {
		text := report.Summary(v, report.SummaryOptions{RunURL: on.RunURL(), Brief: true, MaxBytes: maxCommentText})
		err = api.Comment(ctx, pull.Number, action.CommentMarker(c.Docs.ID), text)
	}
	switch {
	case errors.Is(err, action.ErrForbidden):
		c.Log.Printf("%s: %v", failed, err)
		on.Annotate(action.LevelNotice, failed, err.Error())
	case err != nil:
		c.Log.Warn(failed, err)
	}
}
