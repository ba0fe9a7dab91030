package action

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// event is the event that started the workflow, as the runner writes it. Fields that it
// lacks are empty.
type event struct {
	Repository struct {
		FullName      string `json:"full_name"`
		Private       *bool
		DefaultBranch string `json:"default_branch"`
	}
	PullRequest struct {
		Number int
		Head   struct {
			SHA  string
			Repo *struct { // nil for a fork that was deleted
				FullName string `json:"full_name"`
			}
		}
	} `json:"pull_request"`
	MergeGroup struct {
		BaseRef string `json:"base_ref"`
	} `json:"merge_group"`
}

func (a *Action) readEvent() (*event, error) {
	file := a.getenv("GITHUB_EVENT_PATH")
	data, err := os.ReadFile(file)
	if err != nil {
		return &event{}, fmt.Errorf("cannot read the event: %w", err)
	}
	var e event
	if err := json.Unmarshal(data, &e); err != nil {
		return &event{}, fmt.Errorf("cannot read the event %s: %w", file, err)
	}
	return &e, nil
}

// Public reports whether anybody can read the repository of this job, by its event or else by
// GitHub's API. If neither says so, a job of GitHub Actions is taken for public.
func (a *Action) Public(ctx context.Context) bool {
	if !a.Running() {
		return false
	}
	private := a.Private(ctx)
	return private == nil || !*private
}

// Private reports whether the repository of this job is private, by its event or else by GitHub's API. It is nil
// if neither says so.
func (a *Action) Private(ctx context.Context) *bool {
	e, _ := a.readEvent() // an event that can't be read says nothing
	if e.Repository.Private != nil {
		return e.Repository.Private
	}
	const timeout = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	g, err := a.GitHub(func(string, ...any) {})
	if err != nil {
		return nil
	}
	repository, err := g.Repository(ctx)
	if err != nil {
		return nil
	}
	private := !repository.Public
	return &private
}

// A PullRequest is the pull request of a job's event.
type PullRequest struct {
	Number int
	Fork   bool // it comes from another repository, and its jobs may change nothing
}

// PullRequest returns the pull request that the job runs for. The number is 0 for another
// event.
func (a *Action) PullRequest() (PullRequest, error) {
	if a.getenv("GITHUB_EVENT_NAME") != "pull_request" {
		return PullRequest{}, nil
	}
	e, err := a.readEvent()
	if err != nil {
		return PullRequest{}, err
	}
	if e.PullRequest.Number <= 0 {
		return PullRequest{}, fmt.Errorf("the event %s names no pull request", a.getenv("GITHUB_EVENT_PATH"))
	}
	head := e.PullRequest.Head.Repo
	fork := head == nil || !strings.EqualFold(head.FullName, e.Repository.FullName)
	return PullRequest{Number: e.PullRequest.Number, Fork: fork}, nil
}
