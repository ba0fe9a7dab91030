package e2e_test

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// pushShared pushes a repository whose jobs can share work. dir has what its builders leave, and the empty files that
// they look for.
func pushShared(t *testing.T, product, workflow string, files ...string) (r *run, dir string) {
	repo, dir := t.TempDir(), t.TempDir()
	write(t, filepath.Join(repo, "flake.nix"), replace(t, read(t, "testdata/once/flake.nix"), "@dir@", dir))
	for _, name := range files {
		write(t, filepath.Join(dir, name), "")
	}
	artifacts := loopback()
	return (&push{
		repository: repository(t, repo, workflow), product: product,
		artifacts: artifacts, runtime: cacheV2(t, artifacts),
	}).start(t), dir
}

// reusableWith is the reusable workflow with inputs.
func reusableWith(t *testing.T, inputs string) string {
	workflow := leaveOut(t, leaveOut(t, quickStart(t, "reusable"), "push: cachix:my-fleet"), "# leave out for qemu")
	return replace(t, workflow, "    with:\n", "    with:\n"+inputs)
}

// begun returns how often each derivation was begun.
func begun(t *testing.T, dir string) map[string]int {
	times := map[string]int{}
	for _, name := range strings.Fields(read(t, filepath.Join(dir, "begun"))) {
		times[name]++
	}
	return times
}

// testOnce runs workflows whose jobs build units for each other.
func testOnce(t *testing.T, product string) {
	// One host, and three helpers. Each of its parts is built once.
	t.Run("helpers", func(t *testing.T) {
		t.Parallel()
		r, dir := pushShared(t, product, reusableWith(t, "      installables: .#nixosConfigurations.large\n      helpers: 3\n"), "go")
		r.wait()
		r.expect(all("success", "nix/", "discover", "nixosConfigurations.large", "helper 1 x86_64-linux", "helper 2 x86_64-linux", "helper 3 x86_64-linux", "report"))
		r.verdict("nix/report", "✅ nix-matrix: the only target is done")
		times := begun(t, dir)
		for name, n := range times {
			if n != 1 || len(times) != 13 {
				t.Errorf("%s was begun %d times, as one of %d", name, n, len(times))
			}
		}
	})

	// A helper is killed while it builds: the job of the host takes over what it had.
	t.Run("helper is killed", func(t *testing.T) {
		t.Parallel()
		r, dir := pushShared(t, product, replace(t, quickStart(t, "steps"), "with: { command: discover }", "with: { command: discover, installables: .#nixosConfigurations.large, helpers: 1 }"))
		for _, first := range []string{"1", "2"} { // act runs as many jobs at a time as there are processors
			r.waitFor(filepath.Join(dir, first))
		}
		signal(t, r.launched("build", "helper 1 x86_64-linux"), syscall.SIGKILL)
		write(t, filepath.Join(dir, "go"), "")
		r.wait()
		want := all("success", "", "discover", "nixosConfigurations.large", "report")
		want["helper 1 x86_64-linux"] = "failure"
		r.expect(want)
		r.verdict("report", "✅ nix-matrix: the only target is done")
		if summary := r.summary("report"); !strings.Contains(summary, "Without a result, and not needed for the verdict: helper 1 x86_64-linux") || !strings.Contains(summary, "### Built once") {
			t.Errorf("the summary does not say what the helpers did: %s", summary)
		}
		times := begun(t, dir)
		if more := slices.DeleteFunc(slices.Collect(maps.Keys(times)), func(name string) bool { return times[name] == 1 }); len(times) != 13 || len(more) != 1 || times[more[0]] != 2 {
			t.Errorf("all but the part of the helper that was killed is to be built once: %v", times)
		}
	})

	// Three hosts share what one of them builds, and a service, which fails: that is told once, and blocks the two that
	// need it.
	t.Run("unit fails", func(t *testing.T) {
		t.Parallel()
		r, dir := pushShared(t, product, reusableWith(t, "      exclude: \"**.large\"\n      helpers: 1\n"), "broken")
		r.wait()
		times := begun(t, dir)
		if times["kernel"] != 1 || times["service"] != 1 || times["nixos-system-c"] != 1 || len(times) != 3 {
			t.Errorf("the derivations were begun %v times", times)
		}
		r.verdict("nix/report", "❌ nix-matrix: 2 of 3 targets failed")
		summary := r.summary("nix/report")
		if strings.Count(summary, "\n#### ") != 1 || strings.Count(summary, "the service is broken") != 1 ||
			!strings.Contains(summary, "Blocked by it: `nixosConfigurations.a`, `nixosConfigurations.b`") {
			t.Errorf("the summary does not tell the failure once:\n%s", summary)
		}
	})
}
