package evaluate

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/nix"
)

// Packages that forbid to build them, as Nixpkgs marks them now and before, and as others may.
func TestRefused(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `let
			# as nixpkgs' check-meta: the attributes are there, the derivation throws
			checked = name: message: meta: d name // { drvPath = throw message; outPath = throw message; inherit meta; };
			unavailable = { available = false; position = "/nix/store/x/default.nix:12"; };
			old = name: what: checked name "Package ‘${name}’ in /nix/store/x/default.nix:12 ${what}, refusing to evaluate.\n\na) To temporarily allow" unavailable;
			new = name: what: checked name "Refusing to evaluate package '${name}' in /nix/store/x/default.nix:12 because it ${what}\na) To" unavailable;
			marked = name: marks: checked name "Refusing to evaluate" ({ available = false; broken = false; unfree = false; unsupported = false; insecure = false; } // marks);
			hostPlatform = "is not available on the requested hostPlatform:\n  hostPlatform.system = \"x86_64-linux\"\n";
		in {
			packages.x86_64-linux = {
				allowed = d "allowed" // { meta = { available = true; broken = true; platforms = [ ]; unfree = true; }; };
				bad = d "bad" // { meta.badPlatforms = [ "x86_64-linux" ]; };
				fine = d "fine" // { meta = { broken = false; platforms = [ "aarch64-linux" "x86_64-linux" ]; }; };
				foreign = d "foreign" // { meta.platforms = [ "aarch64-darwin" ]; };
				marked-broken = marked "b" { broken = true; unfree = true; };
				marked-insecure = marked "i" { insecure = true; };
				marked-unfree = marked "u" { unfree = true; };
				marked-unsupported = marked "s" { unsupported = true; };
				new-broken = new "nb" "is marked as broken";
				new-insecure = new "ni" "is marked as insecure";
				new-platform = new "np" hostPlatform;
				new-unfree = new "nu" "has an unfree license (‘bsl11’)";
				old-broken = old "ob" "is marked as broken";
				old-platform = old "op" "is not supported on ‘x86_64-linux’";
				old-unfree = old "ou" "has an unfree license (‘unfree’)";
				patterns = d "patterns" // { meta.platforms = [ { kernel.name = "linux"; } ]; };
				plain = d "plain" // { meta.broken = true; };
				weird = d "weird" // { meta = throw "no meta at all"; };
			};
			nixosConfigurations.a.config.system.build.toplevel = old "nixos-system-a" "is marked as broken";
		}`)
		got, d := look(t, n, Options{Installables: []string{ref}})
		for i := range got {
			got[i] = strings.Replace(got[i], "package packages.x86_64-linux.", "", 1)
		}
		want := []string{
			"nixos nixosConfigurations.a failed: Package ‘nixos-system-a’ in /nix/store/x/default.nix:12 is marked as broken, refusing to evaluate.",
			"allowed build",
			"bad skip because it is not available on x86_64-linux",
			"fine build",
			"foreign skip because it is not available on x86_64-linux",
			"marked-broken skip because it is marked as broken",
			"marked-insecure skip because it is marked as insecure",
			"marked-unfree skip because it has an unfree license",
			"marked-unsupported skip because it is not available on x86_64-linux",
			"new-broken skip because it is marked as broken",
			"new-insecure skip because it is marked as insecure",
			"new-platform skip because it is not available on x86_64-linux",
			"new-unfree skip because it has an unfree license (‘bsl11’)",
			"old-broken skip because it is marked as broken",
			"old-platform skip because it is not supported on ‘x86_64-linux’",
			"old-unfree skip because it has an unfree license (‘unfree’)",
			"patterns build",
			"plain skip because it is marked as broken",
			"weird failed: no meta at all",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		checkPlan(t, d)
	})
}

// A target fails if another package that it needs is refused, whatever their names.
func TestRefusedDependency(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `let
			old = name: position: "Package ‘${name}’ in ${position} is marked as broken, refusing to evaluate.\n\na) To temporarily allow";
			new = name: position: "Refusing to evaluate package '${name}' in ${position} because it is marked as broken\na) To";
			# as nixpkgs' check-meta: the package is there, and its derivation throws
			broken = message: name: d name // rec {
				drvPath = throw (message name meta.position);
				outPath = drvPath;
				meta = { available = false; broken = false; position = "/nix/store/x/${name}.nix:12"; };
			};
			on = name: dependency: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; DEP = "${dependency}"; };
			hello = broken new "hello";
		in {
			packages.x86_64-linux = {
				a-own = hello;
				b-same-name = on "hello" hello;
				c-same-name-old = on "hello" (broken old "hello");
				d-available = on "hello" hello // { meta = { available = true; position = "/nix/store/x/wrapper.nix:1"; }; };
				e-elsewhere = on "hello" hello // { meta = { available = false; position = "/nix/store/x/wrapper.nix:1"; }; };
				f-overridden-name = hello // { name = "other"; };
				g-no-position = broken new "g" // { meta.available = false; };
				h-no-position = on "h" hello // { meta.available = false; };
				i-attribute = throw (old "hello" "/x:1");
				j-name = d "j" // { name = throw (new "j" "/x:1"); };
				k-meta = d "k" // { meta = throw (new "k" "/x:1"); };
				l-inherited = on "l" hello // { inherit (hello) meta; };
				m-other-name = on "m" hello;
			};
			nixosConfigurations.a = host "a" // { config.system.build.toplevel = on "nixos-system-a" hello; };
		}`)
		got, d := look(t, n, Options{Installables: []string{ref}})
		for i := range got {
			got[i] = strings.Replace(got[i], "package packages.x86_64-linux.", "", 1)
		}
		const refusing = "Refusing to evaluate package 'hello' in /nix/store/x/hello.nix:12 because it is marked as broken"
		want := []string{
			"nixos nixosConfigurations.a failed: " + refusing,
			"a-own skip because it is marked as broken",
			"b-same-name failed: " + refusing,
			"c-same-name-old failed: Package ‘hello’ in /nix/store/x/hello.nix:12 is marked as broken, refusing to evaluate.",
			"d-available failed: " + refusing,
			"e-elsewhere failed: " + refusing,
			"f-overridden-name skip because it is marked as broken",
			"g-no-position skip because it is marked as broken",
			"h-no-position failed: " + refusing,
			"i-attribute failed: Package ‘hello’ in /x:1 is marked as broken, refusing to evaluate.",
			"j-name failed: Refusing to evaluate package 'j' in /x:1 because it is marked as broken",
			"k-meta failed: Refusing to evaluate package 'k' in /x:1 because it is marked as broken",
			"l-inherited skip because it is marked as broken", // as its own meta has it
			"m-other-name failed: " + refusing,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		checkPlan(t, d)
	})
}
