package storecache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/dir"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

func TestMain(m *testing.M) { testbench.PrivateProcess(m) }

func open(t *testing.T) cache.Cache {
	t.Helper()
	c, err := dir.New(t.TempDir())
	must(t, err)
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Derivations go from one real store to another through a cache.
func TestHandOver(t *testing.T) {
	t.Setenv("PATH", testbench.NixPath(t, "2.34")+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("HOME", t.TempDir())
	testbench.UseStore(t, t.TempDir())
	n, err := nix.Find(t.Context(), io.Discard, nix.Config{})
	must(t, err)

	// Two derivations with a common input, and a large source that only one needs.
	source := filepath.Join(t.TempDir(), "source")
	must(t, os.WriteFile(source, bytes.Repeat([]byte("0123456789abcdef"), 1<<20), 0o600))
	var drvs []string
	expr := `let d = name: text: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ text ]; };
		base = d "base" ""; in { a = d "a" "${base}"; b = d "b" "${base} ${` + source + `}"; }`
	for _, attr := range []string{"a", "b"} {
		must(t, n.Eval(t.Context(), nix.Evaluation{Expr: expr, Apply: `x: builtins.trace "drv ` + `${builtins.unsafeDiscardStringContext x.` + attr + `.drvPath}" true`}, func(line string) bool {
			_, drv, ok := strings.Cut(line, "drv ")
			if ok {
				drvs = append(drvs, drv)
			}
			return ok
		}))
	}
	if len(drvs) != 2 {
		t.Fatal(drvs)
	}
	file := filepath.Join(t.TempDir(), "drvs.pack")
	packed, err := PackDrvs(t.Context(), n, "test", file, drvs, nil)
	must(t, err)
	if packed.Paths != 4 {
		t.Errorf("%d paths, want a, b, base and the source", packed.Paths)
	}
	c := open(t)
	key, err := packed.Save(t.Context(), c, file)
	must(t, err)
	again, err := packed.Save(t.Context(), c, file)
	must(t, err)
	if key != again || !strings.HasPrefix(key, "test-drvs0-") {
		t.Errorf("the keys are %s and %s", key, again)
	}
	seal, err := pack.NewKey("a secret for the tests")
	must(t, err)
	private := filepath.Join(t.TempDir(), "sealed.pack")
	sealed, err := PackDrvs(t.Context(), n, "test", private, drvs, seal)
	must(t, err)
	sealedKey, err := sealed.Save(t.Context(), c, private)
	must(t, err)
	if again, err := sealed.Save(t.Context(), c, private); sealedKey == key || !strings.HasPrefix(sealedKey, "test-drvs0-") || again != sealedKey || err != nil {
		t.Errorf("the keys of a sealed pack are %s and %s, %v", sealedKey, again, err)
	}

	inStore, err := n.Derivations(t.Context(), drvs)
	must(t, err)
	testbench.UseStore(t, t.TempDir())
	blob, err := c.Open(t.Context(), key)
	must(t, err)
	inPack, err := ReadDrvs(t.Context(), blob, packed.SHA256, nil)
	must(t, err)
	if len(inPack) != 3 || len(inStore[0].Inputs) == 0 {
		t.Errorf("the pack has the derivations %v", inPack)
	}
	for i, drv := range drvs {
		if !reflect.DeepEqual(inPack[drv], inStore[i]) {
			t.Errorf("%s is %v in the store, %v in the pack", drv, inStore[i], inPack[drv])
		}
	}
	got, err := RestoreDrvs(t.Context(), n, engine.Protocol(n), blob, packed.SHA256, drvs[:1], nil, Everything())
	must(t, err)
	if got.Paths != 2 || got.Bytes > 2000 {
		t.Errorf("a and base: got %+v", got)
	}
	got, err = RestoreDrvs(t.Context(), n, engine.Protocol(n), blob, packed.SHA256, drvs, nil, Everything())
	must(t, err)
	if got.Paths != 2 {
		t.Errorf("b and the source: got %+v", got)
	}
	got, err = RestoreDrvs(t.Context(), n, engine.Protocol(n), blob, packed.SHA256, drvs, nil, Everything())
	must(t, err)
	if got.Paths != 0 || got.Bytes != 0 {
		t.Errorf("all is there, but got %+v", got)
	}
	closure, err := n.Requisites(t.Context(), drvs...)
	must(t, err)
	if len(closure) != 4 {
		t.Errorf("the closure is %v", closure)
	}
	if _, err := RestoreDrvs(t.Context(), n, engine.Protocol(n), blob, packed.SHA256, []string{"/nix/store/00000000000000000000000000000000-nosuch.drv"}, nil, Everything()); !errors.Is(err, ErrSource) {
		t.Errorf("a path that is not in the pack: %v", err)
	}

	// The file works like the cache; a cut one does not.
	testbench.UseStore(t, t.TempDir())
	f, err := File(file)
	must(t, err)
	defer f.Close()
	got, err = RestoreDrvs(t.Context(), n, engine.Protocol(n), f, packed.SHA256, drvs, nil, Everything())
	must(t, err)
	if got.Paths != 4 {
		t.Errorf("from the file: got %+v", got)
	}
	testbench.UseStore(t, t.TempDir())
	blob, err = c.Open(t.Context(), sealedKey)
	must(t, err)
	if _, err := RestoreDrvs(t.Context(), n, engine.Protocol(n), blob, sealed.SHA256, drvs, nil, Everything()); !errors.Is(err, ErrSource) || !errors.Is(err, pack.ErrKey) {
		t.Errorf("a sealed pack without the key: %v", err)
	}
	got, err = RestoreDrvs(t.Context(), n, engine.Protocol(n), blob, sealed.SHA256, drvs, seal, Everything())
	must(t, err)
	if got.Paths != 4 {
		t.Errorf("from a sealed pack: got %+v", got)
	}
	must(t, os.Truncate(file, packed.Size/2))
	cut, err := File(file)
	must(t, err)
	defer cut.Close()
	if _, err := RestoreDrvs(t.Context(), n, engine.Protocol(n), cut, packed.SHA256, drvs, nil, Everything()); !errors.Is(err, ErrSource) {
		t.Errorf("half a pack: %v", err)
	}

	// Nothing is left of a pack that could not be written.
	bad := filepath.Join(t.TempDir(), "bad.pack")
	if _, err := PackDrvs(t.Context(), broken{n}, "test", bad, drvs, nil); err == nil {
		t.Error("a broken export was packed")
	}
	if _, err := os.Stat(bad); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a broken pack was left: %v", err)
	}
}

// broken is a Nix whose export ends in the middle of a record, and that can't walk.
type broken struct{ Nix }

func (broken) Walks() bool { return false }

// lame is a Nix whose visitor gets no end of a directory.
type lame struct{ Nix }

func (l lame) Walk(ctx context.Context, path string, to nar.Visitor) error {
	return l.Nix.Walk(ctx, path, endless{to})
}

type endless struct{ nar.Visitor }

func (e endless) Node(n nar.Node) error {
	if n.Kind == nar.End {
		return nil
	}
	return e.Visitor.Node(n)
}

func (b broken) Export(ctx context.Context, w io.Writer, infos []nix.PathInfo) error {
	var all bytes.Buffer
	if err := b.Nix.Export(ctx, &all, infos); err != nil {
		return err
	}
	_, err := w.Write(all.Bytes()[:all.Len()/2])
	return err
}
