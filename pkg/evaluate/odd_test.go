package evaluate

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// packagesOf evaluates packages alone, with one evaluator, and returns short names.
func packagesOf(t *testing.T, n *nix.Nix, packages string) ([]string, *Evaluation, *counting) {
	t.Helper()
	got, d, c := observe(t, n, Options{Installables: []string{flake(t, `{ packages.x86_64-linux = `+packages+`; }`) + "#packages"}, Workers: 1})
	for i := range got {
		got[i] = strings.TrimPrefix(got[i], "package packages.x86_64-linux.")
	}
	return got, d, c
}

// An invalid target is its own failure, and costs no other evaluator.
func TestOddTargets(t *testing.T) {
	odd := []struct{ name, nix, want string }{
		{"drv-context", `d "x" // { drvPath = "/nix/store/x.drv${d "y"}"; }`, "its drvPath is a string that is not from a derivation"},
		{"drv-flag", `d "x" // { drvPath = "--plugin-files"; }`, "its drvPath is a string that is not from a derivation"},
		{"drv-int", `d "x" // { drvPath = 1; }`, "its drvPath is an integer, not a string"},
		{"drv-missing", `{ type = "derivation"; name = "x"; system = "x86_64-linux"; outPath = "/x"; }`, "it has no drvPath"},
		{"drv-no-context", `d "x" // { drvPath = builtins.unsafeDiscardStringContext (d "x").drvPath; }`, "its drvPath is a string that is not from a derivation"},
		{"drv-null", `d "x" // { drvPath = null; }`, "it has no drvPath"},
		{"drv-path", `d "x" // { drvPath = /nix/store; }`, "its drvPath is a path, not a string"},
		{"drv-set", `d "x" // { drvPath = d "y"; }`, "its drvPath is a set, not a string"},
		{"name-bytes", "d \"x\" // { name = \"x\xff\"; }", "its name is not valid UTF-8"},
		{"name-functor", `d "x" // { name = { __toString = self: "x"; }; }`, "its name is a set, not a string"},
		{"name-int", `d "x" // { name = 7; }`, "its name is an integer, not a string"},
		{"name-list", `d "x" // { name = [ "x" ]; }`, "its name is a list, not a string"},
		{"name-long", `d "x" // { name = long 1000000; }`, "its name is longer than 1000 bytes"},
		{"name-null", `d "x" // { name = null; }`, "its name is null, not a string"},
		{"out-bytes", "d \"x\" // { out.outPath = \"/nix/store/\xff\"; }", "the outPath of its output out is not valid UTF-8"},
		{"out-int", `d "x" // { out.outPath = 1; }`, "the outPath of its output out is an integer, not a string"},
		{"out-name", `d "x" // { outputName = 1; }`, "its outputName is an integer, not a string"},
		{"outputs-empty", `d "x" // { outputs = [ ]; }`, "it has no output"},
		{"outputs-int", `d "x" // { outputs = [ 1 ]; }`, "a name in its list of outputs is an integer, not a string"},
		{"outputs-many", `d "x" // { outputs = [ "out" ] ++ builtins.genList toString 100000; }`, "its list of outputs has more than 200 names"},
		{"outputs-nope", `d "x" // { outputs = [ "out" "nope" ]; meta.outputsToInstall = [ "nope" ]; }`, "it has no output nope: it has out, nope"},
		{"outputs-string", `d "x" // { outputs = "out"; }`, "its list of outputs is a string, not a list"},
		{"system-bool", `d "x" // { system = true; }`, "its system is a Boolean, not a string"},
		{"system-empty", `d "x" // { system = ""; }`, "it has no system"},
		{"system-function", `d "x" // { system = x: x; }`, "its system is a function, not a string"},
		{"system-long", `d "x" // { system = long 10000; }`, "its system is longer than 1000 bytes"},
		{"system-missing", `removeAttrs (d "x") [ "system" ]`, "it has no system"},
		{"system-null", `d "x" // { system = null; }`, "its system is null, not a string"},
		{"system-set", `d "x" // { system = { }; }`, "its system is a set, not a string"},
		{"to-install-int", `d "x" // { meta.outputsToInstall = 1; }`, "its meta.outputsToInstall is an integer, not a list"},
		{"to-install-ints", `d "x" // { meta.outputsToInstall = [ 1 ]; }`, "a name in its meta.outputsToInstall is an integer, not a string"},
		{"to-install-nope", `d "x" // { meta.outputsToInstall = [ "out" "nope" ]; }`, "it has no output nope: it has out"},
	}
	fine := []struct{ name, nix string }{
		{"a", `d "a"`},
		{"broken-text", `d "x" // { meta.broken = "yes"; }`},
		{"description-bytes", "d \"x\" // { meta = { description = \"x\xff\"; nixMatrix.runner = [ \"a\xff\" ]; }; requiredSystemFeatures = [ \"\xff\" ]; }"},
		{"description-long", `d "x" // { meta.description = long 2000000; }`},
		{"meta-list", `d "x" // { meta = [ 1 ]; }`},
		{"meta-platforms", `d "x" // { meta.platforms = "all"; }`},
		{"name-missing", `removeAttrs (d "x") [ "name" ]`},
		{"no-outputs", `removeAttrs (d "x") [ "outputs" ] // { outputName = "bin"; }`},
		{"no-out-attribute", `removeAttrs (d "x") [ "out" "outputs" ]`},
		{"outputs-lie", `d "x" // { outputs = [ "out" "nope" ]; }`}, // nobody wants it
		{"outputs-twice", `d "x" // { meta.outputsToInstall = [ "out" "out" ]; }`},
		{"z", `d "z"`},
	}
	var set strings.Builder
	want := map[string]string{}
	for _, test := range odd {
		fmt.Fprintf(&set, "%s = %s;\n", test.name, test.nix)
		want[test.name] = test.name + " failed: " + test.want
	}
	for _, test := range fine {
		fmt.Fprintf(&set, "%s = %s;\n", test.name, test.nix)
		want[test.name] = test.name + " build"
	}
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		got, d, c := packagesOf(t, n, `let long = n: builtins.concatStringsSep "" (builtins.genList (_: "x") n); in { `+set.String()+` }`)
		for _, line := range got {
			name, _, _ := strings.Cut(line, " ")
			if line != want[name] {
				t.Errorf("got  %s\nwant %s", line, want[name])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d targets, want %d", len(got), len(want))
		}
		if c.started != 1 || d.Incomplete {
			t.Errorf("%d evaluators were started, incomplete: %v", c.started, d.Incomplete)
		}
		checkPlan(t, d)
	})
}

// A target that ends its evaluator has Nix's message.
func TestTargetsThatThrow(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		got, d, _ := packagesOf(t, n, `{
			a = d "a";
			drv = d "x" // { drvPath = throw "no drvPath"; };
			name = d "x" // { name = throw "no name"; };
			out-path = d "x" // { out.outPath = throw "no outPath"; };
			outputs = d "x" // { outputs = throw "no outputs"; };
			recursion = let x = d "x" // { name = x.name; }; in x;
			system = d "x" // { system = throw "no system"; };
			to-install = d "x" // { meta.outputsToInstall = [ (throw "no output") ]; };
			type = { type = throw "no type"; };
			z = d "z";
		}`)
		want := []string{
			"a build", "drv failed: no drvPath", "name failed: no name", "out-path failed: no outPath", "outputs failed: no outputs",
			"recursion failed: infinite recursion encountered", "system failed: no system", "to-install failed: no output", "type failed: no type", "z build",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		checkPlan(t, d)
	})
}

// Other values in place of hosts and sets are no reason to start another evaluator.
func TestOddSets(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `{
			nixosConfigurations = { a = host "a"; b.config.system.build.toplevel = "/nix/store/x"; };
			homeConfigurations = [ ];
			packages = { x86_64-linux = { }; aarch64-linux = x: x; };
			checks = "none";
			devShells.x86_64-linux.default = d "shell";
			formatter = null;
		}`)
		got, _, c := observe(t, n, Options{Installables: []string{ref}, Workers: 1})
		want := []string{
			"nixos nixosConfigurations.a build",
			"nixos nixosConfigurations.b failed: it is a string, not a derivation",
			"other homeConfigurations failed: it is a list, not a set",
			"package packages.aarch64-linux failed: it is a function, not a set",
			"check checks failed: it is a string, not a set",
			"other devShells.x86_64-linux.default build",
			"other formatter failed: it is null, not a set",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if n.EvaluatesWholeFlakes() && c.started != 1 {
			t.Errorf("%d evaluators were started", c.started)
		}
	})
}

// A name that is too long, or that JSON cannot hold, is a failure of its attribute alone,
// wherever it is.
func TestNamesThatCannotBeTold(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, "let odd = { a = d \"a\"; \"b\xff\" = throw \"not evaluated\"; \"c\xc3\xa9\" = d \"c\"; ${builtins.concatStringsSep \"\" (builtins.genList (_: \"d\") 1001)} = d \"d\"; e = d \"e\"; }; in "+
			"{ packages = { x86_64-linux = odd; \"\xff-linux\" = odd; }; checks.x86_64-linux.fine = d \"fine\"; hydraJobs.\"\xff\" = odd; nixosConfigurations = { \"m\xff\" = host \"m\"; n = host \"n\"; }; }")
		for _, workers := range []int{1, 3} {
			o := Options{Installables: []string{ref, ref + "#hydraJobs"}, Workers: workers}
			got, d, c := observe(t, n, o)
			want := []string{
				"nixos nixosConfigurations.m� failed: its name is not valid UTF-8",
				"nixos nixosConfigurations.n build",
				"package packages.x86_64-linux.a build",
				"package packages.x86_64-linux.b� failed: its name is not valid UTF-8",
				"package packages.x86_64-linux.cé build",
				"package packages.x86_64-linux." + strings.Repeat("d", 1000) + " failed: its name is longer than 1000 bytes",
				"package packages.x86_64-linux.e build",
				"check checks.x86_64-linux.fine build",
				"other hydraJobs.� failed: its name is not valid UTF-8",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if want := []string{"packages.�-linux"}; !slices.Equal(d.Omitted, want) {
				t.Errorf("omitted are %q, want %q", d.Omitted, want)
			}
			if n.EvaluatesWholeFlakes() && workers == 1 && c.started != 1 {
				t.Errorf("%d evaluators were started", c.started)
			}
			checkPlan(t, d)
		}
		// Attributes that globs leave out do not fail.
		got, _ := look(t, n, Options{Installables: []string{ref + "#packages"}, Exclude: []string{"packages.*.b*", "packages.*.d*"}})
		if want := []string{"package packages.x86_64-linux.a build", "package packages.x86_64-linux.cé build", "package packages.x86_64-linux.e build"}; !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		_, err := Run(t.Context(), n, with(n, Options{Installables: []string{ref + "#packages.x86_64-linux.nosuch"}}))
		if err == nil || !strings.Contains(err.Error(), "nosuch") || strings.Contains(err.Error(), "UTF-8") {
			t.Errorf("an attribute that is not there: %v", err)
		}
	})
}

// The outputs that are built are those that Nix takes, and never none.
func TestWantedOutputs(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `let
			many = outputs: derivation { name = "many"; system = "x86_64-linux"; builder = "/bin/sh"; inherit outputs; };
			installs = outputs: { meta.outputsToInstall = outputs; };
		in { packages.x86_64-linux = {
			empty = many [ "bin" "out" ] // installs [ ];
			empty-bin = many [ "bin" "doc" ] // installs [ ];
			install = many [ "bin" "out" ] // installs [ "out" ];
			lie = many [ "out" ] // { outputs = [ "out" "nope" ]; };
			none = many [ "out" ] // { outputs = [ ]; };
			none-installed = many [ "out" ] // { outputs = [ ]; } // installs [ ];
			really-none = many [ ];
			throws = many [ "out" ] // installs (throw "not looked at");
		}; }`)
		attr := "#packages.x86_64-linux."
		for _, test := range []struct{ installable, want string }{
			{"empty", "bin"},
			{"empty-bin", "bin"},
			{"empty^*", "bin out"},
			{"empty^out", "out"},
			{"install", "out"},
			{"install^*", "bin out"},
			{"install^nope", "it has no output nope: it has bin, out"},
			{"lie", "out"},
			{"lie^*", "it has no output nope: it has out, nope"},
			{"none", "it has no output"},
			{"none^*", "it has no output"},
			{"none^out", "it has no output"},
			{"none-installed", "it has no output"},
			{"really-none", "list"},
			{"throws^out", "out"},
			{"really-none^*", "list"},
		} {
			t.Run(test.installable, func(t *testing.T) {
				_, d := look(t, n, Options{Installables: []string{ref + attr + test.installable}})
				target := d.Targets[0]
				got := strings.Join(target.Outputs, " ")
				if target.State == job.StateFailed {
					got = target.Error
				}
				if len(d.Targets) != 1 || !strings.Contains(got, test.want) || got == "" || target.State == job.StateBuild && got != test.want {
					t.Errorf("got %s %q, want %q", target.State, got, test.want)
				}
				if len(target.OutPaths) != len(target.Outputs) {
					t.Errorf("%d paths of %d outputs", len(target.OutPaths), len(target.Outputs))
				}
			})
		}
	})
}

// A value that is no derivation fails among checks, as in `nix flake check`; elsewhere it is
// reported where a derivation is expected.
func TestNoDerivations(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		odd := `{
			drv = d "drv";
			function = { }: d "function";
			lambda = x: x;
			list = [ (d "x") ];
			nested = { x = d "x"; };
			recursed = { recurseForDerivations = true; x = d "x"; };
			recursed-oddly = { recurseForDerivations = "yes"; x = d "x"; };
			string = "text";
		}`
		ref := flake(t, `let odd = `+odd+`; in {
			checks.x86_64-linux = odd; packages.x86_64-linux = odd; legacyPackages.x86_64-linux = odd; devShells.x86_64-linux.default = 7;
			hydraJobs = { f = x: x; inner = { drv = d "drv"; no = { recurseForDerivations = false; x = 1; }; }; };
		}`)
		got, d, c := observe(t, n, Options{Installables: []string{ref, ref + "#legacyPackages", ref + "#hydraJobs"}, Workers: 1})
		const refused = "not a derivation, which `nix flake check` refuses too"
		want := []string{
			"package packages.x86_64-linux.drv build",
			"package packages.x86_64-linux.recursed.x build",
			"check checks.x86_64-linux.drv build",
			"check checks.x86_64-linux.function failed: it is a function, " + refused,
			"check checks.x86_64-linux.lambda failed: it is a function, " + refused,
			"check checks.x86_64-linux.list failed: it is a list, " + refused,
			"check checks.x86_64-linux.nested failed: it is a set, " + refused,
			"check checks.x86_64-linux.recursed failed: it is a set, " + refused,
			"check checks.x86_64-linux.recursed-oddly failed: it is a set, " + refused,
			"check checks.x86_64-linux.string failed: it is a string, " + refused,
			"package legacyPackages.x86_64-linux.drv build",
			"package legacyPackages.x86_64-linux.recursed.x build",
			"other hydraJobs.inner.drv build",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		passed := []string{
			"packages.x86_64-linux.function (a function)",
			"packages.x86_64-linux.lambda (a function)",
			"packages.x86_64-linux.list (a list)",
			"packages.x86_64-linux.nested (a set)",
			"packages.x86_64-linux.recursed-oddly (a set)",
			"packages.x86_64-linux.string (a string)",
			"devShells.x86_64-linux.default (an integer)",
			"hydraJobs.f (a function)",
		}
		if diff := cmp.Diff(passed, d.Passed); diff != "" {
			t.Error(diff)
		}
		if n.EvaluatesWholeFlakes() && c.started != 1 {
			t.Errorf("%d evaluators were started", c.started)
		}
		// Attributes that are left out neither fail nor are reported.
		got, d = look(t, n, Options{Installables: []string{ref}, Include: []string{"**.drv"}})
		if len(got) != 2 || len(d.Passed) > 0 {
			t.Errorf("got %v and %v", got, d.Passed)
		}
	})
}

// Derivations with a builder of Nix's own can be built on any system.
func TestBuiltinSystem(t *testing.T) {
	n := useNix(t, "2.34")
	ref := flake(t, `{ packages = {
		x86_64-linux.fetched = import <nix/fetchurl.nix> { url = "file:///x"; sha256 = "0000000000000000000000000000000000000000000000000000"; };
		aarch64-linux.by-hand = derivation { name = "x"; system = "builtin"; builder = "builtin:fetchurl"; };
	}; }`)
	for _, test := range []struct {
		systems []string
		want    string
	}{
		{[]string{"aarch64-linux", "x86_64-linux"}, "x86_64-linux"},
		{[]string{"aarch64-linux"}, "aarch64-linux"},
	} {
		_, d := look(t, n, Options{Installables: []string{ref + "#packages.x86_64-linux.fetched", ref + "#packages.aarch64-linux.by-hand"}, Systems: test.systems})
		if len(d.Targets) != 2 {
			t.Fatalf("%v, omitted %v", d.Targets, d.Omitted)
		}
		for _, target := range d.Targets {
			if target.State != job.StateBuild || target.System != test.want {
				t.Errorf("for %v: %s on %s: %s", test.systems, target.State, target.System, target.Error)
			}
		}
	}
}

// text.nix accepts exactly valid UTF-8.
func TestUTF8(t *testing.T) {
	const interesting = "\x01A\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xec\xed\xee\xef\xf0\xf1\xf3\xf4\xf5\xff"
	var texts []string
	for _, a := range []byte(interesting) {
		texts = append(texts, string([]byte{a}))
		for _, b := range []byte(interesting) {
			texts = append(texts, string([]byte{a, b}))
			for _, c := range []byte("\x80\xbfA") {
				texts = append(texts, string([]byte{a, b, c}))
				for _, d := range []byte("\x80\xbfA") {
					texts = append(texts, string([]byte{a, b, c, d}))
				}
			}
		}
	}
	var list strings.Builder
	for _, s := range texts {
		list.WriteString(quote(s) + "\n")
	}
	file := filepath.Join(t.TempDir(), "texts.nix")
	if err := os.WriteFile(file, []byte("[\n"+list.String()+"]"), 0o600); err != nil {
		t.Fatal(err)
	}
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		var said string
		e := nix.Evaluation{Expr: "import " + file, Apply: `texts: let inherit (` + nixFile("text") + `) clean; in
			builtins.trace (builtins.concatStringsSep "" (map (s: if clean s == s then "1" else if clean (clean s) == clean s then "0" else "x") texts)) null`}
		if err := n.Eval(t.Context(), e, func(line string) bool { said += strings.TrimPrefix(line, "trace: "); return true }); err != nil {
			t.Fatal(err)
		}
		if len(said) != len(texts) {
			t.Fatalf("of %d texts, it says %.100s", len(texts), said)
		}
		for i, s := range texts {
			if want := map[bool]byte{true: '1', false: '0'}[utf8.ValidString(s)]; said[i] != want {
				t.Errorf("%q: %c, want %c", s, said[i], want)
			}
		}
	})
}
