package e2e_test

import (
	"bytes"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/action/githubtest"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
	"github.com/org/nix-matrix/pkg/verdict"
)

// A library on four systems. A pull request that changes one package has a comment that names it, and a check for each
// target on its head, which a rerun changes. One from a fork has no secrets, and a merge queue builds nothing that its
// pull request has built. A caller that lets its jobs only read is told which lines comment and checks want. In the
// end, room is made.
func library(t *testing.T, product string) {
	var targets, jobs []string
	for _, system := range []string{"aarch64-darwin", "aarch64-linux", "x86_64-darwin", "x86_64-linux"} {
		jobs = append(jobs, "packages and checks "+system)
		targets = append(targets, "checks."+system+".test", "packages."+system+".tool")
	}
	slices.Sort(targets)
	const changed = "packages.x86_64-linux.tool"
	paste := replace(t, pasted(t, "library"), "cachix:my-library", "cachix:my-fleet")
	example := replace(t, read(t, filepath.Join(root, "examples/workflows/library.yml")), "cachix:my-library", "cachix:my-fleet")
	flake := read(t, "testdata/library/flake.nix")
	a := &adopter{t: t, service: actionstest.Start(t, actionstest.Options{}), push: push{product: product, cachix: newCachix(t), repository: t.TempDir()}}
	write(t, filepath.Join(a.repository, "flake.nix"), flake)
	// use has the repository use a workflow, whose token may what it says.
	use := func(workflow, job string, with githubtest.Options) {
		repository(t, a.repository, workflow)
		with.Permissions = parseText[workflowFile](t, "the workflow", workflow).granted(job)
		a.api = githubtest.Start(t, with)
	}
	// pushed checks how many jobs have pushed.
	pushed := func(want int) {
		t.Helper()
		if got, _ := a.cachix.pushed(t); got != want {
			t.Errorf("%d jobs have pushed, want %d", got, want)
		}
	}

	use(paste, "nix", githubtest.Options{})
	r := a.run(0, mainScope)
	r.expect(all("success", "nix/", append(slices.Clone(jobs), "discover", "report")...))
	r.counted(verdict.Counts{Built: 8})
	pushed(4)
	if comments := a.api.Comments(); len(comments) > 0 {
		t.Errorf("a push has the comments %v", comments)
	}
	if n := len(a.api.CheckRuns()); n != len(targets) {
		t.Errorf("a push with %d targets has %d checks", len(targets), n)
	}

	// comment returns the one that there is.
	comment := func() string {
		t.Helper()
		comments := a.api.Comments()
		if len(comments) != 1 {
			t.Fatalf("there are %d comments: %v", len(comments), comments)
		}
		return comments[0].Body
	}
	// checks returns the conclusions of those on the head of the pull request, of which one was changed so many times.
	checks := func(revisions int) map[string]string {
		t.Helper()
		conclusions := map[string]string{}
		for _, c := range a.api.CheckRuns() {
			if c.HeadSHA != pullHead {
				continue // of the push
			}
			if conclusions[c.Name] != "" {
				t.Errorf("%s has two checks", c.Name)
			}
			if c.Name == "nix-matrix: "+changed && c.Revisions != revisions {
				t.Errorf("%s was changed %d times, want %d", c.Name, c.Revisions, revisions)
			}
			conclusions[c.Name] = c.Conclusion
		}
		return conclusions
	}
	want := map[string]string{}
	for _, target := range targets {
		want["nix-matrix: "+target] = "skipped"
	}
	a.change("flake.nix", `x86_64-linux = "one"`, `x86_64-linux = "two"`)
	r = a.run(githubtest.PullRequest, pullScope, readMain)
	r.expect(all("success", "nix/", changed, "discover", "report"))
	r.changes("1 changed, 7 unchanged", changed)
	pushed(5)
	var named []string
	first := comment()
	for _, target := range targets {
		if strings.Contains(first, target) {
			named = append(named, target)
		}
	}
	if diff := cmp.Diff([]string{changed}, named); diff != "" {
		t.Errorf("the comment names, - want + got:\n%s\n%s", diff, first)
	}
	want["nix-matrix: "+changed] = "success"
	if diff := cmp.Diff(want, checks(0)); diff != "" {
		t.Errorf("the checks, - want + got:\n%s", diff)
	}

	// All jobs run again, with the longer file, and find what the first attempt has pushed.
	repository(t, a.repository, example)
	a.again = r
	r = a.run(githubtest.PullRequest, pullScope, readMain)
	a.again = nil
	r.expect(all("success", "nix/", "discover", "report"))
	r.changes("1 changed, 7 unchanged", changed)
	if comment() == first {
		t.Error("the comment is that of the first attempt")
	}
	want["nix-matrix: "+changed] = "skipped"
	if diff := cmp.Diff(want, checks(1)); diff != "" {
		t.Errorf("the checks after a rerun, - want + got:\n%s", diff)
	}
	a.event = "merge_group"
	r = a.run(0, pullScope, readMain)
	a.event = ""
	r.expect(all("success", "nix/", "discover", "report"))
	r.verdict("nix/report", "✅ nix-matrix: there is nothing to build, 8 targets are skipped")
	pushed(5)

	use(leaveOut(t, leaveOut(t, replace(t, paste, "      comment: true\n", "      comment: true\n      badge: badge.json\n      junit: junit.xml\n      post_green: cat \"$NIX_MATRIX_PATHS\"\n"), "pull-requests: write"), "checks: write"), "nix", githubtest.Options{})
	r = a.run(githubtest.PullRequest, pullScope, readMain)
	r.expect(all("success", "nix/", "discover", "report"))
	for _, permission := range []string{"pull-requests: write", "checks: write"} {
		if !slices.ContainsFunc(r.lines, func(l line) bool {
			return l.name() == "nix/report" && strings.Contains(l.Arg+l.Message, "Add the line `"+permission+"` below `permissions:` of the job")
		}) {
			t.Errorf("nobody says that %s is missing", permission)
		}
	}
	if badge, want := r.artifact("nix-matrix.report"), `"message":"8 targets"`; !bytes.Contains(badge, []byte(want)) {
		t.Errorf("the badge is %s", badge)
	}
	if files, want := r.artifact("nix-matrix.report"), `<testcase name="`+changed+`"`; !bytes.Contains(files, []byte(want)) {
		t.Errorf("the files of the report lack %s: %s", want, files)
	}
	r.says("nix/report", `^\{.*"`+regexp.QuoteMeta(changed)+`":\{"out":"/nix/store/[^"]*-tool"\}`, `^post_green: done`)
	if summary := r.summary("nix/report"); !strings.Contains(summary, "### Cost") || !strings.Contains(summary, "- saved by skipping 8 targets") {
		t.Errorf("the summary does not say what the run costs: %s", summary)
	}

	// A fork's token may only read, and write to a scope of its own; one that may not even do that hands over by
	// artifacts.
	write(t, filepath.Join(a.repository, "flake.nix"), replace(t, flake, `aarch64-darwin = "one"`, `aarch64-darwin = "two"`))
	repository(t, a.repository, paste)
	a.api, a.fork = githubtest.Start(t, githubtest.Options{Permissions: map[string]string{"contents": "read", "checks": "read", "pull-requests": "read"}}), true
	before := len(a.service.Entries())
	for _, fork := range []struct {
		scopes        []actionstest.Scope
		fromArtifacts string
	}{{[]actionstest.Scope{readMain}, "success"}, {[]actionstest.Scope{pullScope, readMain}, ""}} {
		r = a.run(githubtest.PullRequest, fork.scopes...)
		const entry = "packages.aarch64-darwin.tool"
		r.expect(all("success", "nix/", "discover", entry, "report"))
		if got := r.step("nix/"+entry, "nix-matrix, from artifacts"); got != fork.fromArtifacts {
			t.Errorf("with the scopes %v, from artifacts: %q", fork.scopes, got)
		}
		r.counted(verdict.Counts{Built: 1, Skipped: 7})
		r.changes("1 changed, 7 unchanged", entry)
	}
	pushed(5)
	if comments, checks := a.api.Comments(), a.api.CheckRuns(); len(comments) > 0 || len(checks) > 0 {
		t.Errorf("a pull request from a fork has the comments %v and the checks %v", comments, checks)
	}
	if len(a.service.Entries()) == before {
		t.Error("the pull request has left nothing in its scope")
	}
	for _, e := range a.service.Entries()[before:] {
		if e.Scope != pullScope.Scope {
			t.Errorf("the pull request has written %s into %s", e.Key, e.Scope)
		}
	}
	a.fork = false

	ago := func(days time.Duration) time.Time { return time.Now().Add(-days * 24 * time.Hour) }
	use(read(t, filepath.Join(root, "examples/workflows/gc.yml")), "gc", githubtest.Options{Caches: []githubtest.Cache{
		{Key: "nix-matrix-plan0-" + strings.Repeat("0", 32), Ref: "refs/heads/main", Size: 1000, Created: ago(20), Used: ago(9)},
		{Key: "nix-matrix-plan0-" + strings.Repeat("1", 32), Ref: "refs/heads/main", Size: 1000, Created: ago(20), Used: ago(2)},
		{Key: "somebody-elses", Ref: "refs/heads/main", Size: 1000, Created: ago(20), Used: ago(9)},
	}})
	a.event = "schedule"
	r = a.run(0, mainScope)
	r.expect(all("success", "", "gc"))
	var left []string
	for _, c := range a.api.Caches() {
		left = append(left, c.Key)
	}
	if diff := cmp.Diff([]string{"nix-matrix-plan0-" + strings.Repeat("1", 32), "somebody-elses"}, left); diff != "" {
		t.Errorf("what is left in the cache, - want + got:\n%s", diff)
	}
}
