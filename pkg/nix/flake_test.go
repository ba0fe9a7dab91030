package nix

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A flake's identity has everything that an evaluation can see of it, and its inputs have the
// paths that Nix gives them, though none was fetched.
func TestFlake(t *testing.T) {
	eachImplementation(t, func(t *testing.T, n *Nix) {
		dir := t.TempDir()
		write := func(name, text string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		identity := func(ref string) string {
			t.Helper()
			f, err := n.Flake(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			return f.Identity
		}
		const outputs = `outputs = _: throw "it looks at the outputs";`
		write("flake.nix", "{ "+outputs+" }")
		write("value.nix", "1")
		first := identity("path:" + dir)
		if again := identity("path:" + dir); again != first {
			t.Errorf("nothing has changed, but\n%s\nis not\n%s", again, first)
		}
		write("value.nix", "2")
		if changed := identity("path:" + dir); changed == first && first != "" {
			t.Error("a change in the source is not seen")
		}
		if unknown := n.Implementation == Determinate; (first == "") != unknown {
			t.Errorf("the identity is %q, though the source is unknown: %t", first, unknown)
		}

		write("flake.nix", `{ inputs.other = { url = "path:/nonexistent/input"; flake = false; }; `+outputs+` }`)
		if _, err := n.Flake(t.Context(), "path:"+dir); err == nil {
			t.Error("a flake without a lock is taken")
		}
		lock := func(hash string) {
			write("flake.lock", `{"nodes": {"root": {"inputs": {"other": "other"}}, "other": {"flake": false,
				"locked": {"lastModified": 1, "narHash": "`+hash+`", "path": "/nonexistent/input", "type": "path"},
				"original": {"path": "/nonexistent/input", "type": "path"}}}, "root": "root", "version": 7}`)
		}
		lock("sha256-JXJWLZohkBMbEV7hSeEtDkfFFfT45EPTdng6Bt4zOzw=")
		f, err := n.Flake(t.Context(), "path:"+dir)
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"/nix/store/x0hrbv5ypmvrz3432rcg8gc9q62ipkl9-source"}; !slices.Equal(inputPaths(f), want) {
			t.Errorf("the inputs are %v, not %v", f.Inputs, want)
		}
		lock("sha256-AAAALZohkBMbEV7hSeEtDkfFFfT45EPTdng6Bt4zOzw=")
		if relocked := identity("path:" + dir); relocked == f.Identity && relocked != "" {
			t.Error("another lock is not seen")
		}

		// The path that Nix gives a tree.
		tree := t.TempDir()
		if err := os.WriteFile(filepath.Join(tree, "a"), []byte("a"), 0o600); err != nil {
			t.Fatal(err)
		}
		write("flake.nix", `{ inputs.other = { url = "path:`+tree+`"; flake = false; }; `+outputs+` }`)
		if err := os.Remove(filepath.Join(dir, "flake.lock")); err != nil {
			t.Fatal(err)
		}
		if _, err := n.output(t.Context(), "nix", raw("flake", "lock", "path:"+dir)); err != nil {
			t.Fatal(err)
		}
		if f, err = n.Flake(t.Context(), "path:"+dir); err != nil {
			t.Fatal(err)
		}
		out, err := n.output(t.Context(), "nix", raw("flake", "archive", "--json", "--dry-run", "path:"+dir))
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Inputs) != 1 || !strings.Contains(string(out), `"`+f.Inputs[0].Path+`"`) {
			t.Errorf("the inputs are %v, and nix says %s", f.Inputs, out)
		}
	})
}

func inputPaths(f *Flake) (paths []string) {
	for _, input := range f.Inputs {
		paths = append(paths, input.Path)
	}
	return paths
}

// A commit is distinguished from another one and from later changes.
func TestFlakeCommit(t *testing.T) {
	eachImplementation(t, func(t *testing.T, n *Nix) {
		dir := t.TempDir()
		file := filepath.Join(dir, "flake.nix")
		git := func(args ...string) {
			t.Helper()
			args = append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.org"}, args...)
			if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		seen := map[string]string{}
		identity := func(what string) {
			t.Helper()
			f, err := n.Flake(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if other, ok := seen[f.Identity]; ok {
				t.Errorf("%s and %s are the same: %q", what, other, f.Identity)
			}
			seen[f.Identity] = what
		}
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		git("init", "--quiet")
		write("{ outputs = _: { }; }")
		git("add", ".")
		git("commit", "--quiet", "--message=one")
		identity("the first commit")
		git("commit", "--quiet", "--message=two", "--allow-empty")
		identity("the second commit")
		write("{ outputs = _: { a = 1; }; }")
		identity("a change")
		if n.Implementation == Determinate {
			if seen[""] != "a change" {
				t.Errorf("a changed tree is identified: %q", seen)
			}
			return
		}
		write("{ outputs = _: { a = 2; }; }")
		identity("another change")
	})
}

// Evaluator differs if the result of an evaluation may differ, and only then.
func TestEvaluator(t *testing.T) {
	eachImplementation(t, func(t *testing.T, n *Nix) {
		if other := configured(t, "cores = 7"); other.Evaluator() != n.Evaluator() {
			t.Errorf("%s is not %s", other.Evaluator(), n.Evaluator())
		}
		if other := configured(t, "accept-flake-config = true"); other.Evaluator() == n.Evaluator() {
			t.Errorf("a setting is not seen: %s", n.Evaluator())
		}
	})
}
