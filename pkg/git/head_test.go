package git_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/git"
)

// The commit of a checkout is found, however git has laid them out.
func TestHeads(t *testing.T) {
	dir := t.TempDir()
	run := func(in string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = in
		cmd.Env = append(os.Environ(), "HOME="+dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	newRepo := func(name string, format ...string) string {
		t.Helper()
		repo := filepath.Join(dir, name)
		run(dir, append([]string{"init", "-q", "-b", "main", repo}, format...)...)
		run(repo, "commit", "-q", "--allow-empty", "-m", "one")
		run(repo, "branch", "topic/of-mine")
		run(repo, "commit", "-q", "--allow-empty", "-m", "two")
		return repo
	}
	check := func(what, of, want string) {
		t.Helper()
		if got := git.Heads(t.Context(), os.Environ(), of); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %s", what, got, want)
		}
	}
	repo := newRepo("repo")
	want := run(repo, "rev-parse", "HEAD")
	check("a branch", repo, want)
	if err := os.MkdirAll(filepath.Join(repo, "a", "b"), 0o750); err != nil {
		t.Fatal(err)
	}
	check("below it", filepath.Join(repo, "a", "b"), want)
	if err := os.Symlink(filepath.Join(repo, "a"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	check("by a link", filepath.Join(dir, "link", "b"), want)
	run(repo, "pack-refs", "--all")
	check("packed", repo, want)
	run(repo, "checkout", "-q", "topic/of-mine")
	first := run(repo, "rev-parse", "HEAD")
	check("another branch, packed", repo, first)
	run(repo, "checkout", "-q", "--detach", "main")
	check("a commit", repo, want)
	tree := filepath.Join(dir, "tree")
	run(repo, "worktree", "add", "-q", tree, "topic/of-mine")
	check("another work tree", tree, first)
	run(repo, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", tree, "sub")
	check("a submodule", filepath.Join(repo, "sub"), first)
	if got := git.Heads(t.Context(), os.Environ(), repo, filepath.Join(repo, "a"), tree, dir); !slices.Equal(got, []string{want, first}) {
		t.Errorf("all of them: %q", got)
	}
	long := newRepo("long", "--object-format=sha256")
	check("SHA-256", long, run(long, "rev-parse", "HEAD"))

	// A checkout whose commit cannot be read is not taken for a directory without one.
	run(dir, "init", "-q", "unborn")
	check("without a commit", filepath.Join(dir, "unborn"), "")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, head := range map[string]string{
		"outside": "ref: refs/../../../repo/.git/HEAD\n", "absolute": "ref: " + repo + "/.git/HEAD\n", "round": "ref: refs/heads/round\n",
		"short": "0123456\n", "reftable": "ref: refs/heads/.invalid\n", "empty": "", "endless": strings.Repeat(want, 1000),
	} {
		write(name+"/.git/HEAD", head)
		write(name+"/.git/refs/heads/round", "ref: refs/heads/round\n")
		check(name, filepath.Join(dir, name), "")
	}
	for name, text := range map[string]string{"nowhere": "gitdir: /nowhere\n", "nothing": "", "no path": "HEAD\n"} {
		write(name+"/.git", text)
		check(name, filepath.Join(dir, name), "")
	}
	if err := os.MkdirAll(filepath.Join(dir, "linked", ".git"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(repo, ".git", "HEAD"), filepath.Join(dir, "linked", ".git", "HEAD")); err != nil {
		t.Fatal(err)
	}
	check("a link in git's files", filepath.Join(dir, "linked"), "")
	check("a directory that is not there", filepath.Join(dir, "not-there"), "")
	if got := git.Heads(t.Context(), os.Environ(), dir); got != nil {
		t.Errorf("without a checkout: %q", got)
	}
}
