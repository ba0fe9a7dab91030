package main

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

// comment writes the verdict into the comment of this id on the pull request, if there is one and the token
// may. A failure changes no verdict.
func (a *app) comment(ctx context.Context, v *verdict.Verdict) {
	const failed = "Cannot comment on the pull request"
	pull, err := a.action.PullRequest()
	switch {
	case err != nil:
		a.log.Warn(failed, err)
		return
	case pull.Number == 0:
		a.log.Printf("no comment: the run's event is none of a pull request")
		return
	case pull.Fork:
		a.log.Printf("no comment on pull request %d: it comes from a fork, so the token may not write", pull.Number)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, commentTime)
	defer cancel()
	a.log.Doing("commenting on pull request %d", pull.Number)
	api, err := a.gitHub()
	if err == nil {
		text := report.Summary(v, report.SummaryOptions{RunURL: a.action.RunURL(), Brief: true, MaxBytes: maxCommentText})
		err = api.Comment(ctx, pull.Number, action.CommentMarker(a.id), text)
	}
	switch {
	case errors.Is(err, action.ErrForbidden):
		a.log.Printf("%s: %v", failed, err)
		a.action.Annotate(action.LevelNotice, failed, err.Error())
	case err != nil:
		a.log.Warn(failed, err)
	}
}
