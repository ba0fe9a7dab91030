package conclude

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

const (
	// checksTime is how long the verdict waits for its check runs, however busy GitHub is: as many as 500
	// take most of it.
	checksTime = 10 * time.Minute
	// maxCheckText is enough for the end of a log, in bytes.
	maxCheckText = 32 << 10
)

// Checks writes a check run for each target of the verdict, if the token may. A failure changes no verdict.
func (c *Conclusion) Checks(ctx context.Context, on *action.Action, v *verdict.Verdict) {
	const failed = "Cannot write all checks"
	commit, err := on.CheckedCommit()
	pull, perr := on.PullRequest()
	switch {
	case err != nil || perr != nil:
		c.Log.Warn(failed, errors.Join(err, perr))
		return
	case commit == "":
		c.Log.Printf("no checks: what the event %s builds may be another commit than that of the run", c.Docs.Trust.Event)
		return
	case pull.Fork:
		said := fmt.Sprintf("pull request %d comes from a fork, so the token may not write checks. The report is in the summary of this job", pull.Number)
		c.Log.Printf("no checks: %s", said)
		on.Annotate(action.LevelNotice, "No checks", said)
		return
	case len(v.Targets) == 0:
		c.Log.Printf("no checks: there are no targets")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checksTime)
	defer cancel()
	checks := c.checkRuns(on, v)
	c.Log.Doing("writing %s", text.Plural(len(checks), "check"))
	api, err := on.GitHub(c.Log.Printf)
	left := len(checks)
	if err == nil {
		left, err = api.WriteChecks(ctx, commit, c.checkPrefix(), checks)
	}
	if err == nil {
		return
	}
	err = fmt.Errorf("%d of %s could not be written: %w", left, text.Plural(len(checks), "check"), err)
	switch {
	case errors.Is(err, action.ErrForbidden) && on.SecretsWithheld():
		c.Log.Printf("%s: %v", failed, err)
		on.Annotate(action.LevelNotice, failed, err.Error())
	case errors.Is(err, action.ErrForbidden):
		c.Log.Warn(failed, err)
	default:
		c.Log.Warn(failed, fmt.Errorf("%w. To write the others, run this job again: it writes only those that are missing", err))
	}
}

// checkPrefix returns the beginning of the external ids of this workflow's check runs: a commit may have runs of
// several workflows, and of a push and a pull request, which build different things.
func (c *Conclusion) checkPrefix() string {
	return fmt.Sprintf("nix-matrix/%s/%s/", c.Docs.ID, shortHash(c.Docs.Workflow+"\x00"+c.Docs.Trust.Event))
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

// checkRuns returns the check runs of a verdict.
func (c *Conclusion) checkRuns(on *action.Action, v *verdict.Verdict) []action.CheckRun {
	all := report.Checks(v, c.Docs.ID, report.SummaryOptions{RunURL: on.RunURL(), MaxBytes: maxCheckText})
	runs := make([]action.CheckRun, len(all))
	for i, check := range all {
		runs[i] = action.CheckRun{
			ExternalID: c.checkPrefix() + shortHash(check.Name), Name: check.Name, Conclusion: conclusion(&check),
			Title: check.Title, Summary: text.Clip(check.Summary, action.MaxCheckSummary), DetailsURL: check.URL,
			Took: verdict.Seconds(check.Seconds),
		}
	}
	return runs
}

// conclusion returns the conclusion of a check. A branch rule counts one of a target that was skipped as done, as
// the verdict does.
func conclusion(check *report.Check) action.CheckConclusion {
	switch check.Status {
	case verdict.TargetBuilt, verdict.TargetFetched, verdict.TargetPresent:
		return action.CheckSuccess
	case verdict.TargetSkipped:
		return action.CheckSkipped
	case verdict.TargetCancelled:
		return action.CheckCancelled
	case verdict.TargetFailed:
		if check.Timeout {
			return action.CheckTimedOut
		}
	case verdict.TargetMissing:
	}
	return action.CheckFailure
}
