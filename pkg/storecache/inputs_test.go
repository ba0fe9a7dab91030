package storecache

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
)

// Sources go from one real store to another, with their content addresses, unless their path is
// not that of their content.
func TestInputs(t *testing.T) {
	n := inputsNix(t)
	var exprs []string
	for _, text := range []string{"one", "two"} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o600))
		exprs = append(exprs, `builtins.path { name = "source"; path = `+dir+`; }`)
	}
	paths := addSources(t, n, exprs...)
	c := open(t)
	must(t, SaveInputs(t.Context(), n, c, "test", paths, paths[:1], nil))
	must(t, SaveInputs(t.Context(), n, c, "test", paths, paths[:1], nil)) // as another job did

	testbench.UseStore(t, t.TempDir())
	got, err := RestoreInputs(t.Context(), n, engine.Protocol(n), c, "test", paths[1:], nil) // of another lock
	must(t, err)
	if got.Paths != 0 {
		t.Errorf("%d paths come from a pack that has none of them", got.Paths)
	}
	got, err = RestoreInputs(t.Context(), n, engine.Protocol(n), c, "test", paths, nil)
	must(t, err)
	valid, err := n.Valid(t.Context(), paths...)
	must(t, err)
	if got.Paths != 1 || !valid[paths[0]] || valid[paths[1]] {
		t.Errorf("%d paths; valid are %v", got.Paths, valid)
	}
	infos, err := n.FullInfo(t.Context(), paths[0])
	must(t, err)
	sum, err := hex.DecodeString(infos[0].NarHash)
	must(t, err)
	if nar := [sha256.Size]byte(sum); infos[0].CA != storepath.SourceCA(nar) || storepath.Source(nar) != paths[0] {
		t.Errorf("%+v", infos[0])
	}
	if got, err = RestoreInputs(t.Context(), n, engine.Protocol(n), c, "other", paths, nil); err != nil || got.Paths != 0 {
		t.Errorf("another id has %d paths, %v", got.Paths, err)
	}
}

// A path that is not that of its content is not restored, whatever a pack's index has.
func TestUnprovenInputs(t *testing.T) {
	n := inputsNix(t)
	paths := addSources(t, n, `builtins.toFile "source" "evil"`)
	c := open(t)
	must(t, SaveInputs(t.Context(), n, c, "test", paths, paths, nil))
	testbench.UseStore(t, t.TempDir())
	if got, err := RestoreInputs(t.Context(), n, engine.Protocol(n), c, "test", paths, nil); err != nil || got.Paths != 0 {
		t.Errorf("%d paths are restored, %v", got.Paths, err)
	}
}

func inputsNix(t *testing.T) *nix.Nix {
	t.Helper()
	t.Setenv("PATH", testbench.NixPath(t, "2.34")+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("HOME", t.TempDir())
	testbench.UseStore(t, t.TempDir())
	n, err := nix.Find(t.Context(), io.Discard, nix.Config{})
	must(t, err)
	return n
}

// addSources returns the store paths of expressions.
func addSources(t *testing.T, n *nix.Nix, exprs ...string) (paths []string) {
	t.Helper()
	for _, expr := range exprs {
		must(t, n.Eval(t.Context(), nix.Evaluation{Expr: expr, Apply: `p: builtins.trace "at ${p}" true`}, func(line string) bool {
			_, path, ok := strings.Cut(line, "at ")
			if ok {
				paths = append(paths, path)
			}
			return ok
		}))
	}
	return paths
}
