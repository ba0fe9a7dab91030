package nix

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseOverride(t *testing.T) {
	for text, want := range map[string]Override{
		"nixpkgs=github:NixOS/nixpkgs/nixos-26.05": {"nixpkgs", "github:NixOS/nixpkgs/nixos-26.05"},
		" a/b-c_d = path:/x?dir=y ":                {"a/b-c_d", "path:/x?dir=y"},
		"a=./x":                                    {"a", "./x"},
		"a=git+ssh://git@host/x":                   {"a", "git+ssh://git@host/x"},
	} {
		if got, err := ParseOverride(text); err != nil || got != want {
			t.Errorf("%s is %+v, %v", text, got, err)
		}
	}
	for _, text := range append([]string{"a", "=x", "a=", "a= ", "1=x", "a b=x", "a//b=x", "/a=x", "a/=x", "--a=x", "a=--x", "a=x y", "a=x#y", "a=https://u:p@host/x", strings.Repeat("a/", 20) + "a=x"}, hostile...) {
		if got, err := ParseOverride(text); err == nil {
			t.Errorf("%.50q is %+v", text, got)
		}
	}
	for _, ref := range hostile {
		if got, err := ParseOverride("a=" + ref); err == nil && (got.Ref != ref || overriding(ref) != nil) {
			t.Errorf("%.50q is %+v", ref, got)
		}
	}
}

// A reference that replaces an input is resolved to what names its contents, where that is possible; each flake
// gets only what it has.
func TestResolveLock(t *testing.T) {
	eachImplementation(t, func(t *testing.T, n *Nix) {
		dir := t.TempDir()
		write := func(name, text string) string {
			t.Helper()
			file := filepath.Join(dir, name, "flake.nix")
			if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return "path:" + filepath.Dir(file)
		}
		part, other := write("part", "{ outputs = _: { }; }"), write("other", "{ outputs = _: { }; }")
		library := write("library", `{ inputs.part.url = "`+part+`"; outputs = _: { }; }`)
		flake := write("flake", `{ inputs = { library.url = "`+library+`"; same.follows = "library"; }; outputs = _: { }; }`)
		resolve := func(overrides ...Override) (*Nix, error) {
			return n.WithLock(Lock{Overrides: overrides}).ResolveLock(t.Context(), []string{flake, part})
		}
		resolved, err := resolve(Override{"library/part", other})
		if err != nil {
			t.Fatal(err)
		}
		own := resolved.Overrides(flake)
		if len(own) != 1 || own[0].Input != "library/part" || !strings.HasPrefix(own[0].Ref, other) || len(resolved.Overrides(part)) > 0 {
			t.Errorf("the flake gets %+v, the other one %+v", own, resolved.Overrides(part))
		}
		if pinned := strings.Contains(own[0].Ref, "narHash="); !pinned && n.nixSince(26) && n.Implementation != Determinate {
			t.Errorf("%s names no contents", own[0].Ref)
		}
		var missing *InputError
		if _, err := resolve(Override{"librari", other}); !errors.As(err, &missing) || !slices.Equal(missing.Have, []string{"library", "library/part"}) {
			t.Errorf("an unknown input: %v", err)
		}
		if _, err := resolve(Override{"library/nosuch", other}); !errors.As(err, &missing) {
			t.Errorf("an unknown input of an input: %v", err)
		}
	})
}

// A lock file is a stranger's: its graph may have circles, and name nothing.
func TestHostileLock(t *testing.T) {
	for _, text := range []string{
		`{}`, `{"nodes": {"root": {"inputs": {"a": "root"}}}, "root": "root"}`, `{"nodes": {"root": {"inputs": {"a": ["a"], "b": {}, "--x": "root", "c": "nowhere"}}}, "root": "root"}`, `{"nodes": null, "root": "x"}`,
	} {
		var m flakeMetadata
		if err := json.Unmarshal([]byte(`{"locks": `+text+`}`), &m); err != nil {
			t.Fatal(err)
		}
		graph, err := m.graph()
		if err != nil {
			continue
		}
		for _, path := range graph.paths() {
			if inputPath(path) != nil {
				t.Errorf("%s has the input %q", text, path)
			}
		}
		graph.find("a/a/a/a/a")
		graph.find("nosuch/a")
	}
}
