package nix

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Each implementation updates the inputs that are named, or all of them, and no others.
func TestUpdateLock(t *testing.T) {
	eachImplementation(t, func(t *testing.T, n *Nix) {
		dir := t.TempDir()
		write := func(name, text string) {
			t.Helper()
			if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		lock := func() *LockedInputs {
			t.Helper()
			data, err := os.ReadFile(filepath.Join(dir, "flake/flake.lock"))
			if err != nil {
				t.Fatal(err)
			}
			l, err := ParseLock(data)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		update := func(inputs ...string) {
			t.Helper()
			if err := n.UpdateLock(t.Context(), "path:"+dir+"/flake", inputs...); err != nil {
				t.Fatal(err)
			}
		}
		changed := func(before, after *LockedInputs) (names []string) {
			for _, c := range before.Changes(after) {
				names = append(names, c.Name)
			}
			return names
		}
		write("one/a", "1")
		write("two/flake.nix", `{ inputs.three = { url = "path:`+dir+`/three"; flake = false; }; outputs = _: { }; }`)
		write("three/a", "1")
		write("flake/flake.nix", `{ inputs.one = { url = "path:`+dir+`/one"; flake = false; }; inputs.two.url = "path:`+dir+`/two"; inputs.also.follows = "one"; outputs = _: throw "it looks at the outputs"; }`)
		update()
		first := lock()
		if diff := cmp.Diff([]string{"also", "one", "two"}, first.Inputs); diff != "" {
			t.Errorf("inputs, - want + got:\n%s", diff)
		}
		if diff := cmp.Diff([]string{"one", "two", "two/three"}, changed(&LockedInputs{}, first)); diff != "" {
			t.Errorf("new inputs, - want + got:\n%s", diff)
		}
		asked, err := n.LockedInputs(t.Context(), "path:"+dir+"/flake")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first.Inputs, asked.Inputs); diff != "" {
			t.Errorf("inputs that Nix names, - want + got:\n%s", diff)
		}
		update()
		if got := changed(first, lock()); got != nil {
			t.Errorf("nothing is new, but %v", got)
		}
		write("one/a", "2")
		write("three/a", "2")
		update("one")
		second := lock()
		if diff := cmp.Diff([]string{"one"}, changed(first, second)); diff != "" {
			t.Errorf("the named input, - want + got:\n%s", diff)
		}
		update()
		if diff := cmp.Diff([]string{"two/three"}, changed(second, lock())); diff != "" {
			t.Errorf("all inputs, - want + got:\n%s", diff)
		}
		for _, wrong := range []string{"", "--help", "a b", "a'"} {
			if err := n.UpdateLock(t.Context(), "path:"+dir+"/flake", wrong); err == nil || !strings.Contains(err.Error(), "invalid name of an input") {
				t.Errorf("%q: %v", wrong, err)
			}
		}
	})
}

func TestParseLock(t *testing.T) {
	lock, err := ParseLock([]byte(`{"nodes": {
		"root": {"inputs": {"b": "b_2", "a": "a", "again": "a", "f": ["a"]}},
		"a": {"inputs": {"root": "root", "b": "b"}, "locked": {"type": "github", "owner": "o", "repo": "r", "rev": "0123", "lastModified": 86400}, "original": {"type": "github", "owner": "o", "repo": "r", "ref": "main"}},
		"b": {"locked": {"type": "git", "url": "https://user:secret@example.org/b", "narHash": "sha256-x"}, "original": {"type": "git", "url": "https://user:secret@example.org/b", "ref": "v1"}},
		"b_2": {"locked": {"type": "path", "path": "./b", "lastModified": "never"}, "original": {"type": "indirect", "id": "b"}}
	}, "root": "root", "version": 7}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &LockedInputs{Inputs: []string{"a", "again", "b", "f"}, Pins: map[string]Pin{
		"a":   {Address: "github:o/r/main", Rev: "0123", Modified: time.Unix(86400, 0).UTC()},
		"a/b": {Address: "git+https://user:xxxxx@example.org/b?ref=v1", Hash: "sha256-x"},
		"b":   {Address: "b"},
	}}
	if diff := cmp.Diff(want, lock); diff != "" {
		t.Errorf("- want + got:\n%s", diff)
	}
	for _, bad := range []string{"", "{", "[]", `{"nodes": [], "root": "root"}`, `{"nodes": {}, "root": 7}`, `{"nodes": {"root": {"inputs": {"-a": "a"}}}, "root": "root"}`} {
		if _, err := ParseLock([]byte(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
