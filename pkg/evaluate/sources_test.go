package evaluate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// eachNixAlso is eachNix with the version in between too.
func eachNixAlso(t *testing.T, test func(*testing.T, *nix.Nix)) {
	t.Run("2.26", func(t *testing.T) { test(t, useNix(t, "2.26")) })
	eachNix(t, test)
}

func TestOutputsOfFlakes(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `{
			devShells.x86_64-linux.default = d "shell";
			devShells.aarch64-darwin.default = throw "not wanted";
			formatter.x86_64-linux = d "formatter";
			formatter.aarch64-darwin = throw "not wanted";
			legacyPackages.x86_64-linux = {
				top = d "top";
				set = { below = throw "not to be looked at"; };
				python = { recurseForDerivations = true; lib = d "lib"; more = { recurseForDerivations = true; deep = d "deep"; }; };
				recurseForDerivations = false;
			};
			legacyPackages.aarch64-darwin = throw "not wanted";
			hydraJobs.tests = { fine = d "fine"; more.broken = throw "does not work"; function = { x }: x; no = { recurseForDerivations = false; x = throw "not wanted"; }; text = "x"; };
			hydraJobs.release = d "release";
			lib = throw "not looked at";
		}`)
		for _, test := range []struct {
			attr string
			want []string
		}{
			{"", []string{"other devShells.x86_64-linux.default build", "other formatter.x86_64-linux build"}},
			{"#legacyPackages", []string{
				"package legacyPackages.x86_64-linux.python.lib build", "package legacyPackages.x86_64-linux.python.more.deep build", "package legacyPackages.x86_64-linux.top build",
			}},
			{"#legacyPackages.x86_64-linux.python.more", []string{"package legacyPackages.x86_64-linux.python.more.deep build"}},
			{"#hydraJobs", []string{
				"other hydraJobs.release build", "other hydraJobs.tests.fine build", "other hydraJobs.tests.more.broken failed: does not work",
			}},
			{"#hydraJobs.tests.more", []string{"other hydraJobs.tests.more.broken failed: does not work"}},
			{"#formatter", []string{"other formatter.x86_64-linux build"}},
		} {
			got, _ := look(t, n, Options{Installables: []string{ref + test.attr}})
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s: %s", test.attr, diff)
			}
		}
	})
}

func TestHostAttr(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `{
			nixosConfigurations = {
				a.config.system.build = { toplevel = throw "not asked for"; vm = d "vm"; "odd.name" = d "odd"; };
				b.config.system.build.toplevel = throw "not asked for";
			};
			homeConfigurations.anna.activationPackage = d "home-manager-generation";
		}`)
		for _, attr := range []string{"vm", "config.system.build.vm"} {
			got, d := look(t, n, Options{Installables: []string{ref}, HostAttr: attr})
			want := []string{"nixos nixosConfigurations.a build", "nixos nixosConfigurations.b failed: attribute 'vm' missing", "home homeConfigurations.anna build"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if target := d.Targets[0]; target.Attr != "nixosConfigurations.a.config.system.build.vm" || target.Host != "a" || !strings.HasSuffix(target.OutPaths["out"], "-vm") {
				t.Errorf("%s: %+v", attr, target)
			}
			if target := d.Targets[1]; target.Attr != "nixosConfigurations.b.config.system.build.vm" || target.Reproduce != "nix build "+ref+"#"+target.Attr || target.Error != "attribute 'vm' missing" {
				t.Errorf("%s: %+v", attr, target)
			}
		}
		got, _ := look(t, n, Options{Installables: []string{ref + "#nixosConfigurations.a"}, HostAttr: `"odd.name"`})
		if want := []string{"nixos nixosConfigurations.a build"}; !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

func TestArguments(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		dir := t.TempDir()
		file := filepath.Join(dir, "release.nix")
		write := func(path, text string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(filepath.Join(dir, "pinned.nix"), `"pinned"`)
		write(file, `{ name, count ? 1, ... }@all: let
			d = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; };
		in {
			${name} = d "${name}-${toString count}";
			any = { ... }@x: d "any-${toString (builtins.length (builtins.attrNames x))}";
			none = { }: d "none";
			some = { count, other ? "default" }: d "some-${toString count}-${other}";
			path = d (import <pin>);
			lambda = x: throw "not to be called";
			primitive = builtins.map;
			needs = { nothing }: throw "not to be called";
			all = d "all-${toString (builtins.length (builtins.attrNames all))}";
		}`)
		o := Options{
			File: file, Args: []Arg{{"count", "1 + 1 # and a comment"}}, ArgStrs: []Arg{{"name", "a ${b}"}, {"extra", "x"}},
			NixPath: []string{"pin=" + filepath.Join(dir, "pinned.nix")},
		}
		o.ArgStrs[0].Value = "hello"
		_, d := look(t, n, o)
		var got []string
		for _, target := range d.Targets {
			_, name, _ := strings.Cut(target.OutPaths["out"], "-")
			got = append(got, target.Attr+" "+name)
		}
		if want := []string{"all all-3", "any any-3", "hello hello-2", "none none", "path pinned", "some some-2-default"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		want := "nix-build " + file + " -A all --arg count '1 + 1 # and a comment' --argstr name hello --argstr extra x -I pin=" + dir + "/pinned.nix"
		if d.Targets[0].Reproduce != want {
			t.Errorf("reproduce with %s, want %s", d.Targets[0].Reproduce, want)
		}

		// A text is no expression.
		o.ArgStrs[0].Value = `"; ${builtins.abort "code"} ''`
		o.Attrs = []string{"none"}
		if got, _ := look(t, n, o); !slices.Equal(got, []string{"other none build"}) {
			t.Errorf("got %v", got)
		}

		var needs *ArgumentsError
		_, err := Run(t.Context(), n, with(n, Options{File: file}))
		if !errors.As(err, &needs) || !strings.HasSuffix(err.Error(), "release.nix is a function that needs the argument name. Set it with --arg name EXPR or --argstr name TEXT") {
			t.Errorf("without an argument: %v", err)
		}
		o.Attrs = []string{"needs"}
		if _, err = Run(t.Context(), n, with(n, o)); !errors.As(err, &needs) || !strings.Contains(err.Error(), "needs in ") {
			t.Errorf("an attribute without an argument: %v", err)
		}
	})
}

// All features of globs, on difficult names.
func TestGlobs(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `{
			nixosConfigurations = { pi3 = host "pi3"; pi4 = host "pi4"; server = host "server"; };
			packages.x86_64-linux = { hello = d "hello"; help = d "help"; "with.dot" = d "dot"; "*" = d "star"; "new\nline" = d "line"; abcabc = d "abcabc"; };
			checks.x86_64-linux = { lint = d "lint"; unit = d "unit"; };
			checks.aarch64-linux.lint = derivation { name = "lint"; system = "aarch64-linux"; builder = "/bin/sh"; };
			hydraJobs = { a = { lint = d "a"; x.lint = d "xlint"; }; lint = d "toplint"; other = d "other"; };
			legacyPackages.x86_64-linux = { python = { recurseForDerivations = true; requests = d "requests"; }; go = d "go"; };
		}`)
		all := []string{"#nixosConfigurations", "#packages", "#checks", "#hydraJobs", "#legacyPackages"}
		for _, test := range []struct {
			include, exclude []string
			want             string
		}{
			{[]string{"nixosConfigurations.pi3"}, nil, "nixosConfigurations.pi3"},
			{[]string{"nixosConfigurations.pi*"}, nil, "nixosConfigurations.pi3 nixosConfigurations.pi4"},
			{[]string{"nixosConfigurations.*"}, []string{"*.pi*"}, "nixosConfigurations.server"},
			{[]string{"nixosConfigurations.pi3.config.system.build.toplevel"}, nil, "nixosConfigurations.pi3"},
			{[]string{"nixosConfigurations.*.config.**"}, []string{"**.pi?", "**.p*3"}, ""}, // ? is no wildcard
			{[]string{"checks.*.lint"}, nil, "checks.aarch64-linux.lint checks.x86_64-linux.lint"},
			{[]string{"**.lint"}, nil, "checks.aarch64-linux.lint checks.x86_64-linux.lint hydraJobs.a.lint hydraJobs.a.x.lint hydraJobs.lint"},
			{[]string{"hydraJobs.**.lint"}, []string{"hydraJobs.*.lint"}, "hydraJobs.a.x.lint hydraJobs.lint"},
			{[]string{"hydraJobs.**.x.**"}, nil, "hydraJobs.a.x.lint"},
			{[]string{"checks"}, []string{"checks.x86_64-linux"}, "checks.aarch64-linux.lint"},
			{nil, []string{"**.lint", "packages", "hydraJobs.**", "nixosConfigurations.*", "**.python"}, "checks.x86_64-linux.unit legacyPackages.x86_64-linux.go"},
			{[]string{`packages.*."with.dot"`}, nil, `packages.x86_64-linux."with.dot"`},
			{[]string{`packages.*."*"`}, nil, `packages.x86_64-linux.*`},
			{[]string{"packages.*.new*line"}, nil, `packages.x86_64-linux."new\nline"`},
			{[]string{`packages.*."new\nline"`}, nil, `packages.x86_64-linux."new\nline"`},
			{[]string{"packages.*.hel*o"}, nil, "packages.x86_64-linux.hello"},
			{[]string{"packages.*.abc*abc", "packages.*.a*bc*"}, nil, "packages.x86_64-linux.abcabc"},
			{[]string{"packages.*.*c*"}, nil, "packages.x86_64-linux.abcabc"},
			{[]string{"packages.*.*e*l*p"}, nil, "packages.x86_64-linux.help"},
			{[]string{"legacyPackages.*.python.requests"}, nil, "legacyPackages.x86_64-linux.python.requests"},
			{[]string{"**"}, []string{"hydraJobs", "legacyPackages", "packages", "checks.**.unit", "nixosConfigurations"}, "checks.aarch64-linux.lint checks.x86_64-linux.lint"},
		} {
			var installables []string
			for _, attr := range all {
				installables = append(installables, ref+attr)
			}
			d, err := Run(t.Context(), n, with(n, Options{Installables: installables, Include: test.include, Exclude: test.exclude}))
			if test.want == "" {
				if err == nil {
					t.Errorf("%v without %v is no error", test.include, test.exclude)
				}
				continue
			}
			if err != nil {
				t.Errorf("%v without %v: %v", test.include, test.exclude, err)
				continue
			}
			var names []string
			for _, target := range d.Targets {
				names = append(names, target.Name)
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("%v without %v gives %q, want %q", test.include, test.exclude, got, test.want)
			}
		}
	})
}

// Attributes that are left out in any way are not evaluated.
func TestLeftOutIsNotEvaluated(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `{
			nixosConfigurations = { a = host "a"; b = builtins.abort "b"; };
			homeConfigurations = builtins.abort "homes";
			packages.x86_64-linux = { a = d "a"; b = builtins.abort "b"; };
			packages.aarch64-linux = builtins.abort "other system";
			checks = builtins.abort "checks";
			devShells.x86_64-linux.a = builtins.abort "shell";
			formatter = builtins.abort "formatter";
		}`)
		for _, o := range []Options{
			{Include: []string{"nixosConfigurations.a", "packages.x86_64-linux.a"}},
			{Exclude: []string{"**.b", "homeConfigurations", "packages.aarch64-linux", "checks", "devShells.x86_64-linux.a", "formatter"}},
			{Include: []string{"nixosConfigurations.*", "packages.x86_64-linux"}, Exclude: []string{"*.b", "packages.*.b"}},
		} {
			o.Installables = []string{ref}
			got, _ := look(t, n, o)
			if want := []string{"nixos nixosConfigurations.a build", "package packages.x86_64-linux.a build"}; !slices.Equal(got, want) {
				t.Errorf("%v without %v: %v", o.Include, o.Exclude, got)
			}
		}
		// A set that can't be entered may hide what a glob means: that fails. But an
		// attribute that no glob covers does not.
		if n.EvaluatesWholeFlakes() {
			got, _ := look(t, n, Options{Installables: []string{ref}, Include: []string{"**.a"}, Exclude: []string{"devShells", "formatter", "packages.aarch64-linux"}})
			want := []string{
				"nixos nixosConfigurations.a build",
				"other homeConfigurations failed: evaluation aborted with the following error message: 'homes'",
				"package packages.x86_64-linux.a build",
				"check checks failed: evaluation aborted with the following error message: 'checks'",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
	})
}

func TestGlobsThatMatchNothing(t *testing.T) {
	eachNix(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `{
			nixosConfigurations = { pi3 = host "pi3"; server = host "server"; };
			packages.x86_64-linux.hello = d "hello";
			packages.aarch64-darwin.hello = d "hello";
			checks = throw "no checks";
		}`)
		for _, test := range []struct {
			include, exclude []string
			want             string
		}{
			{[]string{"nixosConfigurations.pi4"}, nil, "nothing in " + ref + " matches nixosConfigurations.pi4; the nearest names are: nixosConfigurations.pi3, "},
			{nil, []string{"package.x86_64-linux.hello"}, "matches package.x86_64-linux.hello; the nearest names are: packages.x86_64-linux.hello"},
			{[]string{"nixosConfigurations.*", "**.helo"}, []string{"checks"}, "matches **.helo; "},
			{[]string{"nixosConfiguration.*"}, nil, "nixosConfigurations"},
			{[]string{"a..b"}, nil, `invalid glob "a..b": there is an empty name in it`},
			{[]string{`a."b`}, nil, `invalid glob "a.\"b": it has no closing quote`},
			{[]string{""}, nil, "there is an empty name in it"},
		} {
			o := with(n, Options{Installables: []string{ref}, Include: test.include, Exclude: test.exclude})
			_, err := Run(t.Context(), n, o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v without %v: %v, want %q", test.include, test.exclude, err, test.want)
			}
			o.AllowEmpty = true
			var glob *GlobError
			if _, allowed := Run(t.Context(), n, o); errors.As(err, &glob) != (allowed == nil) {
				t.Errorf("%v without %v: when that is allowed, %v", test.include, test.exclude, allowed)
			}
		}
		// A glob may match something in an output that is not evaluated.
		for _, o := range []Options{
			{Exclude: []string{"packages.aarch64-darwin.hello"}},
			{Exclude: []string{"darwinConfigurations.mac"}},
			{Exclude: []string{"checks.x86_64-linux.lint"}},
		} {
			o.Installables = []string{ref}
			if o.Exclude[0] == "darwinConfigurations.mac" {
				o.Installables[0] = flake(t, `{ packages.x86_64-linux.hello = d "hello"; darwinConfigurations.mac = throw "x"; }`)
			}
			if _, err := Run(t.Context(), n, with(n, o)); err != nil {
				t.Errorf("without %v: %v", o.Exclude, err)
			}
		}
		d, err := Run(t.Context(), n, with(n, Options{Installables: []string{flake(t, `{ }`)}, AllowEmpty: true}))
		if err != nil || len(d.Targets) > 0 {
			t.Errorf("nothing at all, which is allowed: %v, %v", d, err)
		}
	})
}

// checkPlan checks that all targets can be in a Plan.
func checkPlan(t testing.TB, d *Evaluation) {
	t.Helper()
	data, err := (&job.Plan{Version: job.Version, ID: job.DefaultID, Targets: d.Targets}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := job.ParsePlan(data); err != nil {
		t.Error(err)
	}
}

// Packages' own descriptions: one that throws is no failure.
func TestDescriptions(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `{
			packages.x86_64-linux = {
				all = d "all" // { meta = { description = " Two\nlines \t of it"; nixMatrix.runner = [ "self-hosted" " big " "" 7 ]; }; requiredSystemFeatures = [ "kvm" "big-parallel" ]; };
				aborts = d "aborts" // { meta.description = ({ x }: x) { }; };
				long = d "long" // { meta = { description = "`+strings.Repeat("ä", 300)+`"; nixMatrix.runner = "arm"; }; requiredSystemFeatures = "kvm nixos-test"; };
				none = d "none";
				odd = d "odd" // { meta = { description = { }; nixMatrix = [ ]; }; requiredSystemFeatures = 7; };
				throws = d "throws" // { meta = { description = throw "x"; nixMatrix = throw "y"; }; requiredSystemFeatures = [ "a" (throw "z") ]; };
				z = d "z" // { meta.description = "after all"; };
			};
			nixosConfigurations.a = host "a" // { meta.nixMatrix.runner = "metal"; };
		}`)
		got, d := look(t, n, Options{Installables: []string{ref}})
		for _, line := range got {
			if !strings.HasSuffix(line, " build") {
				t.Error(line)
			}
		}
		checkPlan(t, d)
		targets := map[string]job.Target{}
		for _, target := range d.Targets {
			targets[strings.TrimPrefix(target.Name, "packages.x86_64-linux.")] = target
		}
		for _, test := range []struct{ name, want string }{
			{"all", `"Two lines of it" [kvm big-parallel] ["self-hosted" "big"]`},
			{"aborts", `"" [] []`},
			{"none", `"" [] []`},
			{"odd", `"" [] []`},
			{"throws", `"" [] []`},
			{"z", `"after all" [] []`},
			{"nixosConfigurations.a", `"" [] ["metal"]`},
		} {
			target := targets[test.name]
			if got := fmt.Sprintf("%q %v %q", target.Description, target.Features, target.Runner); got != test.want {
				t.Errorf("%s: %s, want %s", test.name, got, test.want)
			}
		}
		long := targets["long"]
		if utf8.RuneCountInString(long.Description) != 200 || !strings.HasSuffix(long.Description, "ää…") || !slices.Equal(long.Features, []string{"kvm", "nixos-test"}) || !slices.Equal(long.Runner, []string{"arm"}) {
			t.Errorf("long: %+v", long)
		}
	})
}

// The command that reproduces a target names it in Nix's syntax, and its name is shown as
// nix-matrix accepts it.
func TestOddNames(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `{
			packages.x86_64-linux = {
				"b.c" = d "b"; "b\".\"c" = d "bc"; "b^out" = d "b"; "b#c%41 \\ä" = d "b"; "b\nc" = d "b"; "" = d "b";
			};
		}`)
		got, d := look(t, n, Options{Installables: []string{ref}})
		checkPlan(t, d)
		want := []string{
			`package packages.x86_64-linux."" build`,
			`package packages.x86_64-linux."b\nc" build`,
			`package packages.x86_64-linux."b\".\"c" build`,
			`package packages.x86_64-linux."b#c%41 \\ä" build`,
			`package packages.x86_64-linux."b.c" build`,
			`package packages.x86_64-linux.b^out build`,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		var names, installables []string
		for _, target := range d.Targets {
			if target.Reproduce == "" {
				continue // what a command line of Nix can't name
			}
			typed := strings.Trim(strings.TrimPrefix(target.Reproduce, "nix build "), "'")
			cmd := exec.Command("nix", "eval", "--raw", typed+".drvPath")
			if out, err := cmd.CombinedOutput(); !strings.HasSuffix(string(out), target.DrvPath) {
				t.Errorf("%s gives %s, %v", typed, out, err)
			}
			names, installables = append(names, target.Name), append(installables, typed)
			if !strings.ContainsAny(target.Attr, "^%") { // which mean something there
				installables = append(installables, ref+"#"+target.Attr)
			}
		}
		// As it is shown and as it is typed, each is there once.
		_, d = look(t, n, Options{Installables: installables})
		var again []string
		for _, target := range d.Targets {
			again = append(again, target.Name)
		}
		if diff := cmp.Diff(names, again); diff != "" || len(names) != 4 {
			t.Error(names, diff)
		}
	})
}
