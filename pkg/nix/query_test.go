package nix

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestQueries(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs, outs := recorded(t, n)
		realise(t, n, drvs["second"])
		ctx := t.Context()

		drv, err := n.Derivation(drvs["talks"])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string][]string{drvs["fetched"]: {"out"}}, drv.InputDerivations); diff != "" {
			t.Error(diff)
		}
		for _, path := range []string{outs["second"], outs["fails"]} {
			if _, err := n.Derivation(path); err == nil {
				t.Errorf("%s is a derivation", path)
			}
		}

		got, err := n.Requisites(ctx, drvs["needsIt"], outs["second"], drvs["fails"])
		if err != nil {
			t.Fatal(err)
		}
		before := map[string]bool{}
		for _, path := range got {
			if path == outs["second"] && !before[outs["fetched"]] || path == drvs["needsIt"] && !before[drvs["fails"]] || before[path] {
				t.Errorf("not references first: %q", got)
			}
			before[path] = true
		}
		if want := []string{drvs["needsIt"], drvs["fails"], outs["second"], outs["fetched"]}; len(got) != len(want) {
			t.Errorf("the closure is %q, want %q", got, want)
		}
		if _, err := n.Requisites(ctx, outs["fails"]); err == nil {
			t.Error("an invalid path has a closure")
		}

		infos, err := n.FullInfo(ctx, outs["second"], outs["fetched"], outs["second"])
		if err != nil {
			t.Fatal(err)
		}
		second := PathInfo{Path: outs["second"], NarSize: 168, Deriver: drvs["second"], References: []string{outs["fetched"]}, Ultimate: true}
		fetched := PathInfo{Path: outs["fetched"], NarSize: 120, Deriver: drvs["fetched"], Ultimate: true}
		noHash := cmpopts.IgnoreFields(PathInfo{}, "NarHash")
		if diff := cmp.Diff([]PathInfo{second, fetched, second}, infos, noHash); diff != "" {
			t.Error(diff)
		}
		if len(infos[0].NarHash) != 64 || infos[0].NarHash == infos[1].NarHash {
			t.Errorf("the hashes are %s and %s", infos[0].NarHash, infos[1].NarHash)
		}
		closure, err := n.Closure(ctx, outs["second"])
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]PathInfo{}
		for _, info := range infos {
			info.Ultimate = false
			want[info.Path] = info
		}
		if diff := cmp.Diff(want, closure, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("the closure is another one:\n%s", diff)
		}
		if _, err := n.FullInfo(ctx, outs["second"], outs["fails"]); err == nil {
			t.Error("an invalid path has metadata")
		}

		valid, err := n.Valid(ctx, outs["second"], outs["fails"], drvs["fails"])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]bool{outs["second"]: true, drvs["fails"]: true}, valid); diff != "" {
			t.Error(diff)
		}

		// A query without paths has no answer, rather than that for a whole store or flake.
		requisites, err := n.Requisites(ctx)
		infos, infoErr := n.FullInfo(ctx)
		valid, validErr := n.Valid(ctx)
		offered, offeredErr := n.substitutable(ctx, nil, substituter)
		_, copyErr := n.Copy(ctx, substituter, nil)
		if err := errors.Join(err, infoErr, validErr, offeredErr, copyErr); err != nil || len(requisites)+len(infos)+len(valid)+len(offered) > 0 {
			t.Errorf("of nothing: %v, %v, %v, %v, %v", requisites, infos, valid, offered, err)
		}
	})
}

// Temporary roots survive a garbage collection until they are closed. They may be paths that
// are not valid yet.
func TestAddTempRoots(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs, outs := recorded(t, n)
		collect := func() map[string]bool {
			t.Helper()
			if _, err := n.output(t.Context(), "nix-store", raw("--gc")); err != nil {
				t.Fatal(err)
			}
			valid, err := n.Valid(t.Context(), drvs["needsIt"], drvs["fails"], drvs["talks"], outs["second"])
			if err != nil {
				t.Fatal(err)
			}
			return valid
		}
		roots, err := n.AddTempRoots(t.Context(), drvs["needsIt"], drvs["second"], outs["second"])
		if err != nil {
			t.Fatal(err)
		}
		realise(t, n, drvs["second"])
		if diff := cmp.Diff(map[string]bool{drvs["needsIt"]: true, drvs["fails"]: true, outs["second"]: true}, collect()); diff != "" {
			t.Errorf("rooted:\n%s", diff)
		}
		if err := roots.Close(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(map[string]bool{}, collect()); diff != "" {
			t.Errorf("let go:\n%s", diff)
		}
	})
}

func TestAddTempRootsError(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		if _, err := n.AddTempRoots(t.Context(), "/etc/passwd"); err == nil || !strings.Contains(err.Error(), "/etc/passwd") {
			t.Errorf("added a root that is no store path: %v", err)
		}
	})
}

func TestConnectError(t *testing.T) {
	for script, want := range map[string]string{
		"echo 'error: no permission' >&2; exit 1":                "no permission",
		"printf '%64s' 'something else'; cat >/dev/null":         "it begins with",
		`printf 'oixd\0\0\0\0\37\1\0\0\0\0\0\0'; cat >/dev/null`: "version 1.31 is too old",
		`printf 'oixd\0\0\0\0\0\2\0\0\0\0\0\0'; cat >/dev/null`:  "version 2.0 is too new",
	} {
		program(t, "nix-daemon", script)
		if _, err := new(Nix).AddTempRoots(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want it to say %q", script, err, want)
		}
	}
}

func TestCachix(t *testing.T) {
	dir := t.TempDir()
	program(t, "cachix", `echo "$@" >`+dir+`/arguments; cat >`+dir+`/paths; echo $TOKEN >`+dir+`/token; echo "pushing" >&2`)
	n := &Nix{env: []string{"TOKEN=secret"}}
	if err := n.Cachix(t.Context(), "my-fleet", []string{aPath, aDrv}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"arguments": "push my-fleet\n", "paths": aPath + "\n" + aDrv + "\n", "token": "secret\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	program(t, "cachix", "echo 'no such cache' >&2; exit 1")
	if err := n.Cachix(t.Context(), "my-fleet", nil); err == nil || err.Error() != "cannot push to cachix:my-fleet: cachix: no such cache" {
		t.Errorf("got %v", err)
	}
}

func TestParsePathInfo(t *testing.T) {
	want := map[string]PathInfo{"/a": {
		Path: "/a", NarHash: strings.Repeat("00", 32), NarSize: 7, Deriver: "/a.drv", References: []string{"/b"}, Signatures: []string{"k:s"}, CA: "text:sha256:y",
	}}
	const fields = `"narHash":"sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","narSize":7,"deriver":"/a.drv","references":["/b"],"signatures":["k:s"],"ca":"text:sha256:y"`
	for _, out := range []string{`[{"path":"/a",` + fields + `}]`, `{"/a":{` + fields + `,"version":1},"/gone":null}`} {
		got, err := parsePathInfo([]byte(out))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", out, err, diff)
		}
	}
	for _, out := range []string{"nonsense", `{"/a":{"narHash":"sha256-x"}}`} {
		if got, err := parsePathInfo([]byte(out)); err == nil {
			t.Errorf("%s is %v", out, got)
		}
	}
}
