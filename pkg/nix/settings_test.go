package nix

import (
	"encoding/base64"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/org/nix-matrix/internal/testbench"
)

func TestParseUnpacked(t *testing.T) {
	for _, version := range testbench.NixVersions {
		archive, err := txtar.ParseFile(filepath.Join("testdata", "dry-run-"+version))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int64{"fetched": 0, "unknown": 0, "build": 0} // printed as 0.00 MiB
		if version == "2.34" {
			want = map[string]int64{"fetched": 307, "unknown": 0, "build": 102}
		}
		got := map[string]int64{}
		for _, f := range archive.Files {
			got[f.Name] = parseUnpacked(string(f.Data))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", version, diff)
		}
	}
	for said, want := range map[string]int64{
		"": 0,
		"these 2 paths will be fetched (1.50 MiB download, 3.25 MiB unpacked):\n  /nix/store/x":                                        3407872,
		"these 2 derivations will be built:\n  /nix/store/a.drv\nthese 2 paths will be fetched (9.9 GiB download, 12.5 GiB unpacked):": 13421772800,
		"\x1b[1mthis path will be fetched (1.0 KiB download, 2.5 \x1b[0mKiB unpacked):":                                                2560,
		"this path will be fetched (0.1 TiB download, 1.5 TiB unpacked):":                                                              1649267441664,
		"this path will be fetched (12.00 MiB download, x unpacked):":                                                                  0,
		"this path will be fetched (12.00 MiB download, 1.2.3 MiB unpacked):":                                                          0,
	} {
		if got := parseUnpacked(said); got != want {
			t.Errorf("%q is %d bytes, want %d", said, got, want)
		}
	}
}

// configured returns Nix with further lines of a nix.conf.
func configured(t *testing.T, conf string) *Nix {
	t.Helper()
	n, err := Find(t.Context(), io.Discard, Config{Conf: conf})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFlakeConfig(t *testing.T) {
	eachImplementation(t, func(t *testing.T, n *Nix) {
		type config struct{ Substituters, Keys []string }
		for what, test := range map[string]struct {
			text string
			want config
		}{
			"none":            {`{ outputs = _: { }; }`, config{}},
			"another setting": {`{ nixConfig.max-jobs = 3; outputs = _: { }; }`, config{}},
			"lists": {
				`{
					nixConfig.substituters = [ "file:///a" "file:///b" ];
					nixConfig.trusted-public-keys = [ "a-1:aaaa" "b-1:bbbb" ];
					outputs = _: throw "it looks at the outputs";
				}`,
				config{[]string{"file:///a", "file:///b"}, []string{"a-1:aaaa", "b-1:bbbb"}},
			},
			"texts": {
				`{ nixConfig = { substituters = " file:///a  file:///b"; trusted-public-keys = "a-1:aaaa"; }; outputs = _: { }; }`,
				config{[]string{"file:///a", "file:///b"}, []string{"a-1:aaaa"}},
			},
			"more than there is": {
				`{
					nixConfig = {
						extra-substituters = "file:///b"; substituters = [ "file:///a" ];
						extra-trusted-public-keys = [ "b-1:bbbb" ]; trusted-public-keys = "a-1:aaaa";
						sandbox = false; allowed-uris = [ ];
					};
					outputs = _: { };
				}`,
				config{[]string{"file:///a", "file:///b"}, []string{"a-1:aaaa", "b-1:bbbb"}},
			},
			"no words": {
				`{ nixConfig = { substituters = [ ]; extra-substituters = true; trusted-public-keys = ""; }; outputs = _: { }; }`, config{},
			},
		} {
			if slices.Contains(testbench.NixForks, filepath.Base(t.Name())) && what != "lists" {
				continue // Nix reads all of them in the same way
			}
			dir := filepath.Dir(writeFile(t, "flake.nix", test.text))
			var got config
			var err error
			got.Substituters, got.Keys, err = n.FlakeConfig(t.Context(), "path:"+dir)
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if len(got.Substituters)+len(got.Keys) == 0 {
				got = config{} // whether it is nil or empty
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s:\n%s", what, diff)
			}
		}
		broken := filepath.Dir(writeFile(t, "flake.nix", "{ nixConfig = "))
		if _, _, err := n.FlakeConfig(t.Context(), "path:"+broken); err == nil || !strings.Contains(err.Error(), "syntax error") {
			t.Errorf("a flake with an error: %v", err)
		}

		locked := filepath.Dir(writeFile(t, "flake.nix", `{ inputs.other = { url = "path:`+broken+`"; flake = false; }; outputs = _: { }; }`))
		if _, _, err := n.FlakeConfig(t.Context(), "path:"+locked); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(locked, "flake.lock")); err == nil {
			t.Error("a lock file was written")
		}

		root := filepath.Dir(writeFile(t, "flake.nix", `{ nixConfig.substituters = "file:///root"; outputs = _: { }; }`))
		sub := filepath.Join(root, "a", "b")
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "flake.nix"), []byte(`{ nixConfig.substituters = "file:///sub"; outputs = _: { }; }`), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"init", "--quiet"}, {"add", "."}} {
			if out, err := exec.Command("git", append([]string{"-C", root}, args...)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		for flake, want := range map[string]string{root: "root", sub: "sub", "git+file://" + root + "?dir=a/b": "sub"} {
			substituters, _, err := n.FlakeConfig(t.Context(), flake)
			if err != nil || !slices.Equal(substituters, []string{"file:///" + want}) {
				t.Errorf("%s: %q, %v", flake, substituters, err)
			}
		}
	})
}

func TestAcceptsFlakeConfig(t *testing.T) {
	eachImplementation(t, func(t *testing.T, n *Nix) {
		if n.AcceptsFlakeConfig() || !configured(t, "accept-flake-config = true").AcceptsFlakeConfig() {
			t.Error("the setting does not count")
		}
	})
}

// A flake names only binary caches whose paths need signatures, and that write nothing.
func TestBinaryCache(t *testing.T) {
	for address, good := range map[string]bool{
		"https://cache.example.org": true, "https://trusted.example.org/a?priority=30": true, "s3://bucket?region=eu&endpoint=minio.example.org&scheme=https": true,
		"file:///srv/cache": true, "http://127.0.0.1:8080/?want-mass-query=1": true,
		"https://a?trusted=true": false, "https://a?trusted=yes": false, "https://a?%74rusted=1": false, "https://a?priority=1;trusted=1": false,
		"https://a?local-nar-cache=/etc": false, "s3://a?profile=admin": false, "https://a?secret-key=/a": false, "https://a?priority=%zz": false,
		"ssh://host": false, "ssh-ng://host": false, "daemon": false, "local": false, "local://": false, "unix:///a": false, "/srv/store": false,
		"--plugin-files": false, "https://a b": false, "dummy://": false, "": false,
	} {
		if err := binaryCache(address); (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestPublicKey(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		dir := t.TempDir()
		secretFile, publicFile := filepath.Join(dir, "secret"), filepath.Join(dir, "public")
		if _, err := n.output(t.Context(), "nix-store", raw("--generate-binary-cache-key", "cache.example-1", secretFile, publicFile)); err != nil {
			t.Fatal(err)
		}
		read := func(file string) string {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(string(data))
		}
		secret, public := read(secretFile), read(publicFile)
		if !strings.HasPrefix(public, "cache.example-1:") {
			t.Fatalf("the public key is %q", public)
		}
		for _, key := range []string{secret, secret + "\n", "\n " + secret + " \n\n"} {
			got, err := n.PublicKey(t.Context(), key)
			if err != nil || got != public {
				t.Errorf("got %q, %v, want %q", got, err, public)
			}
		}
		name, text, _ := strings.Cut(secret, ":")
		for _, key := range []string{"", "s3cr3t", text, ":" + text, name + ":", name + ":s3cr3t", name + ":" + text[8:], public, name + ":" + base64.StdEncoding.EncodeToString([]byte("s3cr3t"))} {
			got, err := n.PublicKey(t.Context(), key)
			if err == nil {
				t.Errorf("%q is a key, of %q", key, got)
				continue
			}
			if key != "" && strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), text[8:]) {
				t.Errorf("the key is in the error: %v", err)
			}
			if !strings.Contains(err.Error(), "generate-binary-cache-key") {
				t.Errorf("the error does not say what to do: %v", err)
			}
		}
	})
}

// Overridden settings apply to each of Nix's programs, and the last one wins.
func TestWithOptions(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		ctx := t.Context()
		drv := instantiate(t, n, derive("x", "echo >$out"))["x"]
		none := n.WithOptions(Set("max-jobs", "0"), Set("builders", ""))
		if err := none.Realise(ctx, []string{drv + "!out"}, func(Event) {}); err == nil {
			t.Error("nix-store built with max-jobs = 0")
		}
		if _, err := none.output(ctx, "nix", raw("build", "--no-link", "--file", writeFile(t, "default.nix", derive("x", "echo >$out")), "x")); err == nil {
			t.Error("nix built with max-jobs = 0")
		}
		if err := none.WithOptions(Set("max-jobs", "1")).Realise(ctx, []string{drv + "!out"}, func(Event) {}); err != nil {
			t.Errorf("the last word does not hold: %v", err)
		}
		secret := writeFile(t, "secret", "x")
		open := Evaluation{Expr: "builtins.readFile " + secret, Apply: "v: builtins.trace v null"}
		if _, err := eval(t, n, open); err != nil {
			t.Error(err)
		}
		if _, err := eval(t, n.WithOptions(Set("restrict-eval", "true")), open); err == nil {
			t.Error("nix eval read a file with restrict-eval")
		}
		// A name that begins with "extra-" adds to the setting.
		extra := n.WithOptions(Set("extra-platforms", "riscv64-linux")).WithOptions(Set("extra-extra-platforms", "armv7l-linux"))
		out, err := extra.output(ctx, "nix", raw(show(n)...))
		if err != nil || !strings.Contains(string(out), "armv7l-linux") || !strings.Contains(string(out), "riscv64-linux") {
			t.Errorf("%s, %v", out, err)
		}
		if got := extra.Setting("extra-platforms"); slices.Contains(got, "riscv64-linux") {
			t.Errorf("the settings are as they were without With, but %q", got)
		}
		// The original is unchanged.
		if out, err := n.output(ctx, "nix", raw(show(n)...)); err != nil || strings.Contains(string(out), "riscv64-linux") {
			t.Errorf("%s, %v", out, err)
		}
	})
}

// show returns the arguments with which nix shows its settings.
func show(n *Nix) []string {
	if n.HasConfigShow() {
		return []string{"config", "show"}
	}
	return []string{"show-config"}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// Another store has other paths, with the same metadata.
func TestWithStore(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		ctx := t.Context()
		drvs, outs := recorded(t, n)
		realise(t, n, drvs["second"])
		dir := t.TempDir()
		at := n.WithOptions(Set("max-jobs", "0")).WithStore(dir)
		valid := func(n *Nix) map[string]bool {
			t.Helper()
			valid, err := n.Valid(ctx, outs["second"], outs["fetched"])
			if err != nil {
				t.Fatal(err)
			}
			return valid
		}
		both := map[string]bool{outs["second"]: true, outs["fetched"]: true}
		if diff := cmp.Diff(map[string]bool{}, valid(at)); diff != "" {
			t.Errorf("before:\n%s", diff)
		}
		if _, err := n.WithOptions(Set("require-sigs", "false")).Copy(ctx, dir, []string{outs["second"]}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(both, valid(at)); diff != "" {
			t.Errorf("after:\n%s", diff)
		}
		if err := n.CopyDerivations(ctx, dir, []string{drvs["talks"]}); err != nil {
			t.Fatal(err)
		}
		testbench.UseStore(t, t.TempDir()) // which is empty
		if diff := cmp.Diff(map[string]bool{}, valid(n)); diff != "" {
			t.Errorf("here:\n%s", diff)
		}
		if diff := cmp.Diff(both, valid(at)); diff != "" {
			t.Errorf("there:\n%s", diff)
		}

		infos, err := at.FullInfo(ctx, outs["second"])
		if err != nil || len(infos) != 1 || infos[0].NarSize != 168 || !slices.Equal(infos[0].References, []string{outs["fetched"]}) {
			t.Errorf("its info is %+v, %v", infos, err)
		}
		var nar strings.Builder
		if err := at.dump(ctx, &nar, outs["second"]); err != nil || nar.Len() != 168 || !strings.Contains(nar.String(), outs["fetched"]) {
			t.Errorf("its NAR has %d bytes, %v", nar.Len(), err)
		}
		roots, err := at.AddTempRoots(ctx, outs["second"])
		if err != nil {
			t.Fatal(err)
		}
		if err := roots.Close(); err != nil {
			t.Error(err)
		}
		// The settings apply there too.
		if err := at.Realise(ctx, []string{drvs["talks"] + "!out"}, func(Event) {}); err == nil {
			t.Error("it built there with max-jobs = 0")
		}
	})
}
