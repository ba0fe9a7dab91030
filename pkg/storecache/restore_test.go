package storecache

import (
	"context"
	"encoding/json"
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

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/nix/nixtest"
	"github.com/org/nix-matrix/pkg/pack"
)

// sample returns three derivations: base; one that needs base and a file; and one
// that needs an output that was built and signed. The closure of all is packed.
func sample(t *testing.T, n *nix.Nix) (file string, packed *DrvPack, drvs map[string]string) {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	must(t, os.WriteFile(source, []byte("source"), 0o600))
	const d = `d = name: args: derivation { inherit name args; system = "x86_64-linux"; builder = "/bin/sh"; };`
	instantiate := func(expr string) string {
		t.Helper()
		return nixtest.Run(t, "nix-instantiate", "--add-root", filepath.Join(dir, "root"), "--expr", "let "+d+" in "+expr)
	}
	resolve := func(root string) string {
		t.Helper()
		path, err := filepath.EvalSymlinks(root)
		must(t, err)
		return path
	}
	built := nixtest.Run(t, "nix-store", "--realise", resolve(instantiate(`d "built" [ "-c" "echo built >$out" ]`)))
	nixtest.Run(t, "nix-store", "--generate-binary-cache-key", "test-1", filepath.Join(dir, "secret"), filepath.Join(dir, "public"))
	nixtest.Run(t, "nix", "store", "sign", "--key-file", filepath.Join(dir, "secret"), built)
	drvs = map[string]string{
		"base":  resolve(instantiate(`d "base" [ ]`)),
		"takes": resolve(instantiate(`d "takes" [ "${d "base" [ ]}" ` + source + ` ]`)),
		"after": resolve(instantiate(`d "after" [ (builtins.storePath "` + built + `") ]`)),
	}
	file = filepath.Join(dir, "drvs.pack")
	packed, err := PackDrvs(t.Context(), n, "test", file, slices.Collect(maps.Values(drvs)), nil)
	must(t, err)
	if packed.Paths != 5 {
		t.Errorf("%d paths, want three derivations, a source and an output", packed.Paths)
	}
	return file, packed, drvs
}

// known returns the content address and the signing keys of a path from `nix path-info`.
func known(t *testing.T, n *nix.Nix, path string) string {
	t.Helper()
	args := []string{"path-info", "--json"}
	if n.HasJSONFormat() {
		args = append(args, "--json-format", "1")
	}
	if !n.HasOutputsSyntax() && strings.HasSuffix(path, ".drv") {
		args = append(args, "--derivation")
	}
	out := nixtest.Run(t, "nix", append(args, path)...)
	type info struct {
		CA         string
		Signatures []string
	}
	var list []info
	if strings.HasPrefix(out, "{") {
		var byPath map[string]info
		must(t, json.Unmarshal([]byte(out), &byPath))
		list = slices.Collect(maps.Values(byPath))
	} else {
		must(t, json.Unmarshal([]byte(out), &list))
	}
	if len(list) != 1 {
		t.Fatalf("%s is %s", path, out)
	}
	return fmt.Sprint(list[0].CA, list[0].Signatures)
}

// Paths have the same proofs in another store.
func TestRestoreKeepsProofs(t *testing.T) {
	nixtest.Each(t, func(t *testing.T, n *nix.Nix) {
		file, packed, drvs := sample(t, n)
		all := slices.Sorted(maps.Values(drvs))
		before := map[string]string{}
		closure, err := n.Requisites(t.Context(), all...)
		must(t, err)
		text, fixed, signed := 0, 0, 0
		for _, path := range closure {
			k := known(t, n, path)
			before[path] = k
			switch {
			case strings.HasPrefix(k, "text:sha256:") && strings.HasSuffix(path, ".drv"):
				text++
			case strings.HasPrefix(k, "fixed:r:sha256:"):
				fixed++
			case strings.HasPrefix(k, "[test-1:"):
				signed++
			}
		}
		if text != 3 || fixed != 1 || signed != 1 {
			t.Fatalf("before: %v", before)
		}

		testbench.UseStore(t, t.TempDir())
		f, err := File(file)
		must(t, err)
		defer f.Close()
		got, err := RestoreDrvs(t.Context(), n, engine.Protocol(n), f, packed.SHA256, all, nil, Everything())
		must(t, err)
		if got.Paths != len(closure) || got.Bytes == 0 || got.Bytes > packed.Size {
			t.Errorf("got %+v", got)
		}
		after := map[string]string{}
		for _, path := range closure {
			after[path] = known(t, n, path)
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Error(diff)
		}
		nixtest.Run(t, "nix-store", "--verify", "--check-contents")
	})
}

// flaky is a pack whose records can't be read to their end.
type flaky struct {
	pack.Source
	wrong func(io.Reader, int64) io.Reader
	fail  bool
}

func (f *flaky) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	r, err := f.Source.Range(ctx, offset, length)
	if err != nil || !f.fail {
		return r, err
	}
	return io.NopCloser(f.wrong(r, length)), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// inverted flips the bits of a byte.
type inverted struct {
	r  io.Reader
	at int64
}

func (i *inverted) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	if 0 <= i.at && i.at < int64(n) {
		p[i.at] ^= 0xff
	}
	i.at -= int64(n)
	return n, err
}

// Errors of a pack are distinguished from those of the store. No part of a path is left.
func TestRestoreBroken(t *testing.T) {
	reset := errors.New("connection reset")
	nixtest.Each(t, func(t *testing.T, n *nix.Nix) {
		file, packed, drvs := sample(t, n)
		all := slices.Sorted(maps.Values(drvs))
		closure, err := n.Requisites(t.Context(), all...)
		must(t, err)
		for name, wrong := range map[string]func(io.Reader, int64) io.Reader{
			"lost":    func(r io.Reader, n int64) io.Reader { return io.MultiReader(io.LimitReader(r, n/2), failing{reset}) },
			"cut":     func(r io.Reader, n int64) io.Reader { return io.LimitReader(r, n/2) },
			"changed": func(r io.Reader, n int64) io.Reader { return &inverted{r, n / 2} },
		} {
			testbench.UseStore(t, t.TempDir())
			f, err := File(file)
			must(t, err)
			defer f.Close()
			src := &flaky{Source: f, wrong: wrong}
			_, err = RestoreDrvs(t.Context(), n, beginning(n, func(s engine.Sink) engine.Sink { src.fail = true; return s }), src, packed.SHA256, all, nil, Everything())
			if !errors.Is(err, ErrSource) || name == "lost" && !errors.Is(err, reset) {
				t.Errorf("%s: %v", name, err)
			}
			valid, err := n.Valid(t.Context(), closure...)
			must(t, err)
			if len(valid) == len(closure) {
				t.Errorf("%s: all is there", name)
			}
			nixtest.Run(t, "nix-store", "--verify", "--check-contents")

			// Another source works.
			src.fail = false
			_, err = RestoreDrvs(t.Context(), n, engine.Protocol(n), src, packed.SHA256, all, nil, Everything())
			must(t, err)
			nixtest.Run(t, "nix-store", "--verify", "--check-contents")
		}

		// An error of the store is not one of the pack.
		testbench.UseStore(t, t.TempDir())
		f, err := File(file)
		must(t, err)
		defer f.Close()
		lying := beginning(n, func(s engine.Sink) engine.Sink { return liar{s} })
		if _, err := RestoreDrvs(t.Context(), n, lying, f, packed.SHA256, all, nil, Everything()); err == nil || errors.Is(err, ErrSource) || !strings.Contains(err.Error(), "hash mismatch") {
			t.Errorf("a wrong hash: %v", err)
		}
	})
}

// beginning returns an engine whose sinks are wrapped by change.
func beginning(n *nix.Nix, change func(engine.Sink) engine.Sink) engine.Engine {
	e := engine.Protocol(n)
	begin := e.Begin
	e.Begin = func(ctx context.Context, infos []nix.PathInfo) (engine.Sink, error) {
		sink, err := begin(ctx, infos)
		if err != nil {
			return nil, err
		}
		return change(sink), nil
	}
	return e
}

// liar is a sink that gives the store a wrong hash.
type liar struct{ engine.Sink }

func (l liar) Add(ctx context.Context, info nix.PathInfo, nar io.Reader) error {
	info.NarHash = strings.Repeat("0", 64)
	return l.Sink.Add(ctx, info, nar)
}
