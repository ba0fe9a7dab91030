// Package e2e_test runs the real action.yml and the real reusable workflow, as users name them, under act.
//
// What is not real: GitHub's own actions, for which testdata/actions has stand-ins, and the machines. A run
// of act has namespaces of its own (see enter), and each job that installs Nix gets a /nix of its own (see
// testdata/actions/install-nix-action). act shows variables to the shell that GitHub does not: the runtime
// variables are given to JavaScript alone (see testdata/runner.js), and those of inputs are generated.
package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
	"github.com/org/nix-matrix/pkg/job"
)

const binary = "nix-matrix-" + runtime.GOOS + "-" + runtime.GOARCH

// The jobs of the fleet, but discover and report.
var fleetJobs = []string{
	"nixosConfigurations.hetzner", "nixosConfigurations.nixsl", "nixosConfigurations.notado", "nixosConfigurations.pi3",
	"homeConfigurations.anna@nixsl", "homeConfigurations.anna@notado",
	"packages and checks x86_64-linux", "packages and checks aarch64-linux",
}

func TestWorkflows(t *testing.T) {
	testbench.Path(t, "bin/act") // nothing is worth preparing without it
	probe := append(slices.Clone(namespaces), "mount", "-t", "binfmt_misc", "none", "/proc/sys/fs/binfmt_misc")
	if out, err := exec.CommandContext(t.Context(), testbench.Program(t, "unshare"), probe...).CombinedOutput(); err != nil {
		testbench.NeedsRoot(t, fmt.Errorf("with Linux 6.7 or newer, a binfmt_misc of its own: %w: %s", err, out))
	}
	mkdir(t, "/nix")
	source := checkout(t)
	command(t, source, "scripts/build-dist", "--host", "v0.0.0")
	product := used(t, source)

	for name, adopt := range map[string]func(*testing.T, string){"machines": machines, "library": library, "monorepo": monorepo} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			adopt(t, product)
		})
	}

	for version, cache := range map[string]func(*testing.T, string) map[string]string{
		"v1": cacheV1,
		"v2": cacheV2,
	} {
		t.Run("steps, cache "+version, func(t *testing.T) {
			t.Parallel()
			artifacts := loopback()
			runtime := cache(t, artifacts)
			if version == "v1" { // as on a GitHub Enterprise Server, where the cache alone hands over
				runtime["NO_ARTIFACTS"] = "true"
			}
			r := (&push{
				repository: fleet(t, quickStart(t, "steps")), product: product,
				artifacts: artifacts, runtime: runtime,
			}).start(t)
			r.wait()
			if n := len(r.uploaded()); (n == 0) != (version == "v1") {
				t.Errorf("%d artifacts were uploaded", n)
			}
			r.expect(all("success", "", append(fleetJobs, "discover", "report")...))
			r.verdict("discover", "nix-matrix: 18 to build in 8 entries, 0 skipped, 0 failed to evaluate")
			r.verdict("report", "✅ nix-matrix: all 18 targets are done")
			checkHandover(t, r, "")
			if got := r.step("nixosConfigurations.pi3", "Set up emulation"); got != "success" {
				t.Errorf("setting up the emulation: %q", got)
			}
			if got := r.step("nixosConfigurations.hetzner", "Set up emulation"); got != "" {
				t.Errorf("emulation was set up for x86_64: %s", got)
			}
			if !regexp.MustCompile("(?m)^\\| `nixosConfigurations\\.pi3`[^|]* \\| `aarch64-linux` \\| built, emulated \\|").MatchString(r.summary("report")) {
				t.Error("the summary does not say that pi3 was built emulated")
			}
		})
	}

	testStoreCache(t, product)
	testOnce(t, product)

	t.Run("release", func(t *testing.T) {
		t.Parallel()
		artifacts, cachix := loopback(), newCachix(t)
		released, action := release(t, source, "v9.8.7")
		released = used(t, released)
		r := (&push{
			repository: fleet(t, leaveOut(t, quickStart(t, "reusable"), "# leave out for qemu")),
			product:    released, ref: action,
			artifacts: artifacts, runtime: cacheV1(t, artifacts), cachix: cachix,
			emulation: true, // by a handler that is registered already
		}).start(t)
		r.wait()
		r.expect(all("success", "nix/", append(fleetJobs, "discover", "report")...))
		r.verdict("nix/report", "✅ nix-matrix: all 18 targets are done")
		checkHandover(t, r, "nix/")
		if got := r.step("nix/nixosConfigurations.pi3", "Set up emulation"); got != "" {
			t.Errorf("emulation was set up though a handler was registered: %s", got)
		}
		checkPushes(t, cachix)
		if !slices.ContainsFunc(r.lines, func(l line) bool { return strings.Contains(l.Message, "org/nix-matrix with ref "+action) }) {
			t.Error("the workflow of the release does not use the action of the release")
		}
	})

	t.Run("broken host", func(t *testing.T) {
		t.Parallel()
		artifacts, cachix := loopback(), newCachix(t)
		workflow := leaveOut(t, quickStart(t, "reusable"), "# leave out for qemu")
		repository := fleet(t, replace(t, workflow, "    with:\n", "    with:\n      installables: .#nixosConfigurations\n"))
		host := filepath.Join(repository, "hosts/notado/default.nix")
		write(t, host, replace(t, read(t, host), "port = 8080", "port = 80"))
		commit(t, repository)
		r := (&push{
			repository: repository, product: product,
			artifacts: artifacts, runtime: cacheV2(t, artifacts), cachix: cachix,
		}).start(t)
		r.wait()
		want := all("success", "nix/", "discover", "nixosConfigurations.hetzner", "nixosConfigurations.nixsl", "nixosConfigurations.pi3")
		want["nix/nixosConfigurations.notado"] = "failure"
		want["nix/report"] = "failure"
		r.expect(want)
		r.verdict("nix/report", "❌ nix-matrix: 1 of 4 targets failed")
		// The cause comes first, on the page and in the annotation.
		const cause = "notado.toml failed: builder failed with exit code 1"
		_, failed, _ := strings.Cut(r.summary("nix/report"), "#### ")
		if first, _, _ := strings.Cut(failed, "\n"); strings.ReplaceAll(first, "`", "") != cause || !strings.Contains(failed, "it can't listen on port 80") {
			t.Errorf("the summary does not begin with why: %s", r.summary("nix/report"))
		}
		if first, _, _ := strings.Cut(r.annotation("nix/report"), "\n"); first != cause {
			t.Errorf("the annotation begins with %q", first)
		}
		if !slices.ContainsFunc(r.uploaded(), func(name string) bool { return strings.HasPrefix(name, "nix-matrix.log.") }) {
			t.Errorf("the whole log is not among the artifacts %q", r.uploaded())
		}
		if named := regexp.MustCompile("Its log: `\\S+-notado.toml.log in the artifact (\\S+)`").FindStringSubmatch(r.summary("nix/report")); named == nil || !slices.Contains(r.uploaded(), named[1]) {
			t.Errorf("the summary does not name the artifact with the log: %q of %q", named, r.uploaded())
		}
		_, pushed := cachix.pushed(t)
		for _, host := range []string{"hetzner", "nixsl", "notado", "pi3"} {
			if got, want := pushed["nixos-system-"+host+"-24.11"] != "", host != "notado"; got != want {
				t.Errorf("%s was pushed: %v", host, got)
			}
		}
	})

	t.Run("fifty hosts, two of which fail", func(t *testing.T) {
		t.Parallel()
		artifacts := loopback()
		dir := t.TempDir()
		write(t, filepath.Join(dir, "flake.nix"), read(t, "testdata/fifty/flake.nix"))
		r := (&push{
			repository: repository(t, dir, quickStart(t, "steps")), product: product,
			artifacts: artifacts, runtime: cacheV2(t, artifacts),
		}).start(t)
		r.wait()
		want := all("success", "", "discover")
		for n := range 50 {
			want[fmt.Sprintf("nixosConfigurations.host%02d", n)] = "success"
		}
		want["nixosConfigurations.host07"], want["nixosConfigurations.host31"], want["report"] = "failure", "failure", "failure"
		r.expect(want)
		r.verdict("report", "❌ nix-matrix: 2 of 50 targets failed")
		// It is one failure, not two.
		if summary := r.summary("report"); strings.Count(summary, "\n#### ") != 1 || !strings.Contains(summary, "Blocked by it: `nixosConfigurations.host07`, `nixosConfigurations.host31`") {
			t.Errorf("the summary does not say what they have in common:\n%s", summary)
		}
	})

	t.Run("discovery fails", func(t *testing.T) {
		t.Parallel()
		repository := repository(t, t.TempDir(), quickStart(t, "steps"))
		write(t, filepath.Join(repository, "flake.nix"), "{ outputs = _: { ; }\n")
		commit(t, repository)
		artifacts := loopback()
		r := (&push{
			repository: repository, product: source, // with all that it has, which changes nothing
			artifacts: artifacts, runtime: cacheV2(t, artifacts),
		}).start(t)
		r.wait()
		r.expect(map[string]string{"discover": "failure", "report": "failure"})
		r.verdict("report", "❌ nix-matrix: discovery left no plan: its job failed")
	})

	t.Run("discovery is killed", func(t *testing.T) {
		t.Parallel()
		repository, dir := slow(t, leaveOut(t, quickStart(t, "reusable"), "push: cachix:my-fleet"))
		artifacts := loopback()
		r := (&push{
			repository: repository, product: product,
			artifacts: artifacts, runtime: cacheV2(t, artifacts),
		}).start(t)
		r.waitFor(filepath.Join(dir, "evaluation"))
		signal(t, r.launched("discover", ""), syscall.SIGKILL)
		r.wait()
		r.expect(all("failure", "nix/", "discover", "report"))
		r.verdict("nix/report", "❌ nix-matrix: discovery left no plan: its job failed")
	})

	// The first signal comes with the cancelling of a run, the second 7.5 seconds later. A shutdown of the
	// machine starts with the second.
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		workflow := replace(t, quickStart(t, "steps"), "with: { command: discover }", "with: { command: discover, installables: .#nixosConfigurations }")
		repository, dir := slow(t, workflow)
		artifacts := loopback()
		r := (&push{
			repository: repository, product: product,
			artifacts: artifacts, runtime: cacheV2(t, artifacts),
		}).start(t)
		for entry, s := range map[string]syscall.Signal{"first": syscall.SIGINT, "second": syscall.SIGTERM} {
			r.waitFor(filepath.Join(dir, entry))
			signal(t, r.launched("build", "nixosConfigurations."+entry+`"`), s)
		}
		r.wait()
		want := all("failure", "", "nixosConfigurations.first", "nixosConfigurations.second", "report")
		want["discover"] = "success"
		r.expect(want)
		if diff := cmp.Diff(map[string]job.Outcome{
			"nixosConfigurations.first": job.OutcomeCancelled, "nixosConfigurations.second": job.OutcomeCancelled,
		}, r.results()); diff != "" {
			t.Errorf("results, - want + got:\n%s", diff)
		}
		r.verdict("report", "⚪ nix-matrix: the run was cancelled with 0 of 2 targets done")

		// The failed jobs are run again, of which discover is none. Its outputs and artifacts stay, and by now the cache
		// has lost what it had.
		t.Run("again", func(t *testing.T) {
			before, rest, _ := strings.Cut(workflow, "  discover:\n")
			_, after, _ := strings.Cut(rest, "  build:\n")
			discover := fmt.Sprintf("  discover:\n    runs-on: ubuntu-latest\n    outputs: { matrix: '%s', count: '%s' }\n    steps: [{ run: 'true' }]\n",
				r.output("discover", "matrix"), r.output("discover", "count"))
			write(t, filepath.Join(repository, ".github/workflows/ci.yml"), before+discover+"  build:\n"+after)
			commit(t, repository)
			pipe := filepath.Join(dir, "pipe")
			if err := os.Remove(pipe); err != nil {
				t.Fatal(err)
			}
			write(t, pipe, "go on\n")
			artifacts := loopback()
			r := (&push{
				repository: repository, product: product, again: r,
				artifacts: artifacts, runtime: cacheV2(t, artifacts),
			}).start(t)
			r.wait()
			r.expect(all("success", "", "discover", "nixosConfigurations.first", "nixosConfigurations.second", "report"))
			for entry, outcome := range r.results() {
				if got := r.step(entry, "nix-matrix, from artifacts"); got != "success" || outcome != job.OutcomeBuilt {
					t.Errorf("%s is %s, from artifacts: %q", entry, outcome, got)
				}
			}
			r.verdict("report", "✅ nix-matrix: all 2 targets are done")
		})
	})

	t.Run("own runners", func(t *testing.T) {
		t.Parallel()
		ownRunners(t, product)
	})
	for name, try := range templates {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			try.run(t, name, product)
		})
	}
	t.Run("update.yml by an app", func(t *testing.T) {
		t.Parallel()
		updateByApp.run(t, "update.yml", product)
	})

	// Two uses in one workflow, with a cache that forgets everything, so that artifacts hand over; and the same again
	// when all is done. One seals what it stores, runs on a runner with several labels, and calls the workflow of its
	// own repository.
	t.Run("lost cache", func(t *testing.T) {
		t.Parallel()
		destination := t.TempDir()
		repository := fleet(t, replace(t, twoUses, "@destination@", "file://"+destination+"?compression=none"))
		write(t, filepath.Join(repository, ".github/workflows/nix-matrix.yml"), read(t, filepath.Join(root, reusable)))
		commit(t, repository)
		service := actionstest.Start(t, actionstest.Options{})
		run := func(t *testing.T) *run {
			artifacts := loopback()
			r := (&push{
				repository: repository, product: product,
				artifacts: artifacts, runtime: runtimeV2(t, artifacts, service.Token(), forgetful(service)),
			}).start(t)
			r.wait()
			return r
		}
		r := run(t)
		const host, check = "one/nixosConfigurations.hetzner", "two/checks.x86_64-linux.website-links"
		r.expect(all("success", "", "one/discover", host, "one/report", "two/discover", check, "two/report"))
		for _, job := range []string{host, check, "one/report", "two/report"} {
			if got := r.step(job, "nix-matrix, from artifacts"); got != "success" {
				t.Errorf("%s from artifacts: %q", job, got)
			}
		}
		for _, use := range []string{"one", "two"} {
			r.verdict(use+"/report", "✅ nix-matrix: the only target is done")
			if n := len(slices.DeleteFunc(r.uploaded(), func(name string) bool { return !strings.HasPrefix(name, use+".") })); n != 3 {
				t.Errorf("%s has %d artifacts of its own, want plan, derivations and one result: %s", use, n, r.uploaded())
			}
		}
		entries := service.Entries()
		if len(entries) < 2 {
			t.Errorf("the cache has only %v", entries)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Key, "one-") && !strings.HasPrefix(e.Key, "two-") {
				t.Errorf("both uses could meet in the cache entry %s", e.Key)
			}
		}
		// Two seals what it uploads.
		for _, name := range r.uploaded() {
			inClear := bytes.Contains(r.artifact(name), []byte("/nix/store")) || strings.HasSuffix(name, ".drvs") && bytes.HasSuffix(r.artifact(name), []byte("nixmpack"))
			if want := strings.HasPrefix(name, "one."); inClear != want {
				t.Errorf("the artifact %s is in clear: %v", name, inClear)
			}
		}
		t.Run("nothing to do", func(t *testing.T) {
			r := run(t)
			r.expect(all("success", "", "one/discover", "one/report", "two/discover", "two/report"))
			r.verdict("one/report", "✅ nix-matrix: there is nothing to build, 1 target is skipped")
			r.verdict("two/report", "✅ nix-matrix: there is nothing to build, 1 target is skipped")
		})
	})
}
