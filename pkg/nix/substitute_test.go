package nix

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestSubstitutable(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs, outs := recorded(t, n)
		offer(t, n, drvs, outs)
		local := instantiate(t, n, derive("local", "echo >$out"))["local"]
		realise(t, n, local)
		realise(t, n, drvs["fetched"]) // the substituter has it too
		drv, err := n.Derivation(local)
		if err != nil {
			t.Fatal(err)
		}
		paths := []string{outs["second"], outs["fetched"], outs["fails"], drv.Outputs["out"].Path, drvs["fails"]}
		want := map[string]bool{outs["second"]: true, outs["fetched"]: true}
		for address, want := range map[string]map[string]bool{substituter: want, "file:///nix/none": {}} {
			got, err := n.substitutable(t.Context(), paths, address)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("by %q:\n%s", address, diff)
			}
		}
		left, err := filepath.Glob(filepath.Join(os.TempDir(), "nix-matrix-empty-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %q, %v", left, err)
		}
	})
}

// The signing key counts, and only where signatures are required.
func TestTrustedPaths(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs, outs := recorded(t, n)
		realise(t, n, drvs["second"])
		realise(t, n, drvs["fetched"])
		dir := t.TempDir()
		if _, err := n.output(t.Context(), "nix-store", raw("--generate-binary-cache-key", "test-1", dir+"/secret", dir+"/public")); err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(dir + "/public")
		if err != nil {
			t.Fatal(err)
		}
		cache := "file://" + dir + "/cache"
		_, first := n.Copy(t.Context(), cache, []string{outs["fetched"]}) // the other has it in its closure
		_, second := n.Copy(t.Context(), cache+"?secret-key="+dir+"/secret", []string{outs["second"]})
		if err := errors.Join(first, second); err != nil {
			t.Fatal(err)
		}
		both := map[string]bool{outs["second"]: true, outs["fetched"]: true}
		for _, test := range []struct {
			n     *Nix
			cache string
			want  map[string]bool
		}{
			{n.WithOptions(Set("trusted-public-keys", string(key))), cache, map[string]bool{outs["second"]: true}},
			{n.WithOptions(Set("trusted-public-keys", "other-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")), cache, map[string]bool{}},
			{n, cache + "?trusted=1", both},
		} {
			got, err := test.n.TrustedPaths(t.Context(), []string{outs["second"], outs["fetched"]}, test.cache)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		}
		if got, err := n.TrustedPaths(t.Context(), []string{outs["talks"]}, cache); err == nil {
			t.Errorf("a missing path is %v", got)
		}
	})
}

// A path is trusted if it was checked and found good, even if others are wrong.
func TestTrustedPathsOfTrouble(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		ctx, dir := t.Context(), t.TempDir()
		names := []string{"good", "better", "unsigned", "missing", "damaged", "swapped", "cut"}
		paths, all := map[string]string{}, make([]string, len(names))
		for i, name := range names {
			drv := instantiate(t, n, derive(name, "echo >$out"))[name]
			realise(t, n, drv)
			d, err := n.Derivation(drv)
			if err != nil {
				t.Fatal(err)
			}
			all[i] = d.Outputs["out"].Path
			paths[name] = all[i]
		}
		if _, err := n.output(ctx, "nix-store", raw("--generate-binary-cache-key", "test-1", dir+"/secret", dir+"/public")); err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(dir + "/public")
		if err != nil {
			t.Fatal(err)
		}
		cache := "file://" + dir + "/cache"
		if _, err := n.Copy(ctx, cache, []string{paths["unsigned"]}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"good", "better", "damaged", "swapped", "cut"} {
			if _, err := n.Copy(ctx, cache+"?secret-key="+dir+"/secret", []string{paths[name]}); err != nil {
				t.Fatal(err)
			}
		}
		info := func(name string) string { return dir + "/cache/" + filepath.Base(paths[name])[:32] + ".narinfo" }
		good, err := os.ReadFile(info("good"))
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string][]byte{"damaged": []byte("garbage"), "swapped": good, "cut": good[:len(good)/3]} {
			if err := os.WriteFile(info(name), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		n = n.WithOptions(Set("trusted-public-keys", string(key)))
		for _, test := range []struct{ asked, want []string }{
			{[]string{"good", "better"}, []string{"good", "better"}},
			{[]string{"good", "unsigned", "better"}, []string{"good", "better"}},
			{[]string{"good", "missing"}, []string{"good"}},
			{[]string{"unsigned", "missing", "good"}, []string{"good"}},
			{[]string{"damaged", "good"}, []string{"good"}},
			{[]string{"unsigned", "damaged", "good"}, []string{"good"}},
			{[]string{"cut", "good", "unsigned"}, []string{"good"}},
			{[]string{"swapped", "unsigned"}, nil},
			{[]string{"unsigned", "missing"}, nil},
			{names, []string{"good", "better"}},
		} {
			asked, want := make([]string, len(test.asked)), map[string]bool{}
			for i, name := range test.asked {
				asked[i] = paths[name]
			}
			for _, name := range test.want {
				want[paths[name]] = true
			}
			got, err := n.TrustedPaths(ctx, asked, cache)
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil && len(test.want) > 0 {
				t.Errorf("%v: %v\n%s", test.asked, err, diff)
			}
		}
		if got, err := n.TrustedPaths(ctx, all, "file://"+dir+"/none"); len(got) > 0 {
			t.Errorf("a missing binary cache has %v, %v", got, err)
		}
	})
}

// Only the query of an address makes a store trusted.
func TestTrustedStores(t *testing.T) {
	for address, want := range map[string]bool{
		"https://cache.example?trusted=1":               true,
		"https://cache.example?priority=3&trusted=true": true,
		"https://cache.example/trusted=1":               false,
		"https://cache.example?untrusted=1":             false,
		"https://cache.example?x=trusted=1":             false,
		"https://cache.example?trusted=0":               false,
		"https://cache.example?trusted=10":              false,
		"https://cache.example":                         false,
	} {
		if got := trustedStore(address); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
}

func TestSubstituteAll(t *testing.T) {
	asked := filepath.Join(t.TempDir(), "asked")
	program(t, "nix-store", `for path; do echo "$path" >>`+asked+`; done; exit 1`)
	paths := make([]string, 5000)
	for i := range paths {
		paths[i] = fmt.Sprintf("/nix/store/%032d-path", i)
	}
	if err := new(Nix).Substitute(t.Context(), nil, paths...); err == nil {
		t.Error("nothing was fetched, and there is no error")
	}
	data, err := os.ReadFile(asked)
	if err != nil || !strings.Contains(string(data), paths[len(paths)-1]) {
		t.Errorf("a failed fetch kept others from being tried (%v)", err)
	}
}
