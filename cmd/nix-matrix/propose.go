package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/job"
)

// proposeVariable has the token that makes the pull request, if it is not that of the workflow.
const proposeVariable = "NIX_MATRIX_PROPOSE_TOKEN"

func newPropose(a *app) *cobra.Command {
	p := &proposer{app: a}
	cmd := &cobra.Command{
		Use:   "propose --update FILE",
		Short: "Open a pull request with an update of flake.lock",
		Long: `Puts the update that "nix-matrix update" has written on a branch, as one commit with
flake.lock alone, and opens a pull request with it; one that is open already is brought
up to date. A branch with commits of somebody else stays as it is, and is an error.
Nothing is evaluated here, and no checkout is needed.

It takes a token with the permissions contents: write and pull-requests: write from
` + proposeVariable + `, or else from ` + action.GitHubVariable + `. A pull request that a
workflow makes with its own token starts no workflows, so nothing checks it: give the
token of a GitHub App or of a person.

With --auto-merge, GitHub merges it when the rules of the branch are met. The repository
must allow that, and a rule must require a check.`,
		Example: `  nix-matrix update --out update.json && nix-matrix propose --update update.json
  nix-matrix propose --update update.json --auto-merge squash`,
		Args: noArguments("propose takes no %q: give the file with --update"),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.run(cmd.Context()) },
	}
	bindAs(cmd, flagvalue.Text(&p.file, "FILE", ""), "update", "file with the update")
	bind(cmd, flagvalue.New(&p.branch, "BRANCH", "update/flake-lock", parseBranch), "branch")
	bind(cmd, flagvalue.OneOf(&p.autoMerge, noMerge, noMerge, action.MergeSquash, action.MergeCommit, action.MergeRebase), "auto-merge")
	a.idFlag(cmd)
	return cmd
}

type proposer struct {
	app       *app
	file      string
	branch    string
	autoMerge string // the way to merge, or noMerge
}

// noMerge is the value of the flag by which a pull request does not merge itself.
const noMerge = "no"

var branchPattern = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9_+-]*(?:[./][A-Za-z0-9_+-]+)*$`)

// parseBranch accepts the name of a branch without characters that mean something elsewhere.
func parseBranch(text string) (string, error) {
	if !branchPattern().MatchString(text) || len(text) > 200 || strings.HasSuffix(text, ".lock") {
		return "", errors.New("must be the name of a branch, such as update/flake-lock")
	}
	return text, nil
}

func (p *proposer) run(ctx context.Context) error {
	a := p.app
	if p.file == "" {
		return usage.Errorf("cannot propose without an update. Give the file that nix-matrix update has written with --update")
	}
	docs, err := a.documents()
	if err != nil {
		return err
	}
	update, err := docs.ReadUpdate(p.file)
	if err != nil {
		return err
	}
	if err := p.check(update); err != nil {
		return err
	}
	api, own, err := p.api()
	if err != nil {
		return err
	}
	repository, err := api.Repository(ctx)
	if err != nil {
		return err
	}
	base := cmp.Or(strings.TrimPrefix(a.getenv("GITHUB_REF"), "refs/heads/"), repository.DefaultBranch)
	if p.branch == repository.DefaultBranch {
		return usage.Errorf("cannot propose the update on %s, which is the default branch. Name another --branch", p.branch)
	}
	const untested = "This pull request was made with the token of a workflow, which starts no workflows: close and reopen it to have it checked. The input `token`, of a GitHub App or a person, does without."
	body := update.Body
	if !own && a.action.Running() {
		body = "> [!NOTE]\n> " + untested + "\n\n" + body
	}
	a.log.Doing("opening the pull request")
	pull, err := api.Propose(ctx, &action.FileChange{
		Base: base, Commit: update.Commit, Branch: p.branch, File: update.LockFile, Content: update.Lock,
		Title: update.Title, Message: update.Message, Body: body, Mark: "Updated-by: nix-matrix " + a.id,
	})
	if err != nil {
		return err
	}
	if err := p.tell(pull); err != nil {
		return err
	}
	if !own && a.action.Running() {
		a.log.Warnf("%s", untested)
		a.action.Annotate(action.LevelNotice, "Nothing checks the pull request", untested)
	}
	if p.autoMerge == noMerge {
		return nil
	}
	if err := api.AutoMerge(ctx, pull, p.autoMerge); err != nil {
		return err
	}
	a.log.Printf("pull request %d merges itself when the rules of %s are met", pull.Number, base)
	return nil
}

// check returns an error unless the update is of the commit that this run is for: any job of the run can have written
// the file, and another commit could be a stranger's.
func (p *proposer) check(update *job.Update) error {
	a := p.app
	ref, commit := a.getenv("GITHUB_REF"), a.getenv("GITHUB_SHA")
	switch {
	case update.ID != a.id:
		return usage.Errorf("the update is of the id %s, not of %s. Give both jobs the same id", valid.Quote(update.ID), a.id)
	case a.action.Running() && (!strings.HasPrefix(ref, "refs/heads/") || action.ProposedRef(ref)):
		return usage.Errorf("cannot propose an update of %s, which is no branch. Run the workflow on a branch, by schedule or workflow_dispatch", valid.Quote(ref))
	case a.action.Running() && update.Commit != commit:
		return usage.Errorf("the update is of the commit %.10s, and this run is for %.10s. Check out the commit of the run, as actions/checkout does by default", update.Commit, commit)
	}
	return nil
}

// api returns GitHub's API, and whether its token is other than that of the workflow.
func (p *proposer) api() (api *action.GitHub, own bool, err error) {
	a := p.app
	config := a.action.GitHubConfig()
	config.Log = a.log.Printf
	if token := strings.TrimSpace(a.getenv(proposeVariable)); token != "" {
		a.action.Mask(token)
		config.Token, config.Own, own = token, proposeVariable, true
	}
	api, err = action.NewGitHub(config)
	return api, own, err
}

// tell says what became of the pull request.
func (p *proposer) tell(pull *action.Pull) error {
	a := p.app
	what := "is up to date"
	switch {
	case pull.Created:
		what = "is open"
	case pull.Pushed:
		what = "has a new commit"
	}
	a.log.Close()
	if err := a.print(fmt.Sprintf("pull request %d %s: %s\n", pull.Number, what, pull.URL)); err != nil {
		return err
	}
	if err := a.action.AddSummary(fmt.Sprintf("[Pull request %d](%s) %s.", pull.Number, pull.URL, what)); err != nil {
		return err
	}
	return a.action.SetOutput("pull_request", strconv.Itoa(pull.Number))
}
