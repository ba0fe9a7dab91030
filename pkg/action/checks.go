package action

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v60/github"
	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/httpcall"
)

// MaxCheckSummary is how large the summary of a check run may be, in bytes.
const MaxCheckSummary = 65535

// CheckConclusion is the outcome of a check run.
type CheckConclusion string

// The conclusions of check runs. A branch rule that requires a check is content with a success, one
// that was skipped, and a neutral one.
const (
	CheckSuccess   CheckConclusion = "success"
	CheckFailure   CheckConclusion = "failure"
	CheckSkipped   CheckConclusion = "skipped"
	CheckCancelled CheckConclusion = "cancelled"
	CheckTimedOut  CheckConclusion = "timed_out"
	CheckNeutral   CheckConclusion = "neutral"
)

// A CheckRun is a check run of a commit that has ended.
type CheckRun struct {
	// ExternalID is ours, and by it a later run finds the check run again.
	ExternalID string
	Name       string // by which branch rules know it
	Conclusion CheckConclusion
	Title      string // one line
	Summary    string // Markdown of at most MaxCheckSummary bytes
	DetailsURL string // empty if there is none
	Took       time.Duration
}

// CheckedCommit returns the commit that check runs of this job belong to: in a pull request its head,
// which the page of the pull request shows, and not the merge commit that the job has checked out. It
// is empty for an event whose code may be that of another commit, such as pull_request_target.
func (a *Action) CheckedCommit() (string, error) {
	event, commit := a.getenv("GITHUB_EVENT_NAME"), a.getenv("GITHUB_SHA")
	switch {
	case event == "pull_request":
		e, err := a.readEvent()
		if err != nil {
			return "", err
		}
		commit = e.PullRequest.Head.SHA
	case event != "merge_group" && !slices.Contains(ownEvents, event) && !slices.Contains(quietEvents, event):
		return "", nil
	}
	if !commitPattern().MatchString(commit) {
		return "", fmt.Errorf("the event %s has no commit: %q", event, commit)
	}
	return commit, nil
}

var commitPattern = lazyregexp.New(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`)

const (
	checksPermission = "checks: write"
	checksAtOnce     = 4
	// checksReserve is how many requests of the rate limit are left for the other jobs of the repository,
	// which share it.
	checksReserve = 100
	// mostFailures is how many requests may fail before the others are not sent.
	mostFailures = 5
)

// WriteChecks writes check runs of a commit, in about their order: a new one for each ExternalID that
// the commit does not have, and otherwise the one that is there, unless it says the same already. Check
// runs with other external ids that begin with the prefix become neutral, because their subject is gone.
// It returns the number of those that were not written, with the reason. It needs the permission
// checks: write.
func (g *GitHub) WriteChecks(ctx context.Context, commit, prefix string, checks []CheckRun) (left int, err error) {
	// The second round is for those that failed: a request may have been carried out though no answer says it.
	const rounds = 2
	for range rounds {
		left, err = g.writeChecks(ctx, commit, prefix, checks)
		if err == nil || errors.Is(err, ErrForbidden) || errors.Is(err, ErrLimited) || ctx.Err() != nil {
			break
		}
	}
	return left, err
}

func (g *GitHub) writeChecks(ctx context.Context, commit, prefix string, checks []CheckRun) (left int, err error) {
	there, err := g.listChecks(ctx, commit, prefix)
	if err != nil {
		return len(checks), err
	}
	var work []checkWork
	for i := range checks {
		c := &checks[i]
		known := there[c.ExternalID]
		delete(there, c.ExternalID)
		if known == nil || !c.equals(known) {
			work = append(work, checkWork{c, known.GetID()})
		}
	}
	for id, known := range there {
		gone := CheckRun{
			ExternalID: id, Name: known.GetName(), Conclusion: CheckNeutral, Title: "No target any more",
			Summary: "The last run for this commit has no such target.", DetailsURL: known.GetDetailsURL(),
		}
		if !gone.equals(known) {
			work = append(work, checkWork{&gone, known.GetID()})
		}
	}
	return g.doChecks(ctx, commit, work)
}

// A checkWork is a check run that is written: a new one if the number is 0.
type checkWork struct {
	check *CheckRun
	id    int64
}

// doChecks writes check runs, and returns the number of those that are left.
func (g *GitHub) doChecks(ctx context.Context, commit string, work []checkWork) (left int, err error) {
	var group errgroup.Group
	group.SetLimit(checksAtOnce)
	var mu sync.Mutex
	var failures []error
	final := false // so that nothing more is sent
	left = len(work)
	stopped := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return final
	}
	for _, w := range work {
		group.Go(func() error {
			if stopped() {
				return nil
			}
			err := g.writeCheck(ctx, commit, w)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				left--
				return nil
			}
			if !final {
				failures = append(failures, err)
			}
			final = final || ctx.Err() != nil || errors.Is(err, ErrForbidden) || errors.Is(err, ErrLimited) || len(failures) >= mostFailures
			return nil
		})
	}
	_ = group.Wait() // the errors are in failures
	if final {
		return left, failures[len(failures)-1]
	}
	return left, errors.Join(failures...)
}

// writeCheck writes one check run.
func (g *GitHub) writeCheck(ctx context.Context, commit string, w checkWork) error {
	what := "cannot write the check run " + w.check.Name
	if err := g.writes.wait(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if remaining, known := g.transport.remaining(); known && remaining < checksReserve {
		return fmt.Errorf("%s: %w but for %d requests, which are left to other jobs. Run this job again later", what, ErrLimited, remaining)
	}
	c := w.check
	now := time.Now()
	output := &github.CheckRunOutput{Title: &c.Title, Summary: &c.Summary}
	completed := github.Timestamp{Time: now}
	if w.id != 0 {
		_, _, err := g.client.Checks.UpdateCheckRun(ctx, g.owner, g.name, w.id, github.UpdateCheckRunOptions{
			Name: c.Name, ExternalID: &c.ExternalID, DetailsURL: optionalText(c.DetailsURL), Status: github.String("completed"),
			Conclusion: github.String(string(c.Conclusion)), CompletedAt: &completed, Output: output,
		})
		// A check run of another app may have the same external id, but may not be changed.
		if s := status(err); s != http.StatusForbidden && s != http.StatusNotFound {
			return g.explain(ctx, err, what, checksPermission)
		}
	}
	_, _, err := g.client.Checks.CreateCheckRun(ctx, g.owner, g.name, github.CreateCheckRunOptions{
		Name: c.Name, HeadSHA: commit, ExternalID: &c.ExternalID, DetailsURL: optionalText(c.DetailsURL), Status: github.String("completed"),
		Conclusion: github.String(string(c.Conclusion)), StartedAt: &github.Timestamp{Time: now.Add(-c.Took)}, CompletedAt: &completed, Output: output,
	})
	return g.explain(ctx, err, what, checksPermission)
}

// listChecks returns the check runs of a commit whose external ids begin with a prefix, the newest of
// each.
func (g *GitHub) listChecks(ctx context.Context, commit, prefix string) (map[string]*github.CheckRun, error) {
	options := &github.ListCheckRunsOptions{Filter: github.String("all")} // "latest" goes by the name alone
	there := map[string]*github.CheckRun{}
	for c, err := range pages(&options.ListOptions, func() ([]*github.CheckRun, *github.Response, error) {
		list, answer, err := g.client.Checks.ListCheckRunsForRef(ctx, g.owner, g.name, commit, options)
		if err != nil {
			return nil, answer, err
		}
		return list.CheckRuns, answer, nil
	}) {
		if err != nil {
			return nil, g.explain(ctx, err, "cannot list the check runs of "+commit, checksPermission)
		}
		if id := c.GetExternalID(); strings.HasPrefix(id, prefix) && c.GetID() > there[id].GetID() {
			there[id] = c
		}
	}
	return there, nil
}

// equals reports whether a check run says the same already. The address of details may be that of an
// earlier run for the same commit.
func (c *CheckRun) equals(known *github.CheckRun) bool {
	output := known.GetOutput()
	return known.GetName() == c.Name && known.GetStatus() == "completed" && known.GetConclusion() == string(c.Conclusion) &&
		output.GetTitle() == c.Title && strings.TrimSpace(output.GetSummary()) == strings.TrimSpace(c.Summary)
}

func optionalText(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// A pace bounds how many requests are sent in a minute. The zero value has no bound.
type pace struct {
	most int

	mu   sync.Mutex
	sent []time.Time // the last ones, at most so many
}

// wait returns when one more may be sent, or with the context's error.
func (p *pace) wait(ctx context.Context) error {
	if p.most == 0 {
		return ctx.Err()
	}
	for {
		pause := p.take(time.Now())
		if pause <= 0 {
			return ctx.Err()
		}
		if err := httpcall.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// take notes that one is sent now, or returns how long it has to wait.
func (p *pace) take(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sent) == p.most {
		if pause := time.Minute - now.Sub(p.sent[0]); pause > 0 {
			return pause
		}
		p.sent = p.sent[1:]
	}
	p.sent = append(p.sent, now)
	return 0
}
