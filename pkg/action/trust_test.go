package action_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/action"
)

// A kind of event has the same trust, by the kind of ref that a job runs on.
type kind map[string]string

var (
	// The names of refs in the tests.
	refs = map[string]string{
		"main": "refs/heads/main", "topic": "refs/heads/topic", "tag": "refs/tags/v1", "queue": "refs/heads/gh-readonly-queue/main/pr-7-0123",
		"pull": "refs/pull/7/merge", "head": "refs/pull/7/head", "none": "",
	}
	own = kind{
		"main": "keeps records", "topic": "keeps", "tag": "", "queue": "proposed", "pull": "proposed", "head": "proposed", "none": "",
	}
	quiet   = kind{"main": "", "topic": "", "tag": "", "queue": "proposed", "pull": "proposed", "head": "proposed", "none": ""}
	foreign = kind{
		"main": "proposed", "topic": "proposed", "tag": "proposed", "queue": "proposed", "pull": "proposed", "head": "proposed", "none": "proposed",
	}
	pullRequest = kind{
		"main": "proposed", "topic": "proposed", "tag": "proposed", "queue": "proposed", "pull": "proposed keeps", "head": "proposed keeps", "none": "proposed",
	}
)

// All events that trigger workflows, and some that don't exist.
var events = map[string]kind{
	"push": own, "schedule": own, "workflow_dispatch": own, "repository_dispatch": own,

	"branch_protection_rule": quiet, "create": quiet, "delete": quiet, "image_version": quiet, "label": quiet, "milestone": quiet,
	"page_build": quiet, "public": quiet, "registry_package": quiet, "release": quiet,

	"pull_request": pullRequest,

	"check_run": foreign, "check_suite": foreign, "deployment": foreign, "deployment_status": foreign, "discussion": foreign,
	"discussion_comment": foreign, "fork": foreign, "gollum": foreign, "issue_comment": foreign, "issues": foreign, "merge_group": foreign,
	"project": foreign, "project_card": foreign, "project_column": foreign, "pull_request_comment": foreign, "pull_request_review": foreign,
	"pull_request_review_comment": foreign, "pull_request_target": foreign, "status": foreign, "watch": foreign,
	"workflow_call": foreign, // a called workflow has the event of its caller
	"workflow_run":  foreign,
	"dynamic":       foreign, "an_event_to_come": foreign, "": foreign, "Push": foreign, "push ": foreign,
}

const (
	commit = "0123456789abcdef0123456789abcdef01234567"
	other  = "76543210fedcba9876543210fedcba9876543210"
)

func TestTrust(t *testing.T) {
	for event, kind := range events {
		for name, ref := range refs {
			want, ok := kind[name]
			if !ok {
				t.Fatalf("the kind of %q says nothing of %s", event, name)
			}
			t.Run(event+" on "+name, func(t *testing.T) {
				for _, heads := range [][]string{nil, {commit}, {commit, commit}, {other}, {commit, other}, {""}} {
					testTrust(t, action.Trust{Running: true, Event: event, Ref: ref, DefaultBranch: "main", Commit: commit, Heads: heads}, want)
				}
			})
		}
	}
}

func testTrust(t *testing.T, trust action.Trust, want string) {
	t.Helper()
	same := !slices.ContainsFunc(trust.Heads, func(head string) bool { return head != commit })
	proposed, keeps, records := strings.Contains(want, "proposed"), strings.Contains(want, "keeps"), strings.Contains(want, "records")
	if !same && !proposed {
		keeps, records = false, false // it is another commit's, and the cache is the branch's
	}
	if trust.Proposed() != proposed || trust.SkipsProved() != proposed {
		t.Errorf("%+v: proposed is %t", trust, trust.Proposed())
	}
	if err := trust.MayKeep(); (err == nil) != keeps {
		t.Errorf("%+v: %v", trust, err)
	}
	if branch, ok := trust.LeavesRecord(); ok != records || ok && branch != "main" {
		t.Errorf("%+v: a record of %q, %t", trust, branch, ok)
	}
	for n := range 8 {
		with := trust
		with.Hosted, with.Sealed, with.Shared = n&1 != 0, n&2 != 0, n&4 != 0
		if got := with.AcceptsUnsigned(); got != (!proposed || n != 0) {
			t.Errorf("%+v: accepts what is not signed: %t", with, got)
		}
		harmless := (with.Hosted || with.Sealed) && slices.Contains([]string{"pull_request", "merge_group", "push"}, with.Event)
		if got := with.AcceptsFlakeConfig(); got != (!proposed || harmless) {
			t.Errorf("%+v: accepts the caches of its flake: %t", with, got)
		}
		if got := with.ReusesEvaluation(); got != (!proposed || with.Sealed) {
			t.Errorf("%+v: reuses evaluations: %t", with, got)
		}
	}
	outside := trust
	outside.Running = false
	if _, records := outside.LeavesRecord(); outside.Proposed() || outside.MayKeep() != nil || !outside.AcceptsUnsigned() || !outside.ReusesEvaluation() || records {
		t.Errorf("%+v: outside of Actions", outside)
	}
}

// No other branch's runs leave a record, and no one's whose default branch is not known.
func TestNoRecord(t *testing.T) {
	for _, branch := range []string{"", "trunk", "mai", "main2"} {
		trust := action.Trust{Running: true, Event: "push", Ref: "refs/heads/main", DefaultBranch: branch, Commit: commit}
		if _, ok := trust.LeavesRecord(); ok {
			t.Errorf("of the default branch %q", branch)
		}
	}
}

// The facts as runners give them.
func TestTrustFacts(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	known := write("known.json", `{"repository": {"default_branch": "trunk"}}`)
	schedule := write("schedule.json", `{"schedule": "0 0 * * *"}`)
	for name, test := range map[string]struct {
		env  []string
		want string
	}{
		"a push":                     {[]string{"GITHUB_EVENT_NAME", "push", "GITHUB_REF", "refs/heads/trunk", "GITHUB_EVENT_PATH", known}, "trunk true"},
		"to another branch":          {[]string{"GITHUB_EVENT_NAME", "push", "GITHUB_REF", "refs/heads/main", "GITHUB_EVENT_PATH", known}, "main false"},
		"an event that is not there": {[]string{"GITHUB_EVENT_NAME", "push", "GITHUB_REF", "refs/heads/trunk", "GITHUB_EVENT_PATH", dir}, "trunk false"},
		"a schedule":                 {[]string{"GITHUB_EVENT_NAME", "schedule", "GITHUB_REF", "refs/heads/trunk", "GITHUB_EVENT_PATH", schedule}, "trunk true"},
		"a schedule without a ref":   {[]string{"GITHUB_EVENT_NAME", "schedule", "GITHUB_EVENT_PATH", schedule}, " false"},
		"outside":                    {[]string{"GITHUB_ACTIONS", "", "GITHUB_EVENT_NAME", "push", "GITHUB_REF", "refs/heads/trunk", "GITHUB_EVENT_PATH", known}, "trunk false"},
	} {
		a := action.New(env(append([]string{"GITHUB_ACTIONS", "true", "GITHUB_SHA", commit, "RUNNER_ENVIRONMENT", "self-hosted"}, test.env...)...), io.Discard)
		trust := a.Trust()
		branch, ok := trust.LeavesRecord()
		if got := fmt.Sprint(branch, " ", ok); got != test.want || trust.Hosted || trust.Commit != commit {
			t.Errorf("%s: %s, %+v", name, got, trust)
		}
	}
	if trust := action.New(env("GITHUB_ACTIONS", "true", "RUNNER_ENVIRONMENT", "github-hosted"), io.Discard).Trust(); !trust.Hosted {
		t.Errorf("%+v", trust)
	}
}

// The refs that a job may read, its own first. It always has one.
func TestRefs(t *testing.T) {
	event := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(event, []byte(`{"repository": {"default_branch": "main"}, "merge_group": {"base_ref": "refs/heads/next"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, env := range map[string]map[string]string{
		"[local]":            {"GITHUB_REF": "refs/heads/topic"},
		"[refs/heads/topic]": {"GITHUB_ACTIONS": "true", "GITHUB_REF": "refs/heads/topic"},
		"[local refs/heads/next refs/heads/main]": {"GITHUB_ACTIONS": "true", "GITHUB_EVENT_PATH": event},
		"[refs/pull/7/merge refs/heads/next refs/heads/main]": {
			"GITHUB_ACTIONS": "true", "GITHUB_EVENT_PATH": event, "GITHUB_REF": "refs/pull/7/merge", "GITHUB_BASE_REF": "main",
		},
	} {
		a := action.New(func(name string) string { return env[name] }, io.Discard)
		if got := fmt.Sprint(a.Trust().Refs()); got != want {
			t.Errorf("%v may read %s, want %s", env, got, want)
		}
	}
}

// A run whose ref is not that of its change counts for no ref.
func TestChangeRef(t *testing.T) {
	const main, pull, queue = "refs/heads/main", "refs/pull/7/merge", "refs/heads/gh-readonly-queue/main/pr-7"
	for _, test := range []struct{ event, ref, want string }{
		{"push", main, main},
		{"push", "refs/tags/v1", "refs/tags/v1"},
		{"schedule", main, main},
		{"release", "refs/tags/v1", "refs/tags/v1"},
		{"pull_request", pull, pull},
		{"merge_group", queue, queue},
		{"pull_request", main, ""},
		{"pull_request_target", main, ""},
		{"workflow_run", main, ""},
		{"issue_comment", main, ""},
		{"an_event_to_come", main, ""},
	} {
		if got := (action.Trust{Running: true, Event: test.event, Ref: test.ref}).ChangeRef(); got != test.want {
			t.Errorf("%s on %s: %q, want %q", test.event, test.ref, got, test.want)
		}
	}
	if got := (action.Trust{Event: "push", Ref: main}).ChangeRef(); got != "" {
		t.Errorf("outside of GitHub Actions: %q", got)
	}
}
