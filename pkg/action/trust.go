package action

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Trust has the facts of a job that decide whose code it runs, and so which caches of
// others it may read and write. It reads nothing: [Action.Trust] takes the facts from
// the environment, and the caller adds those that the environment lacks.
type Trust struct {
	Running       bool   // in GitHub Actions; elsewhere everything is the user's own
	Event         string // that triggered the workflow, GITHUB_EVENT_NAME
	Ref           string // GITHUB_REF, in full; empty where the event has none
	BaseRefs      []string
	DefaultBranch string // its name; empty if the event lacks it
	Commit        string // that the workflow runs for, GITHUB_SHA
	Hosted        bool   // on a runner of GitHub's, which ends with the job

	// Heads are the commits of the checkouts that were evaluated, empty texts for
	// checkouts whose commit can't be read. There are none without a checkout.
	Heads  []string
	Sealed bool // there is a key, and only its holders can write the cache
	Shared bool // the cache is a directory, whose users trust each other
}

// Trust returns the facts that the environment has.
func (a *Action) Trust() Trust {
	t := Trust{
		Running: a.Running(), Event: a.getenv("GITHUB_EVENT_NAME"), Ref: a.getenv("GITHUB_REF"),
		Commit: a.getenv("GITHUB_SHA"), Hosted: a.getenv("RUNNER_ENVIRONMENT") == "github-hosted",
	}
	if !t.Running {
		return t
	}
	e, _ := a.readEvent() // an event that can't be read has no facts
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
	localRef  = "local" // stands for the ref of a job that has none
)

// ProposedRef reports whether a ref has a change that is not merged: a pull request's,
// or one of a merge queue.
func ProposedRef(ref string) bool {
	return strings.HasPrefix(ref, pullRef) || strings.HasPrefix(ref, branchRef+"gh-readonly-queue/")
}

// The events that trigger a workflow for the code of the repository itself, and that
// only a person with write access can cause. All other events, future ones included, may
// be about anybody's code: they are of pull requests, or run on the default branch and
// are about an object that anybody can make, such as a comment, or the end of another
// workflow.
var (
	// After these, later runs may reuse the results of the run.
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

// ChangeRef returns the ref of the change that the job runs for, in full. It is empty outside of GitHub
// Actions, and for an event whose ref may be another than that of the code that is built, such as
// pull_request_target.
func (t Trust) ChangeRef() string {
	if !t.Running || t.Proposed() && !ProposedRef(t.Ref) {
		return ""
	}
	return t.Ref
}

// Refs returns the refs whose caches the job reads: its own first, which it also writes,
// then the one that its change goes to, then the default branch. Outside of GitHub
// Actions there is one for everybody, and those that the caller has added to BaseRefs.
func (t Trust) Refs() []string {
	if !t.Running {
		return append([]string{localRef}, t.BaseRefs...)
	}
	refs := append([]string{cmp.Or(t.Ref, localRef)}, t.BaseRefs...)
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

// MayKeep returns nil if later runs may reuse the results of this job, else an error with the
// reason. Documents that the jobs of one run hand to each other are not concerned.
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
// one there. A proposal does so only with a key, because its author can write to its
// cache, and an evaluation decides what is built.
func (t Trust) ReusesEvaluation() bool { return !t.Proposed() || t.Sealed }

// AcceptsUnsigned reports whether the job restores store paths whose only proof is the
// index of the cache. A proposal does so only on a machine that ends with the job:
// its author can write to its cache, and on a machine that stays, others would use the
// restored paths.
func (t Trust) AcceptsUnsigned() bool { return !t.Proposed() || t.Hosted || t.Sealed || t.Shared }

// AcceptsFlakeConfig reports whether the job may trust binary caches because its flake names them:
// they decide which contents a path has. A proposal does so only where that harms nobody else: on
// a machine that ends with the job, or of people with the key, and for an event that gives
// strangers no secrets, with which the job could push these contents.
func (t Trust) AcceptsFlakeConfig() bool {
	return !t.Proposed() || (t.Hosted || t.Sealed) && slices.Contains([]string{"pull_request", "merge_group", "push"}, t.Event)
}

// FlakeConfigRefused says that [Trust.AcceptsFlakeConfig] is false.
const FlakeConfigRefused = "the binary caches in the flake's nixConfig are not used: the run is for a proposal, whose author can name any, " +
	"on a runner that GitHub does not host and without encryption_key, or for an event that can give strangers secrets"

// SkipsProved reports whether derivations that the default branch has built, by its record,
// count as built if nothing is pushed.
func (t Trust) SkipsProved() bool { return t.Proposed() }
