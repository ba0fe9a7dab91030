package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
)

// The flake, evaluated by Nix on a stand-in for nixpkgs: "nix run", the packages, the checks and the shell are
// there for every system, and a release has its version.
func TestFlake(t *testing.T) {
	testbench.PrivateNix(t)
	testbench.UseStore(t, t.TempDir())
	flake := layOutFlake(t)
	offline := nixRunner(t)
	nix := func(nixpkgs string, args ...string) (string, error) {
		return offline(append(args, "--override-input", "nixpkgs", "path:"+nixpkgs, "--no-write-lock-file"))
	}
	stub, err := filepath.Abs("testdata/nixpkgs")
	if err != nil {
		t.Fatal(err)
	}

	t.Run("its lock file has all that it needs", func(t *testing.T) {
		// "nix run" of a flake in a repository of somebody else cannot write what the lock file lacks.
		if out, err := offline([]string{"flake", "metadata", "--no-update-lock-file", flake}); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("every output is of its kind", func(t *testing.T) {
		if out, err := nix(stub, "flake", "check", "--no-build", "--all-systems", flake); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	system := map[string]string{"amd64": "x86_64-linux", "arm64": "aarch64-linux"}[runtime.GOARCH]
	t.Run("a release has its version", func(t *testing.T) {
		out, err := nix(stub, "eval", "--json", flake+"#packages."+system+".default.args", "--apply", "a: { inherit (a) version ldflags subPackages; }")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var got struct {
			Version              string
			LDFlags, SubPackages []string
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got.Version != "1.2.3" || !cmp.Equal(got.LDFlags, []string{"-s", "-w", "-X main.version=v1.2.3"}) || !cmp.Equal(got.SubPackages, []string{"cmd/nix-matrix"}) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("nix run passes on its arguments", func(t *testing.T) {
		if out, err := offline([]string{"run", "--override-input", "nixpkgs", "path:" + stub, "--no-write-lock-file", flake, "--", "run", "."}); err != nil || out != "nix-matrix run .\n" {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("its check runs", func(t *testing.T) {
		if out, err := nix(stub, "build", "--no-link", flake+"#checks."+system+".starts"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("an old nixpkgs", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(stub, "flake.nix"))
		if err != nil {
			t.Fatal(err)
		}
		old := t.TempDir()
		writeFile(t, filepath.Join(old, "flake.nix"), strings.NewReplacer("1.26.8", "1.25.9", "buildGo126Module", "buildGo125Module").Replace(string(text)))
		const want = "nix-matrix needs Go 1.26, and this nixpkgs has 1.25.9: leave out inputs.nixpkgs.follows, or follow a newer nixpkgs"
		if out, err := nix(old, "eval", flake+"#packages."+system+".default.name"); err == nil || !strings.Contains(out, want) {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// layOutFlake makes a copy of the flake, as a release has it, with as much of the repository as evaluation looks at.
func layOutFlake(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"flake.nix", "flake.lock", "go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), string(data))
	}
	for _, name := range append(sources, "dist") {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "dist/VERSION"), "v1.2.3\n")
	return "path:" + dir
}

// nixRunner returns a function that runs nix without a network, and returns what it says; of a success only what
// it prints.
func nixRunner(t *testing.T) func(args []string) (string, error) {
	program := filepath.Join(testbench.NixPath(t, testbench.NixVersions[0]), "nix")
	env := append(os.Environ(), "HOME="+t.TempDir(), "NIX_CONFIG=experimental-features = nix-command flakes\nflake-registry =")
	return func(args []string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program, append([]string{"--offline"}, args...)...)
		cmd.Env = env
		var out, said strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &said
		err := cmd.Run()
		if err != nil {
			return out.String() + said.String(), err
		}
		return out.String(), nil
	}
}
