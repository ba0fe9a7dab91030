package nix

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/org/nix-matrix/internal/testbench"
)

func TestRealise(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs, outs := recorded(t, n)
		offer(t, n, drvs, outs)
		var events []Event
		err := n.With(substitute...).Realise(t.Context(), wanted(drvs), func(e Event) { events = append(events, e) })
		checkRecorded(t, events)
		var failed *Error
		if !errors.As(err, &failed) || !slices.ContainsFunc(events, func(e Event) bool { return e.Kind == ErrorMessage && e.Text == failed.Message }) {
			t.Errorf("the error is %v", err)
		}
		valid, err := n.Valid(t.Context(), slices.Collect(maps.Values(outs))...)
		if err != nil {
			t.Fatal(err)
		}
		// One that fails does not stop the others.
		if diff := cmp.Diff(map[string]bool{outs["fetched"]: true, outs["talks"]: true}, valid); diff != "" {
			t.Error(diff)
		}
	})
}

// derive is an expression with a derivation of that name.
func derive(name, script string) string {
	return fmt.Sprintf(`{ %[1]s = derivation { name = "%[1]s"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "%[2]s" ]; }; }`, name, script)
}

// A builder that is stopped is not killed: Nix says so and releases its locks.
func TestRealiseStops(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs := instantiate(t, n, derive("endless", "while echo still here; do :; done"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stopped := false
		err := n.Realise(ctx, []string{drvs["endless"]}, func(e Event) {
			switch e.Kind {
			case BuildLine:
				cancel()
			case BuildStopped:
				stopped = true
			}
		})
		if err == nil || !strings.Contains(err.Error(), "interrupted") || !stopped {
			t.Errorf("got %v, the builder was stopped: %t", err, stopped)
		}
	})
}

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
			t.Error("what is not valid has a closure")
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
		if _, err := n.FullInfo(ctx, outs["second"], outs["fails"]); err == nil {
			t.Error("there is something to tell of what is not valid")
		}

		valid, err := n.Valid(ctx, outs["second"], outs["fails"], drvs["fails"])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]bool{outs["second"]: true, drvs["fails"]: true}, valid); diff != "" {
			t.Error(diff)
		}

		// Nothing asked, nothing told: of a whole store or flake in its place, say.
		requisites, err := n.Requisites(ctx)
		infos, infoErr := n.FullInfo(ctx)
		valid, validErr := n.Valid(ctx)
		offered, offeredErr := n.Offered(ctx, nil, substituter)
		_, copyErr := n.Copy(ctx, substituter, nil)
		if err := errors.Join(err, infoErr, validErr, offeredErr, copyErr); err != nil || len(requisites)+len(infos)+len(valid)+len(offered) > 0 {
			t.Errorf("of nothing: %v, %v, %v, %v, %v", requisites, infos, valid, offered, err)
		}
	})
}

func TestOffered(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs, outs := recorded(t, n)
		offer(t, n, drvs, outs)
		local := instantiate(t, n, derive("local", "echo >$out"))["local"]
		realise(t, n, local)
		realise(t, n, drvs["fetched"]) // which is offered nevertheless
		drv, err := n.Derivation(local)
		if err != nil {
			t.Fatal(err)
		}
		paths := []string{outs["second"], outs["fetched"], outs["fails"], drv.Outputs["out"].Path, drvs["fails"]}
		want := map[string]bool{outs["second"]: true, outs["fetched"]: true}
		for address, want := range map[string]map[string]bool{substituter: want, "file:///nix/none": {}} {
			got, err := n.Offered(t.Context(), paths, address)
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

// Who signed counts, and only where signatures are needed.
func TestTrusted(t *testing.T) {
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
		_, first := n.Copy(t.Context(), cache, []string{outs["fetched"]}) // which the other has in its closure
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
			{n.With(Set("trusted-public-keys", string(key))), cache, map[string]bool{outs["second"]: true}},
			{n.With(Set("trusted-public-keys", "other-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")), cache, map[string]bool{}},
			{n, cache + "?trusted=1", both},
		} {
			got, err := test.n.Trusted(t.Context(), []string{outs["second"], outs["fetched"]}, test.cache)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		}
		if got, err := n.Trusted(t.Context(), []string{outs["talks"]}, cache); err == nil {
			t.Errorf("what is not there is %v", got)
		}
	})
}

// A path is trusted if it was checked and found good, whatever is wrong with others.
func TestTrustedOfTrouble(t *testing.T) {
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
		n = n.With(Set("trusted-public-keys", string(key)))
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
			got, err := n.Trusted(ctx, asked, cache)
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil && len(test.want) > 0 {
				t.Errorf("%v: %v\n%s", test.asked, err, diff)
			}
		}
		if got, err := n.Trusted(ctx, all, "file://"+dir+"/none"); len(got) > 0 {
			t.Errorf("a binary cache that is none has %v, %v", got, err)
		}
	})
}

// That a store is trusted says its query, and nothing that looks like it.
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

func TestOfferedError(t *testing.T) {
	program(t, "nix-store", `echo "error: can't reach https://user:s3cr3t@host/nix-cache-info" >&2; exit 1`)
	_, err := new(Nix).Offered(t.Context(), []string{aPath}, "https://user:s3cr3t@host?a=b")
	if err == nil || strings.Contains(err.Error(), "s3cr3t") || !strings.Contains(err.Error(), "can't reach https://user:xxxxx@host") {
		t.Errorf("got %v", err)
	}
}

// Importing what was exported gives another store the same paths.
func TestExportImport(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		ctx := t.Context()
		drvs, outs := recorded(t, n)
		realise(t, n, drvs["second"])
		paths, err := n.Requisites(ctx, drvs["needsBoth"], outs["second"])
		if err != nil {
			t.Fatal(err)
		}
		infos, err := n.FullInfo(ctx, paths...)
		if err != nil {
			t.Fatal(err)
		}
		stream := export(t, n, paths)

		testbench.UseStore(t, t.TempDir())
		importStream(t, n, stream)
		again, err := n.FullInfo(ctx, paths...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(infos, again, cmpopts.IgnoreFields(PathInfo{}, "CA", "Signatures", "Ultimate")); diff != "" {
			t.Error(diff)
		}
		if !bytes.Equal(stream, export(t, n, paths)) {
			t.Error("the other store exports another stream")
		}
		if err := n.Export(ctx, io.Discard, []PathInfo{{Path: outs["talks"]}}); err == nil {
			t.Error("what is not valid was exported")
		}
	})
}

func export(t *testing.T, n *Nix, paths []string) []byte {
	t.Helper()
	infos, err := n.FullInfo(t.Context(), paths...)
	if err != nil {
		t.Fatal(err)
	}
	var ours, theirs bytes.Buffer
	if err := errors.Join(n.Export(t.Context(), &ours, infos), n.export(t.Context(), &theirs, infos)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours.Bytes(), theirs.Bytes()) {
		t.Errorf("we export %d bytes, nix-store --export others, %d", ours.Len(), theirs.Len())
	}
	return ours.Bytes()
}

// importStream is for stock Nix to read what Export writes.
func importStream(t *testing.T, n *Nix, stream []byte) {
	t.Helper()
	cmd := n.command(t.Context(), "nix-store", raw("--import"))
	cmd.Stdin = bytes.NewReader(stream)
	if err := n.run(cmd); err != nil {
		t.Fatal(err)
	}
}

// More paths than fit on one command line make one stream still.
func TestExportImportMany(t *testing.T) {
	var stream []byte
	var paths []string
	for i := range 2100 {
		path := fmt.Sprintf("/nix/store/%032d-x", i)
		paths = append(paths, path)
		stream = append(stream, exported(path, fmt.Sprint(i))...)
	}
	stream = binary.LittleEndian.AppendUint64(stream, 0)
	eachNix(t, func(t *testing.T, n *Nix) {
		importStream(t, n, stream)
		if !bytes.Equal(stream, export(t, n, paths)) {
			t.Error("what is exported is not what was imported")
		}
		valid, err := n.Valid(t.Context(), slices.Concat(paths, []string{"/nix/store/" + strings.Repeat("1", 32) + "-x"})...)
		if err != nil {
			t.Fatal(err)
		}
		infos, err := n.FullInfo(t.Context(), paths...)
		if err != nil {
			t.Fatal(err)
		}
		closure, err := n.Requisites(t.Context(), append(slices.Clip(paths), paths[0])...)
		if err != nil {
			t.Fatal(err)
		}
		if len(valid) != len(paths) || len(infos) != len(paths) || len(closure) != len(paths) || infos[2099].Path != paths[2099] {
			t.Errorf("%d are valid, %d infos, a closure of %d", len(valid), len(infos), len(closure))
		}
	})
}

// exported is the record of a file in an export stream.
func exported(path, content string) []byte {
	var b []byte
	number := func(n uint64) { b = binary.LittleEndian.AppendUint64(b, n) }
	text := func(all ...string) {
		for _, s := range all {
			number(uint64(len(s)))
			b = append(b, s...)
			b = append(b, make([]byte, -len(s)&7)...)
		}
	}
	number(1)
	text("nix-archive-1", "(", "type", "regular", "contents", content, ")")
	number(0x4558494e)
	text(path)
	number(0) // references
	text("")  // deriver
	number(0) // signature
	return b
}

// What is held survives a garbage collection, until it is let go. What is not
// there yet can be held too.
func TestHold(t *testing.T) {
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
		hold, err := n.Hold(t.Context(), drvs["needsIt"], drvs["second"], outs["second"])
		if err != nil {
			t.Fatal(err)
		}
		realise(t, n, drvs["second"])
		if diff := cmp.Diff(map[string]bool{drvs["needsIt"]: true, drvs["fails"]: true, outs["second"]: true}, collect()); diff != "" {
			t.Errorf("held:\n%s", diff)
		}
		if err := hold.Close(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(map[string]bool{}, collect()); diff != "" {
			t.Errorf("let go:\n%s", diff)
		}
	})
}

func TestHoldError(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		if _, err := n.Hold(t.Context(), "/etc/passwd"); err == nil || !strings.Contains(err.Error(), "/etc/passwd") {
			t.Errorf("held what is no store path: %v", err)
		}
	})
}

func TestSubstituteAll(t *testing.T) {
	asked := filepath.Join(t.TempDir(), "asked")
	program(t, "nix-store", `for path; do echo "$path" >>`+asked+`; done; exit 1`)
	paths := make([]string, 5000)
	for i := range paths {
		paths[i] = fmt.Sprintf("/nix/store/%032d-path", i)
	}
	if err := new(Nix).Substitute(t.Context(), paths...); err == nil {
		t.Error("nothing was fetched, and there is no error")
	}
	data, err := os.ReadFile(asked)
	if err != nil || !strings.Contains(string(data), paths[len(paths)-1]) {
		t.Errorf("what could not be fetched kept others from being asked for (%v)", err)
	}
}

func TestConnectError(t *testing.T) {
	for script, want := range map[string]string{
		"echo 'error: no permission' >&2; exit 1":                "no permission",
		"printf '%64s' 'something else'; cat >/dev/null":         "for hello",
		`printf 'oixd\0\0\0\0\37\1\0\0\0\0\0\0'; cat >/dev/null`: "version 1.31 is too old",
		`printf 'oixd\0\0\0\0\0\2\0\0\0\0\0\0'; cat >/dev/null`:  "version 2.0 is too new",
	} {
		program(t, "nix-daemon", script)
		if _, err := new(Nix).Hold(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want it to say %q", script, err, want)
		}
	}
}

func TestCopy(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs, outs := recorded(t, n)
		realise(t, n, drvs["second"])
		dir := t.TempDir()
		for _, want := range []Traffic{{2, 288}, {}} { // the second time, nothing is missing
			if sent, err := n.Copy(t.Context(), "file://"+dir, []string{outs["second"]}); err != nil || sent != want {
				t.Errorf("sent %+v, want %+v: %v", sent, want, err)
			}
		}
		store := t.TempDir() // which says nothing of sizes
		if sent, err := n.With(Set("require-sigs", "false")).Copy(t.Context(), "local?root="+store, []string{outs["second"]}); sent != (Traffic{Paths: 2}) {
			t.Errorf("sent %+v to another store: %v", sent, err)
		}
		for _, path := range []string{outs["second"], outs["fetched"]} {
			name, _, _ := strings.Cut(filepath.Base(path), "-")
			if _, err := os.Stat(filepath.Join(dir, name+".narinfo")); err != nil {
				t.Error(err)
			}
		}
		_, err := n.Copy(t.Context(), "http://user:s3%20cr3t@127.0.0.1:1?compression=none", []string{outs["second"]})
		if err == nil || strings.Contains(err.Error(), "cr3t") || !strings.Contains(err.Error(), "copy to http://user:xxxxx@127.0.0.1:1") {
			t.Errorf("got %v", err)
		}
	})
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
	if err := n.Cachix(t.Context(), "my-fleet", nil); err == nil || err.Error() != "push to cachix:my-fleet: cachix: no such cache" {
		t.Errorf("got %v", err)
	}
}

func TestEval(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		dir := t.TempDir()
		flake := `{ outputs = _: { a.b = "x\ny"; packages = throw "tried a prefix"; }; }`
		if !n.EvaluatesWholeFlakes() {
			flake = `{ outputs = _: { a.b = "x\ny"; }; }`
		}
		if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(flake), 0o600); err != nil {
			t.Fatal(err)
		}
		const apply = "v: builtins.trace (builtins.toJSON v) null"
		for what, test := range map[string]struct {
			eval Evaluation
			want string
		}{
			"an expression":       {Evaluation{Expr: "{ a = 1; } # comment", Apply: apply}, `trace: {"a":1}`},
			"an impure one":       {Evaluation{Expr: `builtins.getEnv "HOME" != ""`, Apply: apply}, "trace: true"},
			"a flake's attribute": {Evaluation{Flake: dir, Attr: "a.b", Apply: apply}, `trace: "x\ny"`},
		} {
			lines, err := eval(t, n, test.eval)
			if err != nil || !slices.Contains(lines, test.want) {
				t.Errorf("%s: %q, %v", what, lines, err)
			}
		}
		if n.EvaluatesWholeFlakes() {
			lines, err := eval(t, n, Evaluation{Flake: dir, Apply: "v: builtins.trace (builtins.attrNames v.a) null"})
			if err != nil || !slices.Contains(lines, `trace: [ "b" ]`) {
				t.Errorf("a whole flake: %q, %v", lines, err)
			}
		}
		lines, err := eval(t, n, Evaluation{Expr: `builtins.trace "before" (throw "boom")`, Apply: apply})
		if err == nil || !strings.Contains(err.Error(), "boom") || !slices.Contains(lines, "trace: before") {
			t.Errorf("what fails: %q, %v", lines, err)
		}
	})
}

func eval(t *testing.T, n *Nix, e Evaluation) (lines []string, err error) {
	t.Helper()
	err = n.Eval(t.Context(), e, func(line string) bool { lines = append(lines, line); return false })
	return lines, err
}

func TestLineWriter(t *testing.T) {
	const text = "a\n\nbc\r\n::d\n"
	for size := 1; size <= len(text); size++ {
		var got []string
		w := &lineWriter{line: func(line string) { got = append(got, line) }}
		for piece := range slices.Chunk([]byte(text+"unfinished"), size) {
			if n, err := w.Write(piece); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		if diff := cmp.Diff([]string{"a", "", "bc\r", "::d"}, got); diff != "" {
			t.Errorf("in pieces of %d:\n%s", size, diff)
		}
	}
}

// Of a long line, the beginning is kept, and the end, where it may be somebody else's.
func TestLineWriterLongLines(t *testing.T) {
	for _, size := range []int{0, headOfLine, maxLine, headOfLine + maxLine, headOfLine + maxLine + 1, 3 * maxLine, 10<<20 + 7} {
		text := "begin" + strings.Repeat("x", size) + "end"
		for _, piece := range []int{1 << 10, 64 << 10, len(text)} {
			var got []string
			most := 0
			w := &lineWriter{line: func(line string) { got = append(got, line) }}
			for piece := range slices.Chunk([]byte(text+"\nafter\n"), piece) {
				_, _ = w.Write(piece)
				most = max(most, len(w.partly))
			}
			switch {
			case len(got) != 2 || got[1] != "after":
				t.Fatalf("%d bytes in pieces of %d: %d lines", len(text), piece, len(got))
			case len(text) <= maxLine && got[0] != text:
				t.Errorf("%d bytes in pieces of %d are %d", len(text), piece, len(got[0]))
			case len(got[0]) < min(len(text), maxLine), len(got[0]) > headOfLine+maxLine:
				t.Errorf("%d bytes in pieces of %d are %d", len(text), piece, len(got[0]))
			case len(got[0]) < len(text) != strings.Contains(got[0], "\x00"):
				t.Errorf("%d bytes in pieces of %d: it does not show that it lacks something", len(text), piece)
			case !strings.HasPrefix(got[0], text[:min(headOfLine, len(text))]) || !strings.HasSuffix(got[0], text[max(0, len(text)-maxLine+1):]):
				t.Errorf("%d bytes in pieces of %d: an end is not kept", len(text), piece)
			}
			if most > headOfLine+2*maxLine {
				t.Errorf("%d bytes in pieces of %d: %d are held", len(text), piece, most)
			}
		}
	}
}

func TestParsePathInfo(t *testing.T) {
	want := map[string]PathInfo{"/a": {
		Path: "/a", NarHash: "sha256-x", NarSize: 7, Deriver: "/a.drv", References: []string{"/b"}, Signatures: []string{"k:s"}, CA: "text:sha256:y",
	}}
	const fields = `"narHash":"sha256-x","narSize":7,"deriver":"/a.drv","references":["/b"],"signatures":["k:s"],"ca":"text:sha256:y"`
	for _, out := range []string{`[{"path":"/a",` + fields + `}]`, `{"/a":{` + fields + `,"version":1},"/gone":null}`} {
		got, err := parsePathInfo([]byte(out))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", out, err, diff)
		}
	}
	if got, err := parsePathInfo([]byte("nonsense")); err == nil {
		t.Errorf("nonsense is %v", got)
	}
}
