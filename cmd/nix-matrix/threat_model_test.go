package main

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/push"
)

// A runCase is a row of the threat model: what the environment of its job says.
type runCase struct {
	event, ref, base string
	merges           string // base of a merge group
	from             string // repository of a pull request's head
	heads            []string
	secrets          bool // the job gets them
	outside          bool // of GitHub Actions
}

const (
	defaultRef = "refs/heads/main"
	topicRef   = "refs/heads/topic"
	baseRef    = "refs/heads/next"
	queueRef   = "refs/heads/gh-readonly-queue/next/pr-7-0123"
	pullRef    = "refs/pull/7/merge"
	tagRef     = "refs/tags/v1"
	us, fork   = "org/fleet", "somebody/fleet"
)

const thisCommit, otherCommit = "0123456789abcdef0123456789abcdef01234567", "76543210fedcba9876543210fedcba9876543210"

var runCases = map[string]runCase{
	"`push` to the default branch":                    {event: "push", ref: defaultRef, heads: []string{thisCommit}, secrets: true},
	"`push` to another branch":                        {event: "push", ref: topicRef, heads: []string{thisCommit}, secrets: true},
	"`push` of a tag":                                 {event: "push", ref: tagRef, heads: []string{thisCommit}, secrets: true},
	"`push` of a merge queue's branch":                {event: "push", ref: queueRef, heads: []string{thisCommit}, secrets: true},
	"`schedule`":                                      {event: "schedule", ref: defaultRef, heads: []string{thisCommit}, secrets: true},
	"`workflow_dispatch` on the default branch":       {event: "workflow_dispatch", ref: defaultRef, heads: []string{thisCommit}, secrets: true},
	"`workflow_dispatch` on another branch":           {event: "workflow_dispatch", ref: topicRef, heads: []string{thisCommit}, secrets: true},
	"`workflow_dispatch`, another commit checked out": {event: "workflow_dispatch", ref: defaultRef, heads: []string{otherCommit}, secrets: true},
	"`repository_dispatch`":                           {event: "repository_dispatch", ref: defaultRef, secrets: true},
	"`release`":                                       {event: "release", ref: tagRef, heads: []string{thisCommit}, secrets: true},
	"`pull_request` from a branch":                    {event: "pull_request", ref: pullRef, base: "next", from: us, heads: []string{otherCommit}, secrets: true},
	"`pull_request` from a fork":                      {event: "pull_request", ref: pullRef, base: "next", from: fork, heads: []string{thisCommit}},
	"`pull_request` that was merged":                  {event: "pull_request", ref: baseRef, base: "next", from: us, heads: []string{thisCommit}, secrets: true},
	"`pull_request_target`":                           {event: "pull_request_target", ref: defaultRef, base: "next", from: fork, heads: []string{otherCommit}, secrets: true},
	"`pull_request_review` from a fork":               {event: "pull_request_review", ref: pullRef, base: "next", from: fork, heads: []string{thisCommit}},
	"`merge_group`":                                   {event: "merge_group", ref: queueRef, merges: baseRef, heads: []string{thisCommit}, secrets: true},
	"`workflow_run`":                                  {event: "workflow_run", ref: defaultRef, heads: []string{otherCommit}, secrets: true},
	"`issue_comment`":                                 {event: "issue_comment", ref: defaultRef, heads: []string{thisCommit}, secrets: true},
	"any other event":                                 {event: "an_event_to_come", ref: defaultRef, heads: []string{thisCommit}, secrets: true},
	"outside of GitHub Actions":                       {outside: true, heads: []string{otherCommit}, secrets: true},
}

// app is what a command of the job has, on a runner of a kind.
func (c runCase) app(t *testing.T, runner string, seal *pack.Key) *jobOf {
	t.Helper()
	type object = map[string]any
	event := object{"repository": object{"default_branch": "main", "full_name": us}}
	switch {
	case c.event == "schedule":
		event = object{"schedule": "0 0 * * *"}
	case c.merges != "":
		event["merge_group"] = object{"base_ref": c.merges}
	case c.from != "":
		event["pull_request"] = object{"number": 7, "head": object{"repo": object{"full_name": c.from}}}
	}
	data, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	if !c.outside {
		env = map[string]string{
			"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": c.event, "GITHUB_EVENT_PATH": file, "GITHUB_REF": c.ref, "GITHUB_BASE_REF": c.base,
			"GITHUB_SHA": thisCommit, "RUNNER_ENVIRONMENT": runner,
		}
	}
	if c.secrets {
		env["ATTIC_TOKEN"] = "token"
	}
	a := newApp(streams{err: io.Discard}, func(name string) string { return env[name] })
	a.id = job.DefaultID
	docs, err := a.documents()
	if err != nil {
		t.Fatal(err)
	}
	docs.Trust.Heads, docs.Trust.Sealed = c.heads, seal != nil
	return &jobOf{a, docs}
}

// jobOf has what decides about a job.
type jobOf struct {
	*app
	docs *documents.Store
}

func (j *jobOf) trust() *action.Trust { return j.docs.Trust }
func (j *jobOf) keeps() bool          { return j.docs.Keeps() }

// The columns of the table, each with what decides about it.
var threatColumns = map[string]func(t *testing.T, c runCase, seal *pack.Key) string{
	"Proposal": func(t *testing.T, c runCase, seal *pack.Key) string {
		return yes(c.app(t, "github-hosted", seal).trust().Proposed())
	},
	"Reads": func(t *testing.T, c runCase, seal *pack.Key) string {
		var names []string
		for i, ref := range c.app(t, "github-hosted", seal).trust().Refs() {
			switch {
			case ref == "local":
				names = append(names, "everybody's")
			case i == 0 && ref == c.ref:
				names = append(names, "itself")
			case ref == defaultRef:
				names = append(names, "default branch")
			case ref == baseRef:
				names = append(names, "base branch")
			default:
				names = append(names, ref)
			}
		}
		return strings.Join(names, ", ")
	},
	"Keeps for": func(t *testing.T, c runCase, seal *pack.Key) string {
		a := c.app(t, "github-hosted", seal)
		switch {
		case !a.keeps():
			return "nobody"
		case c.outside:
			return "everybody"
		default:
			return "itself"
		}
	},
	"Restores, GitHub's runner": func(t *testing.T, c runCase, seal *pack.Key) string { return restores(c.app(t, "github-hosted", seal)) },
	"Restores, other runner":    func(t *testing.T, c runCase, seal *pack.Key) string { return restores(c.app(t, "self-hosted", seal)) },
	"Flake's caches, GitHub's runner": func(t *testing.T, c runCase, seal *pack.Key) string {
		return yes(c.app(t, "github-hosted", seal).trust().AcceptsFlakeConfig())
	},
	"Flake's caches, other runner": func(t *testing.T, c runCase, seal *pack.Key) string {
		return yes(c.app(t, "self-hosted", seal).trust().AcceptsFlakeConfig())
	},
	"Evaluation": func(t *testing.T, c runCase, seal *pack.Key) string {
		a := c.app(t, "github-hosted", seal)
		switch takes := a.trust().ReusesEvaluation(); {
		case takes && a.keeps():
			return "takes, leaves"
		case takes:
			return "takes"
		default:
			return "–"
		}
	},
	"Record": func(t *testing.T, c runCase, seal *pack.Key) string {
		if _, leaves := c.app(t, "github-hosted", seal).trust().LeavesRecord(); leaves {
			return "leaves"
		}
		return "–"
	},
	"Green is": func(t *testing.T, c runCase, seal *pack.Key) string {
		if c.app(t, "github-hosted", seal).trust().SkipsProved() {
			return "built or recorded"
		}
		return "built"
	},
	"Pushes": func(t *testing.T, c runCase, seal *pack.Key) string {
		to, err := push.Parse("attic:https://attic.example.org/fleet")
		if err != nil {
			t.Fatal(err)
		}
		return yes(to.Lacks(push.Secrets{AtticToken: c.app(t, "github-hosted", seal).getenv("ATTIC_TOKEN")}) == nil)
	},
	"Comments": func(t *testing.T, c runCase, seal *pack.Key) string {
		pull, err := c.app(t, "github-hosted", seal).action.PullRequest()
		if err != nil {
			t.Fatal(err)
		}
		return yes(pull.Number > 0 && !pull.Fork)
	},
	"Runs `post_green`": func(t *testing.T, c runCase, seal *pack.Key) string {
		return yes(c.app(t, "github-hosted", seal).action.ForeignChange() == "")
	},
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

func restores(a *jobOf) string {
	if a.trust().AcceptsUnsigned() {
		return "all"
	}
	return "proven"
}

// threatTable reads the table below a heading: its columns but the first, and its rows
// by their first cell.
func threatTable(t *testing.T, document, heading string) (columns []string, rows map[string][]string) {
	t.Helper()
	_, section, ok := strings.Cut(document, "\n"+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows = map[string][]string{}
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case columns == nil:
			columns = cells[1:]
		case len(cells) != len(columns)+1:
			t.Fatalf("%q has %d cells", line, len(cells))
		case rows[cells[0]] != nil:
			t.Fatalf("%q is there twice", cells[0])
		default:
			rows[cells[0]] = cells[1:]
		}
	}
	if !ok || len(rows) == 0 {
		t.Fatalf("there is no table below %q", heading)
	}
	return columns, rows
}

// The table in the threat model says what the code decides, for each of its rows.
func TestThreatModel(t *testing.T) {
	const file = "../../docs/threat-model.md"
	document, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	columns, rows := threatTable(t, string(document), "## Who may do what")
	if diff := cmp.Diff(slices.Sorted(maps.Keys(threatColumns)), slices.Sorted(slices.Values(columns))); diff != "" {
		t.Errorf("columns, - of this test + of the document:\n%s", diff)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(runCases)), slices.Sorted(maps.Keys(rows))); diff != "" {
		t.Errorf("rows, - of this test + of the document:\n%s", diff)
	}
	key, err := pack.NewKey("a secret for the tests")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range runCases {
		t.Run(name, func(t *testing.T) {
			for i, column := range columns {
				decide := threatColumns[column]
				if decide == nil || len(rows[name]) == 0 {
					continue // which was said above
				}
				want := decide(t, c, nil)
				if sealed := decide(t, c, key); sealed != want {
					want += " (" + sealed + ")"
				}
				if got := rows[name][i]; got != want {
					t.Errorf("%s: the document says %q, the code %q", column, got, want)
				}
			}
		})
	}
}
