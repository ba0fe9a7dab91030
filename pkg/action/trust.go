package action

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Trust has the facts of a job that decide whose code it runs, and answers what the
// job may take from the caches of others and what it may leave there. It reads
// nothing: [Action.Trust] takes the facts from the environment, and the caller adds
// the ones that the environment does not have.
type Trust struct {
	Running       bool   // in GitHub Actions; elsewhere everything is the user's own
	Event         string // that triggered the workflow, GITHUB_EVENT_NAME
	Ref           string // GITHUB_REF, in full; empty where the event has none
	BaseRefs      []string
	DefaultBranch string // its name; empty where the event does not tell
	Commit        string // that the workflow runs for, GITHUB_SHA
	Hosted        bool   // on a runner of GitHub's, which ends with the job

	// Heads are the commits of the checkouts that were evaluated, empty texts for
	// checkouts whose commit can't be read. There are none without a checkout.
	Heads  []string
	Sealed bool // there is a key, and only its holders can write what is read
	Shared bool // the cache is a directory, whose users trust each other
}

// Trust returns what the environment tells.
func (a *Action) Trust() Trust {
	t := Trust{
		Running: a.Running(), Event: a.getenv("GITHUB_EVENT_NAME"), Ref: a.getenv("GITHUB_REF"),
		Commit: a.getenv("GITHUB_SHA"), Hosted: a.getenv("RUNNER_ENVIRONMENT") == "github-hosted",
	}
	if !t.Running {
		return t
	}
	e, _ := a.readEvent() // an event that can't be read tells nothing
	t.DefaultBranch = e.Repository.DefaultBranch
	if t.DefaultBranch == "" && t.Event == "schedule" { // whose event names no repository, and which is for no other branch
		t.DefaultBranch, _ = strings.CutPrefix(t.Ref, branchRef)
	}
	t.BaseRefs = []string{e.MergeGroup.BaseRef}
	if base := a.getenv("GITHUB_BASE_REF"); base != "" {
		t.BaseRefs = append(t.BaseRefs, branchRef+base)
	}
	return t
}

const (
	branchRef = "refs/heads/"
	pullRef   = "refs/pull/"
)

// ProposedRef reports whether a ref has a change that is not merged: a pull request's,
// or one of a merge queue.
func ProposedRef(ref string) bool {
	return strings.HasPrefix(ref, pullRef) || strings.HasPrefix(ref, branchRef+"gh-readonly-queue/")
}

// The events that trigger a workflow for the code of the repository itself, and that
// only somebody with write access can cause. All other events, those included that do
// not exist yet, may be about the code of anybody: they are of pull requests, or run on
// the default branch and are about something that everybody can make, such as a
// comment, or the end of another workflow.
var (
	// After these, later runs may reuse what the run has made.
	ownEvents = []string{"push", "schedule", "workflow_dispatch", "repository_dispatch"}
	// After these there is no need to.
	quietEvents = []string{
		"branch_protection_rule", "create", "delete", "image_version", "label", "milestone", "page_build", "public",
		"registry_package", "release",
	}
)

// Proposed reports whether the job is for a change that somebody proposes, or may be.
func (t Trust) Proposed() bool {
	return t.Running && (ProposedRef(t.Ref) || !slices.Contains(ownEvents, t.Event) && !slices.Contains(quietEvents, t.Event))
}

// Refs returns the refs whose caches the job reads: its own first, which it also writes,
// then the one that its change goes to, then the default branch. Outside of GitHub
// Actions there is one for everybody.
func (t Trust) Refs() []string {
	if !t.Running {
		return []string{"local"}
	}
	refs := append([]string{cmp.Or(t.Ref, "local")}, t.BaseRefs...)
	if t.DefaultBranch != "" {
		refs = append(refs, branchRef+t.DefaultBranch)
	}
	seen := map[string]bool{"": true}
	return slices.DeleteFunc(refs, func(ref string) bool {
		again := seen[ref]
		seen[ref] = true
		return again
	})
}

// MayKeep returns nil if later runs may reuse what this job makes, else an error that
// says why not. It is not about what the jobs of one run hand to each other.
func (t Trust) MayKeep() error {
	own := slices.Contains(ownEvents, t.Event)
	switch {
	case !t.Running:
		return nil
	case t.Event == "pull_request" && strings.HasPrefix(t.Ref, pullRef):
		return nil // only runs of this pull request read it
	case own && (!strings.HasPrefix(t.Ref, branchRef) || ProposedRef(t.Ref)), t.Event == "merge_group", t.Event == "release":
		return fmt.Errorf("no later run reads the cache of %s", cmp.Or(t.Ref, "a job without a ref"))
	case !own:
		return fmt.Errorf("a run for the event %q may be about anybody's change, and its cache is that of %s", t.Event, cmp.Or(t.Ref, "others"))
	}
	for _, head := range t.Heads {
		if head != t.Commit {
			return fmt.Errorf("the checkout has another commit (%s) than the run for %s (%s)", cmp.Or(head, "unknown"), t.Ref, t.Commit)
		}
	}
	return nil
}

// LeavesRecord returns the name of the default branch, and whether the job may leave a
// record of it for others to compare with and to rely on.
func (t Trust) LeavesRecord() (branch string, ok bool) {
	branch, isBranch := strings.CutPrefix(t.Ref, branchRef)
	return branch, t.Running && isBranch && branch != "" && branch == t.DefaultBranch && t.MayKeep() == nil
}

// ReusesEvaluation reports whether the job takes an evaluation from the cache, or leaves
// one there. A proposal does so only from holders of the key, because its author can
// write to its cache, and an evaluation says what there is to build.
func (t Trust) ReusesEvaluation() bool { return !t.Proposed() || t.Sealed }

// AcceptsUnsigned reports whether the job restores store paths that nothing proves but
// the index of the cache. A proposal does so only on a machine that ends with the job:
// its author can write to its cache, and on a machine that stays, others would use what
// was restored.
func (t Trust) AcceptsUnsigned() bool { return !t.Proposed() || t.Hosted || t.Sealed || t.Shared }

// SkipsProved reports whether what the record says that the default branch has built
// counts as built, where nothing is pushed.
func (t Trust) SkipsProved() bool { return t.Proposed() }
