package evaluate

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

func TestMain(m *testing.M) { testbench.PrivateProcess(m) }

// These tests run a real Nix, in the newest and the oldest version.
func eachNix(t *testing.T, test func(*testing.T, *nix.Nix)) {
	for _, version := range []string{"2.34", "2.8"} {
		t.Run(version, func(t *testing.T) { test(t, useNix(t, version)) })
	}
}

func useNix(t testing.TB, version string) *nix.Nix {
	t.Helper()
	testbench.UseStore(t, t.TempDir())
	t.Setenv("PATH", testbench.NixPath(t, version)+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("HOME", t.TempDir())
	n, err := nix.Find(t.Context(), io.Discard, nix.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// flake writes a flake and returns a reference to it.
func flake(t testing.TB, outputs string) string {
	t.Helper()
	dir := t.TempDir()
	text := `{ outputs = { self }: let
		d = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; };
		host = name: { config.system.build.toplevel = d "nixos-system-${name}"; };
	in ` + outputs + `; }`
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "path:" + dir
}

// look evaluates and returns a line for each target.
func look(t *testing.T, n *nix.Nix, o Options) ([]string, *Evaluation) {
	t.Helper()
	d, err := Run(t.Context(), n, with(n, o))
	if err != nil {
		t.Fatal(err)
	}
	return summary(d), d
}

// summary returns a line for each target.
func summary(d *Evaluation) (lines []string) {
	for _, target := range d.Targets {
		line := fmt.Sprintf("%s %s %s", target.Kind, target.Name, target.State)
		if target.State == job.StateFailed {
			first, _, _ := strings.Cut(target.Error, "\n")
			line += ": " + first
		}
		if target.State == job.StateSkip {
			line += " " + target.Reason
		}
		lines = append(lines, line)
	}
	return lines
}

func with(n *nix.Nix, o Options) Options {
	if o.Systems == nil {
		o.Systems = []string{"x86_64-linux", "aarch64-linux"}
	}
	o.System = n.System
	o.Progress = func(string) {}
	o.Log = func(string) {}
	return o
}

// Failures that tryEval catches and others, one by one and all together: each has Nix's
// message, and none harms another target.
func TestAttributesThatAbort(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `{
			packages.x86_64-linux = {
				a = d "a";
				assertion = assert false; d "x";
				b = d "b";
				missing-argument = (({ x }: d x) { });
				missing-attribute = d self.nosuch;
				recursion = let x = x; in x;
				throwing = throw "undecided";
				z = d "z";
			};
			nixosConfigurations.broken = throw "no such machine";
			nixosConfigurations.fine = host "fine";
			checks = throw "no checks";
		}`)
		got, d := look(t, n, Options{Installables: []string{ref}})
		want := []string{
			"nixos nixosConfigurations.broken failed: no such machine",
			"nixos nixosConfigurations.fine build",
			"package packages.x86_64-linux.a build",
			"package packages.x86_64-linux.assertion failed: assertion 'false' failed",
			"package packages.x86_64-linux.b build",
			"package packages.x86_64-linux.missing-argument failed: ",
			"package packages.x86_64-linux.missing-attribute failed: attribute 'nosuch' missing",
			"package packages.x86_64-linux.recursion failed: infinite recursion encountered",
			"package packages.x86_64-linux.throwing failed: undecided",
			"package packages.x86_64-linux.z build",
			"check checks failed: no checks",
		}
		got[5] = got[5][:strings.Index(got[5], ": ")+2] // versions differ
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		for _, target := range d.Targets {
			if target.State != job.StateBuild {
				continue
			}
			if _, err := os.Stat(target.DrvPath); err != nil {
				t.Errorf("%s was not instantiated: %v", target.Name, err)
			}
		}
	})
}

// Names may hold anything.
func TestHostileNames(t *testing.T) {
	names := []string{
		"with space", "quote\"d", "${builtins.abort \"x\"}", "new\nline", "::set-output name=x::y", "##[error]x",
		"back\\slash", "dot.ted", "''", "", "$(id)", "`id`", "ünï", strings.Repeat("long", 75),
	}
	eachNix(t, func(t *testing.T, n *nix.Nix) {
		var set strings.Builder
		for i, name := range names {
			_, _ = fmt.Fprintf(&set, "%s = d \"p%d\"; ", quote(name), i)
		}
		ref := flake(t, `{ packages.x86_64-linux = { `+set.String()+` aborts = throw "in the middle"; }; }`)
		_, d := look(t, n, Options{Installables: []string{ref}})
		drvs := map[string]bool{}
		for _, target := range d.Targets {
			if target.State == job.StateBuild {
				drvs[target.DrvPath] = true
			}
		}
		if len(drvs) != len(names) || len(d.Targets) != len(names)+1 {
			t.Errorf("found %d of %d:\n%v", len(drvs), len(names), d.Targets)
		}
	})
}

func TestInstallables(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `{
			nixosConfigurations.one = host "one";
			nixosConfigurations.two = host "two";
			darwinConfigurations.mac = throw "not wanted, so not evaluated";
			packages.x86_64-linux.hello = d "hello";
			packages.x86_64-linux.set = { type = "set"; };
			packages.x86_64-darwin = throw "not wanted, so not evaluated";
			hydraJobs.nested.deeply = { recurseForDerivations = true; job = d "job"; };
			hydraJobs.top = d "top";
			deploy.nodes.robot.profiles.system.path = d "nixos-system-robot";
			lib.f = x: x;
		}`)
		for _, test := range []struct {
			attrs []string
			want  []string
		}{
			{[]string{""}, []string{
				"nixos nixosConfigurations.one build", "nixos nixosConfigurations.two build", "package packages.x86_64-linux.hello build",
			}},
			{[]string{"#nixosConfigurations.two", "#hello"}, []string{
				"nixos nixosConfigurations.two build", "package packages.x86_64-linux.hello build",
			}},
			{[]string{"#nixosConfigurations.two.config.system.build.toplevel", "#nixosConfigurations"}, []string{
				"nixos nixosConfigurations.two build", "nixos nixosConfigurations.one build",
			}},
			{[]string{"#deploy.nodes.robot.profiles.system.path"}, []string{
				"nixos deploy.nodes.robot build",
			}},
			{[]string{"#hydraJobs"}, []string{"other hydraJobs.nested.deeply.job build", "other hydraJobs.top build"}},
			{[]string{"#hydraJobs.nested.deeply"}, []string{"other hydraJobs.nested.deeply.job build"}},
		} {
			var installables []string
			for _, attr := range test.attrs {
				installables = append(installables, ref+attr)
			}
			got, _ := look(t, n, Options{Installables: installables})
			if !n.EvaluatesWholeFlakes() {
				// Older versions look below packages by themselves and don't say so.
				for i := range got {
					got[i] = strings.Replace(got[i], "other hello", "package packages.x86_64-linux.hello", 1)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%v: %s", test.attrs, diff)
			}
		}
	})
}

func TestFiles(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix.Nix) {
		file := filepath.Join(t.TempDir(), "release ${x}.nix")
		text := `{ greeting ? "hello" }: let
			d = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; };
		in {
			system = { recurseForDerivations = true; one = d "nixos-system-one"; two = throw "broken"; };
			home."a@b" = d "home-manager-generation";
			call = { x ? "called" }: d x;
			"${greeting}" = d greeting;
			needs = { x }: d x;
		}`
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, d := look(t, n, Options{File: file, Attrs: []string{"system", "home", "call", "hello"}})
		want := []string{"nixos system.one build", "other system.two failed: broken", "home home.a@b build", "other call build", "other hello build"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if want := "nix-build '" + file + "' -A system.one"; d.Targets[0].Reproduce != want {
			t.Errorf("reproduce with %s, want %s", d.Targets[0].Reproduce, want)
		}
		got, _ = look(t, n, Options{File: file})
		if want := []string{"other call build", "other hello build", "nixos system.one build", "other system.two failed: broken"}; !slices.Equal(got, want) {
			t.Errorf("all of it: %v", got)
		}
	})
}

func TestMultipleOutputs(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `let many = derivation { name = "many"; system = "x86_64-linux"; builder = "/bin/sh"; outputs = [ "bin" "out" "doc" ]; }; in {
			packages.x86_64-linux = {
				first = many;
				installed = many // { meta.outputsToInstall = [ "out" "doc" ]; };
				selected = many.doc // { outputSpecified = true; };
			};
		}`)
		_, d := look(t, n, Options{Installables: []string{ref}})
		var got []string
		for _, target := range d.Targets {
			got = append(got, strings.Join(target.Outputs, " "))
			for _, output := range target.Outputs {
				if !strings.HasSuffix(target.OutPaths[output], map[string]string{"out": "many", "bin": "many-bin", "doc": "many-doc"}[output]) {
					t.Errorf("%s: output %s is %s", target.Name, output, target.OutPaths[output])
				}
			}
		}
		if want := []string{"bin", "out doc", "doc"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestErrors(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix.Nix) {
		for _, test := range []struct{ outputs, attr, want string }{
			{`{ lib = { }; }`, "", "there is nothing to build in"},
			{`{ packages.x86_64-darwin.x = d "x"; }`, "", "has nothing for x86_64-linux, aarch64-linux, only packages.x86_64-darwin"},
			{`throw "all of it"`, "", "all of it"},
			{`{ packages.x86_64-linux.x = d "x"; }`, "#nosuch", "nosuch"},
		} {
			_, err := Run(t.Context(), n, with(n, Options{Installables: []string{flake(t, test.outputs) + test.attr}}))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v", test.outputs, err)
			}
		}
	})
}

func TestSplitAttr(t *testing.T) {
	for attr, want := range map[string][]string{
		"":             nil,
		"a":            {"a"},
		"a.b-c.d@e":    {"a", "b-c", "d@e"},
		`a."b.c".d`:    {"a", "b.c", "d"},
		`a.""`:         {"a", ""},
		`a."with sp".`: {"a", "with sp"},
	} {
		if got := SplitAttr(attr); !slices.Equal(got, want) {
			t.Errorf("SplitAttr(%q) is %q, want %q", attr, got, want)
		}
	}
	for _, path := range [][]string{{"a", "b.c", "", "with space", "x@y"}} {
		if got := SplitAttr(JoinAttr(path)); !slices.Equal(got, path) {
			t.Errorf("%q becomes %q", path, got)
		}
	}
}

// A file may be a derivation itself, that of a host even.
func TestFileThatIsADerivation(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix.Nix) {
		for name, want := range map[string]string{
			"nixos-system-one-24.11": "nixos nixos-system-one-24.11 build",
			"tool":                   "other tool build",
		} {
			file := filepath.Join(t.TempDir(), "default.nix")
			text := `derivation { name = "` + name + `"; system = "x86_64-linux"; builder = "/bin/sh"; }`
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, d := look(t, n, Options{File: file})
			if len(got) != 1 || strings.ReplaceAll(got[0], `"`, "") != want {
				t.Errorf("got %v, want %s", got, want)
			}
			if d.Targets[0].Reproduce != "nix-build "+file {
				t.Errorf("reproduce with %s", d.Targets[0].Reproduce)
			}
		}
	})
}

func TestOverlap(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `{ packages.x86_64-linux = { bad = throw "bad"; good = d "good"; }; }`)
		got, _ := look(t, n, Options{Installables: []string{ref, ref + "#packages", ref + "#packages.x86_64-linux.bad"}})
		if want := []string{"package packages.x86_64-linux.bad failed: bad", "package packages.x86_64-linux.good build"}; !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}
