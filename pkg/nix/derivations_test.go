package nix

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// keptAt is the same Nix with another setting "store".
func keptAt(t *testing.T, n *Nix, store string) *Nix {
	t.Helper()
	value, err := json.Marshal(store)
	if err != nil {
		t.Fatal(err)
	}
	at := *n
	at.config = maps.Clone(n.config)
	at.config["store"] = setting{value}
	return &at
}

func TestDerivations(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		n = n.WithOptions(Set("extra-experimental-features", "ca-derivations"))
		// Only this thread has the store mounted at /nix.
		n = keptAt(t, n, fmt.Sprintf("local?real=/proc/%d/root/nix/store", unix.Gettid()))
		drvs := instantiate(t, n, `let
			drv = name: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; } // more // { args = [ "-c" "for o in ${toString (more.outputs or [ "out" ])}; do eval echo ${toString more.args or ""} '>$'$o; done" ]; });
			floating = { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; outputs = [ "out" "dev" ]; };
		in rec {
			base = drv "base" { outputs = [ "out" "doc" ]; };
			top = drv "top" { args = [ base.doc ]; };
			local = drv "local" { preferLocalBuild = true; };
			structured = drv "structured" { preferLocalBuild = true; __structuredAttrs = true; };
			named = drv "named" { text = "(\"preferLocalBuild\",\"1\")"; };
			fixed = drv "fixed" { outputHash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="; outputHashMode = "flat"; };
			ca = drv "ca" (floating // { args = [ base ]; });
			after = drv "after" { args = [ ca.dev ]; };
		}`)
		names := []string{"base", "top", "ca", "after"}
		paths := make([]string, len(names))
		for i, name := range names {
			paths[i] = drvs[name]
		}
		got, err := n.Derivations(t.Context(), paths)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(got[0].Outputs["out"], "-base") || !strings.HasSuffix(got[0].Outputs["doc"], "-base-doc") {
			t.Errorf("base: %v", got[0])
		}
		if diff := cmp.Diff(map[string][]string{drvs["base"]: {"doc"}}, got[1].Inputs); diff != "" {
			t.Error(diff)
		}
		// Nix knows the outputs that are known only after the build.
		if diff := cmp.Diff(map[string]string{"out": "", "dev": ""}, got[2].Outputs) + cmp.Diff(map[string]string{"out": ""}, got[3].Outputs); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[string][]string{drvs["base"]: {"out"}}, got[2].Inputs) + cmp.Diff(map[string][]string{drvs["ca"]: {"dev"}}, got[3].Inputs); diff != "" {
			t.Error(diff)
		}
		if parsed, err := n.Derivation(drvs["after"]); err != nil || parsed.Outputs["out"].Path != "" || len(parsed.InputDerivations) != 1 {
			t.Errorf("after: %+v, %v", parsed, err)
		}

		for name, want := range map[string]Derivation{
			"base": {Known: true}, "ca": {}, "after": {}, "local": {Known: true, Light: true}, "structured": {Known: true, Light: true},
			"named": {Known: true}, "fixed": {Known: true, Light: true},
		} {
			of, err := n.Derivations(t.Context(), []string{drvs[name]})
			if err != nil || of[0].Known != want.Known || of[0].Light != want.Light {
				t.Errorf("%s: %+v, %v", name, of, err)
			}
		}

		realise(t, n, drvs["after"])
		if got, err = n.Derivations(t.Context(), paths); err != nil || !strings.HasSuffix(got[2].Outputs["dev"], "-ca-dev") || !strings.HasSuffix(got[3].Outputs["out"], "-after") {
			t.Errorf("once they are built, the outputs are %v and %v, %v", got[2].Outputs, got[3].Outputs, err)
		}
		if got[2].Known || got[3].Known {
			t.Error("another machine may build other outputs")
		}

		// Where files are out of reach, Nix is asked for everything.
		asked, err := keptAt(t, n, "local?real=/nowhere").Derivations(t.Context(), paths)
		if err != nil {
			t.Fatal(err)
		}
		if asked[0].Known {
			t.Error("it is not known to be known")
		}
		asked[0].Known = true
		if diff := cmp.Diff(got[0], asked[0], cmp.Comparer(func(a, b map[string][]string) bool { return len(a) == len(b) })); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[string][]string{drvs["base"]: nil}, asked[1].Inputs); diff != "" {
			t.Error(diff)
		}

		none := func(i string) string { return "/nix/store/" + strings.Repeat(i, 32) + "-none.drv" }
		some, err := n.Derivations(t.Context(), []string{none("1"), drvs["top"], none("2")})
		if err == nil || !strings.Contains(err.Error(), none("1")) || !strings.Contains(err.Error(), "(and 1 more)") {
			t.Errorf("of a missing path: %v", err)
		}
		if diff := cmp.Diff([]Derivation{{}, got[1], {}}, some); diff != "" {
			t.Error(diff)
		}
	})
}

// A store may lie in another directory than its paths say.
func TestRealDir(t *testing.T) {
	for store, want := range map[string]string{
		"": "/nix/store", "auto": "/nix/store", "daemon": "/nix/store", "unix:///run/socket": "/nix/store", "local": "/nix/store",
		"/a/b": "/a/b/nix/store", "local:///a/b?trusted=1": "/a/b/nix/store", "local?root=/a%20b": "/a b/nix/store",
		"local?real=/a/store": "/a/store", "/a/b?real=/c": "/c", "local?root=/a&real=/b": "/b", "local?root=%": "/nix/store",
	} {
		if got := keptAt(t, &Nix{config: map[string]setting{}}, store).realDir(); got != want {
			t.Errorf("%q: %s, want %s", store, got, want)
		}
	}
}

// beginning changes nothing in the lists that it keeps, and invalid derivations stay invalid.
func TestBeginning(t *testing.T) {
	const drv = `Derive([("doc","/nix/store/5nkr8lhsr36p2q4s2ypk1h4h9ij4p5z6-a-doc","",""),("out","/nix/store/6nkr8lhsr36p2q4s2ypk1h4h9ij4p5z6-a","","")],` +
		`[("/nix/store/7nkr8lhsr36p2q4s2ypk1h4h9ij4p5z6-b.drv",["lib","out"]),("/nix/store/8nkr8lhsr36p2q4s2ypk1h4h9ij4p5z6-c.drv",["out"])],` +
		`["/nix/store/9nkr8lhsr36p2q4s2ypk1h4h9ij4p5z6-d"],"x86_64-linux","/bin/sh",["-c","echo \"]\""],[("name","a"),("text","[]],")])`
	whole, err := parseDerivation("a", []byte(drv))
	if err != nil {
		t.Fatal(err)
	}
	short := beginning([]byte(drv))
	begun, err := parseDerivation("a", short)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(whole.Outputs, begun.Outputs) + cmp.Diff(whole.InputDerivations, begun.InputDerivations); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(string(short), "echo") {
		t.Errorf("all is read: %s", short)
	}
	for _, drv := range []string{
		`Derive([("out","","r:sha256","")],[("../b.drv",["out"])],[],"x","x",[],[("name","a")])`,
		`Derive([("doc","/a","r:sha256",""),("out","","r:sha256","")],[],[],"x","x",[],[("name","a")])`,
		"", "Derive(", `Derive([],[`, "]][[", `Derive(["\`, drv[:80], drv[:150], "Error" + drv,
		`DrvWithVersion("xp-dyn-drv",[("out","","r:sha256","")],[("/nix/store/7nkr8lhsr36p2q4s2ypk1h4h9ij4p5z6-b.drv",(["out"],[]))],[],"x","x",[],[("name","a")])`,
		`Derive([("out","a\",[]"],[],`,
	} {
		if parsed, err := parseDerivation("a", beginning([]byte(drv))); err == nil {
			t.Errorf("%s is %v", drv, parsed)
		}
	}
}
