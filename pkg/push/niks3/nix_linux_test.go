package niks3_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push/niks3/niks3test"
)

func TestMain(m *testing.M) { testbench.PrivateProcess(m) }

// closure is a path with references, one of which has a reference to itself.
const closure = `
	let
		sh = name: refs: script: derivation {
			inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "@PATH@";
			args = [ "-ec" "echo ${toString refs} >&2; ${script}" ];
		};
		text = builtins.toFile "text" "some text";
		tree = sh "tree" [ ] ''
			mkdir -p $out/bin $out/empty
			echo $out > $out/self
			echo '#!/bin/sh' > $out/bin/run
			chmod +x $out/bin/run
			ln -s bin/run $out/link
		'';
	in sh "top" [ text ] "echo ${tree} ${text} > $out"
`

// TestNix pushes from one real store and has others substitute what was pushed, with the signatures checked.
func TestNix(t *testing.T) {
	home := t.TempDir()
	run := func(t *testing.T, version string, args ...string) (string, error) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(testbench.NixPath(t, version), args[0]), args[1:]...)
		cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CACHE_HOME="+t.TempDir(), "NIX_REMOTE=")
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	first := testbench.NixVersions[0]
	testbench.UseStore(t, t.TempDir())
	out, err := run(t, first, "nix-build", "--no-out-link", "--expr", strings.ReplaceAll(closure, "@PATH@", os.Getenv("PATH")))
	if err != nil {
		t.Fatal(out)
	}
	top := out[strings.LastIndex(out, "\n")+1:]
	t.Setenv("PATH", testbench.NixPath(t, first)+string(os.PathListSeparator)+os.Getenv("PATH"))
	n, err := nix.Find(t.Context(), t.Output(), nix.Config{})
	if err != nil {
		t.Fatal(err)
	}
	infos, err := n.Closure(t.Context(), top)
	if err != nil || len(infos) != 3 {
		t.Fatalf("%d paths: %v", len(infos), err)
	}
	server, options := start(t, niks3test.Options{})
	c := dial(t, options)
	stats, err := c.Push(t.Context(), infos, []string{top}, n.NAR)
	if err != nil || stats.Paths != 3 {
		t.Fatalf("%+v, %v", stats, err)
	}
	for _, version := range testbench.NixVersions {
		t.Run(version, func(t *testing.T) {
			testbench.UseStore(t, t.TempDir())
			if out, err := run(t, version, "nix-store", "--realise", top, "--option", "substituters", c.Substituter(), "--option", "trusted-public-keys", server.PublicKey()); err != nil {
				t.Fatal(out)
			}
			if out, err := run(t, version, "nix-store", "--verify", "--check-contents"); err != nil {
				t.Error(out)
			}
		})
	}
	// Nix checks the signatures, which would not be noticed otherwise.
	t.Run("another key", func(t *testing.T) {
		testbench.UseStore(t, t.TempDir())
		out, err := run(t, first, "nix-store", "--realise", top, "--option", "substituters", c.Substituter(), "--option", "trusted-public-keys", "")
		if err == nil || !strings.Contains(out, "not signed") {
			t.Error(out)
		}
	})
}
