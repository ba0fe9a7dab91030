package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
)

const twoUses = `name: ci
on: push
jobs:
  one:
    uses: org/nix-matrix/.github/workflows/nix-matrix.yml@v1
    with:
      id: one
      installables: .#nixosConfigurations.hetzner
      push: @destination@
  two:
    uses: ./.github/workflows/nix-matrix.yml
    with:
      id: two
      runner: '["self-hosted", "ubuntu-latest"]'
      installables: .#checks.x86_64-linux.website-links
      push: @destination@
    secrets:
      encryption_key: ${{ secrets.ENCRYPTION_KEY }}
`

// all returns the jobs, with a prefix, the same result.
func all(result, prefix string, jobs ...string) map[string]string {
	results := map[string]string{}
	for _, job := range jobs {
		results[prefix+job] = result
	}
	return results
}

// checkHandover checks that the cache handed over to each job of the fleet.
func checkHandover(t *testing.T, r *run, prefix string) {
	t.Helper()
	for _, job := range append([]string{"report"}, fleetJobs...) {
		if got := r.step(prefix+job, "nix-matrix, from artifacts"); got != "" {
			t.Errorf("%s took the artifact, so it did not find the cache", job)
		}
	}
}

// checkPushes checks that each job of the fleet has pushed, and that together they have pushed all targets.
func checkPushes(t *testing.T, c *cachix) {
	t.Helper()
	jobs, pushed := c.pushed(t)
	if jobs != len(fleetJobs) {
		t.Errorf("%d jobs have pushed, want %d", jobs, len(fleetJobs))
	}
	for _, target := range []string{
		"backup", "backup-parses", "home-manager-generation",
		"nixos-system-hetzner-24.11", "nixos-system-nixsl-24.11", "nixos-system-notado-24.11", "nixos-system-pi3-24.11",
		"notado-1.4.0", "raspberrypi-firmware-1.20240926", "website", "website-links",
	} {
		if pushed[target] == "" {
			t.Errorf("nobody has pushed %s", target)
		}
	}
	if pi3 := pushed["nixos-system-pi3-24.11"]; pi3 != "" {
		first, _, _ := strings.Cut(read(t, pi3), "\n")
		if want := "nixos-system-pi3-24.11 for aarch64-linux, built on aarch64"; first != want {
			t.Errorf("pi3 says %q, want %q", first, want)
		}
	}
}

func signal(t *testing.T, process *os.Process, s syscall.Signal) {
	t.Helper()
	if err := process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// checkout copies this repository as git sees it, with what is not committed yet.
func checkout(t *testing.T) string {
	dir := t.TempDir()
	for name := range strings.SplitSeq(command(t, root, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"), "\x00") {
		info, err := os.Stat(filepath.Join(root, name))
		if name == "" || err != nil { // deleted, and not yet told to git
			continue
		}
		mkdir(t, filepath.Join(dir, filepath.Dir(name)))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(read(t, filepath.Join(root, name))), info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// used copies what jobs use of this repository. act copies it twice for each step with the
// action, and 1,000 files of tests and sources would be most of the time.
func used(t *testing.T, source string) string {
	dir := t.TempDir()
	for _, name := range []string{".github/workflows", "dist"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(source, name))); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "action.yml"), read(t, filepath.Join(source, "action.yml")))
	return dir
}

// release makes a release with scripts/release, and gives what a checkout of its tag has.
func release(t *testing.T, source, version string) (dir, action string) {
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	changes := filepath.Join(dir, "CHANGELOG.md")
	write(t, changes, strings.Replace(read(t, changes), "\n## Unreleased\n", "\n## "+version+"\n", 1))
	commit(t, dir)
	command(t, dir, "scripts/release", version)
	action = strings.TrimSpace(command(t, dir, "git", "rev-parse", version+"^{commit}^"))
	released := t.TempDir()
	command(t, released, "git", "clone", "--quiet", "--branch", version, "file://"+dir, ".")
	if err := os.RemoveAll(filepath.Join(released, ".git")); err != nil {
		t.Fatal(err)
	}
	return released, action
}

// quickStart returns the workflow that users are told to paste.
func quickStart(t *testing.T, name string) string {
	return read(t, filepath.Join(root, "examples/workflows/quickstart-"+name+".yml"))
}

// repository makes dir a user's repository.
func repository(t *testing.T, dir, workflow string) string {
	workflows := filepath.Join(dir, ".github/workflows")
	mkdir(t, workflows)
	write(t, filepath.Join(workflows, "ci.yml"), workflow)
	commit(t, dir)
	return dir
}

// fleet is a repository with the example. What it builds for aarch64 is built by programs for aarch64, which are slow: an
// eighth of its bytes is enough.
func fleet(t *testing.T, workflow string) string {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "examples/fleet"))); err != nil {
		t.Fatal(err)
	}
	shells := filepath.Join(dir, "shells/aarch64-linux")
	mkdir(t, shells)
	if err := os.WriteFile(filepath.Join(shells, "busybox"), []byte(read(t, testbench.Path(t, "aarch64/busybox"))), 0o755); err != nil {
		t.Fatal(err)
	}
	builder := filepath.Join(dir, "lib/builder.sh")
	write(t, builder, replace(t, read(t, builder), "rows=$(($1 * 8))", "rows=$1"))
	return repository(t, dir, workflow)
}

// own is a repository with a build of its own.
func own(t *testing.T) string {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "flake.nix"), read(t, "testdata/own/flake.nix"))
	return repository(t, dir, read(t, filepath.Join(root, "examples/workflows/store-cache.yml")))
}

// slow is a repository whose builds start, and don't end. They make files in the directory that it gives.
func slow(t *testing.T, workflow string) (string, string) {
	dir, signs := t.TempDir(), t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(signs, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "flake.nix"), replace(t, read(t, "testdata/slow/flake.nix"), "@dir@", signs))
	return repository(t, dir, workflow), signs
}

// commit commits all that is in dir, which becomes a repository if it is none.
func commit(t *testing.T, dir string) {
	t.Helper()
	command(t, dir, "git", "init", "--quiet", "--initial-branch", "main")
	command(t, dir, "git", "add", "--all")
	command(t, dir, "git", "commit", "--quiet", "--message", "Something")
}

// replace replaces what must be there.
func replace(t *testing.T, text, old, with string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("there is no %q in:\n%s", old, text)
	}
	return strings.ReplaceAll(text, old, with)
}

// leaveOut leaves out the line that has some text.
func leaveOut(t *testing.T, text, part string) string {
	t.Helper()
	before, after, ok := strings.Cut(text, part)
	_, rest, _ := strings.Cut(after, "\n")
	if !ok {
		t.Fatalf("there is no %q in:\n%s", part, text)
	}
	return before[:strings.LastIndex(before, "\n")+1] + rest
}

// command returns what a program that must not fail prints.
func command(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	if strings.Contains(program, "/") {
		program = filepath.Join(dir, program)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
		"GOPROXY=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s%s", program, args, err, out, &stderr)
	}
	return string(out)
}
