package e2e_test

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/action/githubtest"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
	"github.com/org/nix-matrix/pkg/push/attic/attictest"
	"github.com/org/nix-matrix/pkg/verdict"
)

// An adopter follows docs/getting-started.md: a push of the pasted workflow to main fills the binary cache, and a pull
// request after it builds what it changes, and says so.
type adopter struct {
	push
	t       *testing.T
	service *actionstest.Running
}

// pasted returns the workflow of that name on the page.
func pasted(t *testing.T, name string) string {
	t.Helper()
	for _, s := range snippets(t) {
		if s.page == "docs/getting-started.md" && strings.HasPrefix(s.workflow, "name: "+name+"\n") {
			return s.workflow
		}
	}
	t.Fatalf("docs/getting-started.md has no workflow %s", name)
	return ""
}

// Main and its pull request have scopes of their own in the Actions cache; only main may write to that of main.
var (
	mainScope = actionstest.Scope{Scope: actionstest.Main, Permission: actionstest.Read | actionstest.Write}
	readMain  = actionstest.Scope{Scope: actionstest.Main, Permission: actionstest.Read}
	pullScope = actionstest.Scope{Scope: "refs/pull/7/merge", Permission: actionstest.Read | actionstest.Write}
)

// run runs the workflow of a push to main, or of the pull request.
func (a *adopter) run(pull int, scopes ...actionstest.Scope) *run {
	a.t.Helper()
	p := a.push
	p.pull, p.artifacts = pull, loopback()
	p.runtime = runtimeV2(a.t, p.artifacts, a.service.TokenFor(scopes...), a.service)
	r := p.start(a.t)
	r.wait()
	return r
}

// change commits a file in which text was replaced.
func (a *adopter) change(file, old, with string) {
	a.t.Helper()
	file = filepath.Join(a.repository, file)
	write(a.t, file, replace(a.t, read(a.t, file), old, with))
	commit(a.t, a.repository)
}

// changes checks that the page of the run says how many targets differ from main, and names no others.
func (r *run) changes(counts string, targets ...string) {
	r.t.Helper()
	_, section, _ := strings.Cut(r.summary("nix/report"), "\n### Changes\n")
	section, _, _ = strings.Cut(section, "\n### ")
	if !strings.HasPrefix(section, "\nCompared with ") || !strings.Contains(section, ": "+counts+";") {
		r.t.Errorf("the section about changes does not say %q, but: %s", counts, section)
	}
	var named []string
	for line := range strings.Lines(section) {
		if name, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ = strings.Cut(name, "`")
			named = append(named, name)
		}
	}
	if diff := cmp.Diff(targets, named); diff != "" {
		r.t.Errorf("the targets that change, - want + got:\n%s", diff)
	}
}

// counted checks how many targets the verdict counts, by outcome.
func (r *run) counted(want verdict.Counts) {
	r.t.Helper()
	var got verdict.Verdict
	if err := json.Unmarshal([]byte(r.output("nix/report", "results")), &got); err != nil {
		r.t.Errorf("the output results: %v", err)
	}
	if diff := cmp.Diff(want, got.Counts); diff != "" || got.Status != verdict.Success {
		r.t.Errorf("the verdict is %s with the counts, - want + got:\n%s", got.Status, diff)
	}
}

// Machines of one's own: the example fleet, of which a pull request changes one machine.
func machines(t *testing.T, product string) {
	a := &adopter{t: t, service: actionstest.Start(t, actionstest.Options{}), push: push{
		repository: fleet(t, pasted(t, "machines")), product: product, cachix: newCachix(t),
		emulation: true, // this is the machine ubuntu-24.04-arm too
	}}
	r := a.run(0, mainScope)
	r.expect(all("success", "nix/", append(slices.Clone(fleetJobs), "discover", "report")...))
	r.verdict("nix/report", "✅ nix-matrix: all 18 targets are done")
	checkHandover(t, r, "nix/")
	if got := r.step("nix/nixosConfigurations.pi3", "Set up emulation"); got != "" {
		t.Errorf("emulation was set up on an ARM machine: %s", got)
	}
	checkPushes(t, a.cachix)

	a.change("hosts/notado/default.nix", "port = 8080", "port = 8081")
	r = a.run(githubtest.PullRequest, pullScope, readMain)
	r.expect(all("success", "nix/", "discover", "nixosConfigurations.notado", "report"))
	r.counted(verdict.Counts{Built: 1, Skipped: 17})
	r.changes("1 changed, 17 unchanged", "nixosConfigurations.notado")
	if jobs, _ := a.cachix.pushed(t); jobs != len(fleetJobs)+1 {
		t.Errorf("%d jobs have pushed, want one more than %d", jobs, len(fleetJobs))
	}
}

// A company's monorepo, on runners of its own: one machine of two changes.
func monorepo(t *testing.T, product string) {
	attic := attictest.Start(t, attictest.Options{Cache: "monorepo", Dir: t.TempDir()})
	a := &adopter{t: t, service: actionstest.Start(t, actionstest.Options{}), push: push{
		repository: small(t, replace(t, pasted(t, "monorepo"), "https://attic.example.org", attic.URL),
			`sh "x86_64-linux" "test" "one"`, `derivation { name = "test"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo >$out" ]; requiredSystemFeatures = [ "kvm" ]; }`),
		product: product,
		secrets: map[string]string{"ATTIC_TOKEN": attic.Token(true, true), "INPUTS_TOKEN": "github_pat_of_inputs"},
	}}
	check := func(r *run, uploads int) {
		t.Helper()
		if n := len(attic.Uploads()); n != uploads {
			t.Errorf("Attic has %d paths, want %d", n, uploads)
		}
		for _, name := range r.uploaded() {
			if bytes.Contains(r.artifact(name), []byte("/nix/store")) {
				t.Errorf("the artifact %s is in clear", name)
			}
		}
	}
	r := a.run(0, mainScope)
	r.expect(all("success", "nix/", append(slices.Clone(smallHosts), "homeConfigurations.anna@alpha", "packages.x86_64-linux.tool", "checks.x86_64-linux.test", "discover", "report")...))
	r.counted(verdict.Counts{Built: 5})
	check(r, 5)

	a.change("flake.nix", `"alpha" "one"`, `"alpha" "two"`)
	r = a.run(githubtest.PullRequest, pullScope, readMain)
	r.expect(all("success", "nix/", "discover", "nixosConfigurations.alpha", "report"))
	r.counted(verdict.Counts{Built: 1, Skipped: 4})
	r.changes("1 changed, 4 unchanged", "nixosConfigurations.alpha")
	check(r, 6)
}
