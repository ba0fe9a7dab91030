package storecache

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/cachetest"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/nix/nixtest"
	"github.com/org/nix-matrix/pkg/pack"
)

// fleet builds some paths that refer to each other: low; left and right, which refer to
// low; top, which refers to both and to itself; a large one that top refers to; and alone,
// which nothing refers to. Low has a content address, left a signature.
func fleet(t *testing.T, n *nix.Nix) map[string]string {
	t.Helper()
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	must(t, os.Mkdir(large, 0o700))
	for i := range 40 {
		must(t, os.WriteFile(filepath.Join(large, fmt.Sprint(i)), noise(i, 200<<10), 0o600))
	}
	must(t, os.Mkdir(filepath.Join(large, "Sub"), 0o700))
	must(t, os.Mkdir(filepath.Join(large, "sub"), 0o700)) // differs only in case
	must(t, os.WriteFile(filepath.Join(large, "sub", "run"), []byte("#!/bin/sh\n"), 0o700))
	must(t, os.WriteFile(filepath.Join(large, "Sub", "empty"), nil, 0o600))
	must(t, os.Symlink("../elsewhere", filepath.Join(large, "link")))
	must(t, os.WriteFile(filepath.Join(dir, "default.nix"), []byte(`let
  sh = name: text: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" text ]; };
in rec {
  low = builtins.toFile "low" "nothing";
  large = builtins.path { name = "large"; path = ./large; };
  left = sh "left" "echo ${low} >$out";
  right = sh "right" "echo ${low} more >$out";
  top = sh "top" "echo ${left} ${right} ${large} $out >$out";
  alone = sh "alone" "echo alone >$out";
}`), 0o600))
	paths := map[string]string{}
	for _, name := range []string{"left", "right", "top", "alone"} {
		paths[name] = nixtest.Run(t, "nix-build", dir, "-A", name, "-o", filepath.Join(dir, "result-"+name))
	}
	closure, err := n.Requisites(t.Context(), paths["top"])
	must(t, err)
	for _, path := range closure {
		_, name, _ := strings.Cut(path, "-")
		paths[name] = path
	}
	if len(paths) != 6 {
		t.Fatal(paths)
	}
	nixtest.Run(t, "nix-store", "--generate-binary-cache-key", "test-1", filepath.Join(dir, "secret"), filepath.Join(dir, "public"))
	nixtest.Run(t, "nix", "store", "sign", "--key-file", filepath.Join(dir, "secret"), paths["left"])
	return paths
}

func noise(seed, n int) []byte {
	data := make([]byte, n)
	x := uint64(seed)*2654435761 + 1
	for i := range data {
		x = x*6364136223846793005 + 1442695040888963407
		data[i] = byte(x >> 56)
	}
	return data
}

// everything returns the output of `nix path-info` for paths, except the time of registration
// and whether they were built here.
func everything(t *testing.T, n *nix.Nix, paths ...string) map[string]any {
	t.Helper()
	args := []string{"path-info", "--json"}
	if n.HasJSONFormat() {
		args = append(args, "--json-format", "1")
	}
	out := nixtest.Run(t, "nix", append(args, paths...)...)
	byPath := map[string]map[string]any{}
	if strings.HasPrefix(out, "{") {
		must(t, json.Unmarshal([]byte(out), &byPath))
	} else {
		var list []map[string]any
		must(t, json.Unmarshal([]byte(out), &list))
		for _, info := range list {
			byPath[info["path"].(string)] = info
		}
	}
	all := map[string]any{}
	for path, info := range byPath {
		delete(info, "registrationTime")
		delete(info, "ultimate")
		delete(info, "valid")
		delete(info, "path")
		for _, list := range []string{"references", "signatures"} {
			if s, ok := info[list].([]any); !ok || len(s) == 0 {
				delete(info, list)
			}
		}
		maps.DeleteFunc(info, func(_ string, v any) bool { return v == nil })
		all[path] = info
	}
	return all
}

func infosOf(t *testing.T, n *nix.Nix, paths ...string) []nix.PathInfo {
	t.Helper()
	infos, err := n.FullInfo(t.Context(), paths...)
	must(t, err)
	return infos
}

func saver(n *nix.Nix, c cache.Cache, key *pack.Key) *Saver {
	return &Saver{Nix: n, Cache: c, ID: "test", Seal: key}
}

// engines returns the available engines.
func engines(t *testing.T, n *nix.Nix) map[string]engine.Engine {
	t.Helper()
	direct, err := engine.Direct(t.Context(), n)
	must(t, err)
	return map[string]engine.Engine{"import": engine.Import(n), "protocol": engine.Protocol(n), "direct": direct}
}

// Another store restores saved paths, with all versions of Nix and each engine, from packs in
// clear and sealed ones.
func TestPacks(t *testing.T) {
	nixtest.Each(t, func(t *testing.T, n *nix.Nix) {
		paths := fleet(t, n)
		closure, err := n.Requisites(t.Context(), slices.Sorted(maps.Values(paths))...)
		must(t, err)
		before := everything(t, n, closure...)
		secret, err := pack.NewKey("a secret for the tests")
		must(t, err)
		type saved struct {
			cache cache.Cache
			key   IndexKey
		}
		var all []saved
		for _, key := range []*pack.Key{nil, secret} {
			to := saved{open(t), IndexKey{ID: "test", System: "x86_64-linux", Seal: key}}
			low, err := saver(n, to.cache, key).Save(t.Context(), infosOf(t, n, closure[:2]...))
			must(t, err)
			high, err := saver(n, to.cache, key).Save(t.Context(), infosOf(t, n, closure[2:]...))
			must(t, err)
			must(t, NewIndex(append(high, low...)...).Save(t.Context(), to.cache, to.key, "refs/heads/main", "1", 0))
			all = append(all, to)
		}
		want := maps.Clone(before)
		delete(want, paths["alone"])
		for _, from := range all {
			for name, engine := range engines(t, n) {
				testbench.UseStore(t, t.TempDir())
				ix, err := Load(t.Context(), from.cache, from.key, "refs/heads/other", "refs/heads/main")
				must(t, err)
				r := &Restorer{Nix: n, Engine: engine, Cache: from.cache, Index: ix}
				got, err := r.Restore(t.Context(), paths["top"])
				must(t, err)
				if got.Paths != 5 || got.Bytes == 0 || len(got.Packs) != 2 {
					t.Errorf("%s: %+v", name, got)
				}
				expect := want
				if name == "import" {
					expect = withoutProofs(want)
				}
				if diff := cmp.Diff(expect, everything(t, n, slices.Sorted(maps.Keys(want))...)); diff != "" {
					t.Errorf("%s: %s", name, diff)
				}
				valid, err := n.Valid(t.Context(), paths["alone"])
				must(t, err)
				if valid[paths["alone"]] {
					t.Errorf("%s: an unwanted path was restored", name)
				}
				if got, err = r.Restore(t.Context(), paths["top"]); err != nil || got.Paths != 0 || got.Bytes != 0 {
					t.Errorf("%s: a second time: %+v, %v", name, got, err)
				}
				nixtest.Run(t, "nix-store", "--verify", "--check-contents")
			}
		}
	})
}

// Standard tools restore a pack of records: zstd and each version of Nix.
func TestStockTools(t *testing.T) {
	zstd := filepath.Join(testbench.Path(t, "zstd/bin"), "zstd")
	n := inputsNix(t)
	paths := fleet(t, n)
	closure, err := n.Requisites(t.Context(), paths["top"])
	must(t, err)
	file, err := os.Create(filepath.Join(t.TempDir(), "pack"))
	must(t, err)
	defer file.Close()
	_, err = packPaths(t.Context(), n, file, closure, nil)
	must(t, err)
	known := func(n *nix.Nix) []nix.PathInfo {
		t.Helper()
		infos, err := n.FullInfo(t.Context(), closure...)
		must(t, err)
		for i := range infos { // only a pack's index has these
			infos[i].Signatures, infos[i].CA, infos[i].Ultimate = nil, "", false
		}
		return infos
	}
	want := known(n)
	nixtest.Each(t, func(t *testing.T, n *nix.Nix) {
		nixtest.Run(t, "sh", "-c", zstd+` -dc <"$0" | nix-store --import`, file.Name())
		if diff := cmp.Diff(want, known(n)); diff != "" {
			t.Error(diff)
		}
		nixtest.Run(t, "nix-store", "--verify", "--check-contents")
	})
}

func withoutProofs(all map[string]any) map[string]any {
	without := map[string]any{}
	for path, info := range all {
		kept := maps.Clone(info.(map[string]any))
		delete(kept, "signatures")
		delete(kept, "ca")
		without[path] = kept
	}
	return without
}

// unread returns packs of which only the indexes are known.
func unread(packs []*Pack) []*Pack {
	var all []*Pack
	for _, p := range packs {
		q := p.clone()
		q.tables = nil
		all = append(all, q)
	}
	return all
}

// If a pack is missing or corrupt, only its paths and their referrers are lost.
func TestLostPacks(t *testing.T) {
	n := inputsNix(t)
	paths := fleet(t, n)
	c := open(t)
	var packs []*Pack
	for _, name := range []string{"low", "left", "right", "large", "top", "alone"} {
		one, err := saver(n, c, nil).Save(t.Context(), infosOf(t, n, paths[name]))
		must(t, err)
		packs = append(packs, one...)
	}
	gone := packs[1].Key // has left
	for name, engine := range engines(t, n) {
		testbench.UseStore(t, t.TempDir())
		r := &Restorer{Nix: n, Engine: engine, Cache: cachetest.Burnt{Cache: c, Key: gone}, Index: NewIndex(unread(packs)...)}
		got, err := r.Restore(t.Context(), paths["top"], paths["alone"])
		if !errors.Is(err, ErrSource) || !errors.Is(err, cache.ErrMiss) || !strings.Contains(err.Error(), gone) {
			t.Errorf("%s: %v", name, err)
		}
		valid, err := n.Valid(t.Context(), slices.Collect(maps.Values(paths))...)
		must(t, err)
		if got.Paths != 4 || valid[paths["top"]] || valid[paths["left"]] || !valid[paths["right"]] || !valid[paths["alone"]] {
			t.Errorf("%s: %+v, valid are %v", name, got, valid)
		}
		nixtest.Run(t, "nix-store", "--verify", "--check-contents")
		r.Cache = c
		if got, err = r.Restore(t.Context(), paths["top"]); err != nil || got.Paths != 2 {
			t.Errorf("%s: with the pack: %+v, %v", name, got, err)
		}
	}
}

// Substituters provide the paths that packs lack; referrers of paths that these lack too are lost.
func TestSubstituted(t *testing.T) {
	n := inputsNix(t)
	paths := fleet(t, n)
	c := open(t)
	packs, err := saver(n, c, nil).Save(t.Context(), infosOf(t, n, paths["right"], paths["large"], paths["top"]))
	must(t, err)
	binary := "file://" + t.TempDir()
	nixtest.Run(t, "nix", "copy", "--to", binary, paths["left"])
	for _, substituters := range []string{binary, ""} {
		testbench.UseStore(t, t.TempDir())
		r := &Restorer{
			Nix:    n.WithOptions(nix.Set("substituters", strings.Fields(substituters)...), nix.Set("require-sigs", "false")),
			Engine: engine.Protocol(n), Cache: c, Index: NewIndex(packs...),
		}
		got, err := r.Restore(t.Context(), paths["top"])
		must(t, err)
		valid, err := n.Valid(t.Context(), paths["top"], paths["large"])
		must(t, err)
		if has := substituters != ""; valid[paths["top"]] != has || !valid[paths["large"]] || (got.Paths == 3) != has || (got.Fetched.Paths == 2) != has || (got.Fetched.Bytes > 0) != has {
			t.Errorf("from %q: %+v, %v", substituters, got, valid)
		}
	}
}

// Packs that refer to each other in both directions are restored too.
func TestInterleaved(t *testing.T) {
	n := inputsNix(t)
	paths := fleet(t, n)
	c := open(t)
	one, err := saver(n, c, nil).Save(t.Context(), infosOf(t, n, paths["low"], paths["right"], paths["top"]))
	must(t, err)
	two, err := saver(n, c, nil).Save(t.Context(), infosOf(t, n, paths["left"], paths["large"]))
	must(t, err)
	ix := NewIndex(append(one, two...)...)
	seen := map[string]bool{}
	wanted := map[string]location{}
	for _, path := range pathsOf(t, ix) {
		wanted[path], _ = ix.find(path)
	}
	for _, s := range segments(wanted) {
		for _, record := range s.records {
			at := location{s.pack, record}
			seen[at.info().Path] = true
			for _, ref := range at.references() {
				if !seen[ref] {
					t.Errorf("%s comes before %s", at.info().Path, ref)
				}
			}
		}
	}
	if len(seen) != 5 {
		t.Errorf("segments of %v", seen)
	}
	for name, engine := range engines(t, n) {
		testbench.UseStore(t, t.TempDir())
		r := &Restorer{Nix: n, Engine: engine, Cache: c, Index: ix}
		if got, err := r.Restore(t.Context(), paths["top"]); err != nil || got.Paths != 5 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// Two jobs that save the same paths store one pack.
func TestSavedTwice(t *testing.T) {
	n := inputsNix(t)
	paths := fleet(t, n)
	c := open(t)
	key, err := pack.NewKey("a secret for the tests")
	must(t, err)
	for _, k := range []*pack.Key{nil, key} {
		var keys []string
		for range 2 {
			packs, err := saver(n, c, k).Save(t.Context(), infosOf(t, n, paths["low"], paths["left"]))
			must(t, err)
			if len(packs) != 1 {
				t.Fatal(packs)
			}
			keys = append(keys, packs[0].Key)
		}
		if keys[0] != keys[1] {
			t.Errorf("%v", keys)
		}
	}
}
