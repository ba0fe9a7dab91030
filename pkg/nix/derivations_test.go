package nix

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
		n = n.With(Option{"extra-experimental-features", "ca-derivations"})
		// Only this thread has the store at /nix.
		n = keptAt(t, n, fmt.Sprintf("local?real=/proc/%d/root/nix/store", unix.Gettid()))
		drvs := instantiate(t, n, `let
			drv = name: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; } // more);
			floating = { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; outputs = [ "out" "dev" ]; };
		in rec {
			base = drv "base" { outputs = [ "out" "doc" ]; };
			top = drv "top" { args = [ base.doc ]; };
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
		// What the file's reader does not know, Nix does.
		if diff := cmp.Diff(map[string]string{"out": "", "dev": ""}, got[2].Outputs) + cmp.Diff(map[string]string{"out": ""}, got[3].Outputs); diff != "" {
			t.Error(diff)
		}
		if inputs := slices.Collect(maps.Keys(got[2].Inputs)); !cmp.Equal(inputs, []string{drvs["base"]}) {
			t.Errorf("ca needs %q", inputs)
		}

		// Where files are out of reach, Nix is asked for all.
		asked, err := keptAt(t, n, "local?real=/nowhere").Derivations(t.Context(), paths)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got[0], asked[0], cmp.Comparer(func(a, b map[string][]string) bool { return len(a) == len(b) })); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[string][]string{drvs["base"]: nil}, asked[1].Inputs); diff != "" {
			t.Error(diff)
		}

		none := func(i string) string { return "/nix/store/" + strings.Repeat(i, 32) + "-none.drv" }
		some, err := n.Derivations(t.Context(), []string{none("1"), drvs["top"], none("2")})
		if err == nil || !strings.Contains(err.Error(), none("1")) || !strings.Contains(err.Error(), "(and 1 more)") {
			t.Errorf("of what is not there: %v", err)
		}
		if diff := cmp.Diff([]Derivation{{}, got[1], {}}, some); diff != "" {
			t.Error(diff)
		}
	})
}

// A store may lie in another directory than its paths say.
func TestDerivationsElsewhere(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs := instantiate(t, n, derive("talks", "echo talks >$out"))
		files := filepath.Join(t.TempDir(), "real", "nix", "store")
		if err := os.CopyFS(files, os.DirFS("/nix/store")); err != nil {
			t.Fatal(err)
		}
		root := filepath.Dir(filepath.Dir(files))
		want, err := os.ReadFile(drvs["talks"])
		if err != nil {
			t.Fatal(err)
		}
		for _, store := range []string{"local?root=" + root, "local://" + root, root, "local?real=" + files, root + "?real=" + files} {
			got, err := os.ReadFile(keptAt(t, n, store).realFile(drvs["talks"]))
			if err != nil || string(got) != string(want) {
				t.Errorf("%s: %v", store, err)
			}
		}
		for _, store := range []string{"", "auto", "daemon", "unix:///run/socket"} {
			if got := keptAt(t, n, store).realFile(drvs["talks"]); got != drvs["talks"] {
				t.Errorf("%s: %s", store, got)
			}
		}
	})
}
