package nix

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
)

const large = `
let build = name: text: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin:/usr/bin"; args = [ "-c" text ]; };
in rec {
  big = build "big" "head -c 3145728 /dev/zero >$out";
  bigger = build "bigger" "head -c 6291456 /dev/zero >$out; echo ${big} >>$out";
  local = build "local" "echo ${bigger} >$out";
}`

// Forecast counts the paths that are not valid and are substitutable.
func TestForecast(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		ctx := t.Context()
		drvs := instantiate(t, n, large)
		dir := t.TempDir()
		from := n.WithOptions(Set("substituters", "file://"+dir), Set("require-sigs", "false"))
		check := func(what string, n *Nix, want int64, names ...string) {
			t.Helper()
			var wanted []string
			for _, name := range names {
				wanted = append(wanted, drvs[name]+"!out")
			}
			got, err := n.Forecast(ctx, wanted)
			if err != nil || got < want-want/50 || got > want+want/50 {
				t.Errorf("%s: %d bytes, %v, want %d", what, got, err, want)
			}
		}
		check("nothing is offered", n, 0, "big", "bigger", "local")
		realise(t, n, drvs["bigger"])
		check("it is here", from, 0, "big", "bigger")
		outs, err := n.Outputs(ctx, drvs["big"], drvs["bigger"])
		if err != nil {
			t.Fatal(err)
		}
		big, bigger := outs[drvs["big"]]["out"], outs[drvs["bigger"]]["out"]
		if _, err := n.Copy(ctx, "file://"+dir, []string{bigger}); err != nil {
			t.Fatal(err)
		}

		testbench.UseStore(t, t.TempDir()) // which is empty
		instantiate(t, n, large)
		check("both are to be fetched", from, 9<<20, "bigger")
		check("what is built needs both", from, 9<<20, "local")
		check("twice", from, 9<<20, "bigger", "local", "big")
		check("none is offered", n, 0, "bigger")
		if valid, err := n.Valid(ctx, big, bigger); err != nil || len(valid) > 0 {
			t.Errorf("it was fetched: %v, %v", valid, err)
		}
		realise(t, from, drvs["big"])
		check("one is to be fetched", from, 6<<20, "bigger", "big")
		if size, err := n.Forecast(ctx, []string{"/nix/store/none"}); err == nil {
			t.Errorf("the forecast of an invalid path is %d", size)
		}
	})
}

const twoOutputs = `
let build = name: text: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; outputs = [ "out" "doc" ]; args = [ "-c" text ]; };
in {
  two = build "two" "echo >$out; echo >$doc";
  half = build "half" "echo >$out; exit 1";
}`

// Valid outputs of derivations, before and after builds that succeed or fail.
func TestBuilt(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		ctx := t.Context()
		drvs := instantiate(t, n, twoOutputs)
		two, half := drvs["two"], drvs["half"]
		known, err := n.Outputs(ctx, two, half, two)
		if err != nil {
			t.Fatal(err)
		}
		check := func(what string, wantPaths, wantUnbuilt []string) {
			t.Helper()
			paths, unbuilt, err := n.Built(ctx, two, half)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(paths)
			slices.Sort(wantPaths)
			if !slices.Equal(paths, wantPaths) || !slices.Equal(unbuilt, wantUnbuilt) {
				t.Errorf("%s: built %q, not %q; want %q, not %q", what, paths, unbuilt, wantPaths, wantUnbuilt)
			}
			wantHere := wantPaths
			if what == "fetched" {
				wantHere = nil
			}
			here, err := n.BuiltHere(ctx, two, half)
			if slices.Sort(here); err != nil || !slices.Equal(here, wantHere) {
				t.Errorf("%s: built here are %q, %v", what, here, err)
			}
			again, err := n.Outputs(ctx, half, two)
			if diff := cmp.Diff(known, again); err != nil || diff != "" {
				t.Errorf("%s: %v\n%s", what, err, diff)
			}
			for drv, has := range map[string]bool{two: len(wantPaths) == 2, half: false} {
				if n.Has(drv) != has {
					t.Errorf("%s: the outputs of %s are there: %t", what, drv, !has)
				}
			}
		}
		if len(known) != 2 || known[two]["doc"] == "" || known[two]["doc"] == known[two]["out"] || known[half]["out"] == "" {
			t.Fatalf("the outputs are %v", known)
		}
		check("before", nil, []string{two, half})
		realise(t, n, two)
		check("after", []string{known[two]["out"], known[two]["doc"]}, []string{half})
		if n.Realise(ctx, []string{half + "!out"}, func(Event) {}) == nil {
			t.Error("it succeeded")
		}
		check("after a failure", []string{known[two]["out"], known[two]["doc"]}, []string{half})
		dir := t.TempDir()
		if _, err := n.Copy(ctx, "file://"+dir, []string{known[two]["doc"]}); err != nil {
			t.Fatal(err)
		}
		testbench.UseStore(t, t.TempDir())
		instantiate(t, n, twoOutputs)
		from := n.WithOptions(Set("substituters", "file://"+dir), Set("require-sigs", "false"))
		if err := from.Realise(ctx, []string{two + "!doc"}, func(Event) {}); err != nil {
			t.Fatal(err)
		}
		check("fetched", []string{known[two]["doc"]}, []string{two, half})

		none := "/nix/store/" + strings.Repeat("1", 32) + "-none.drv"
		if _, err := n.Outputs(ctx, two, none); err == nil || !strings.Contains(err.Error(), none) {
			t.Errorf("of a missing path: %v", err)
		}
		if _, _, err := n.Built(ctx, two, none); err == nil || !strings.Contains(err.Error(), none) {
			t.Errorf("of a missing path: %v", err)
		}
		if n.Has(none) || n.Has("/etc/passwd") {
			t.Error("a path that is no derivation has outputs")
		}
		// Without derivations, no program runs.
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if outputs, err := n.Outputs(ended); err != nil || len(outputs) > 0 {
			t.Errorf("of nothing: %v, %v", outputs, err)
		}
	})
}

// httpCache is a binary cache that accepts uploads. Its files are in memory, because the
// server's goroutines are in another mount namespace.
func httpCache(t *testing.T) (files *sync.Map, address string) {
	t.Helper()
	files = &sync.Map{}
	files.Store("/nix-cache-info", []byte("StoreDir: /nix/store\n"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			data, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			files.Store(r.URL.Path, data)
			return
		}
		data, ok := files.Load(r.URL.Path)
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data.([]byte))
	}))
	t.Cleanup(server.Close)
	return files, server.URL
}

// A path that was deleted from a binary cache is sent again, and is not substitutable, though
// Nix remembers it.
func TestCopyAsksAnew(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		drvs, outs := recorded(t, n)
		realise(t, n, drvs["second"])
		name := "/" + filepath.Base(outs["second"])[:32] + ".narinfo"
		dir := t.TempDir()
		files, address := httpCache(t)
		for _, cache := range []struct {
			address string
			has     func() bool
			remove  func() (restore func())
		}{
			{
				"file://" + dir,
				func() bool { _, err := os.Stat(dir + name); return err == nil },
				func() func() {
					if err := os.Rename(dir+name, dir+"/elsewhere"); err != nil {
						t.Fatal(err)
					}
					return func() { _ = os.Rename(dir+"/elsewhere", dir+name) }
				},
			},
			{
				address,
				func() bool { _, ok := files.Load(name); return ok },
				func() func() {
					data, _ := files.LoadAndDelete(name)
					return func() { files.Store(name, data) }
				},
			},
		} {
			send := func(what string) {
				t.Helper()
				if _, err := n.Copy(t.Context(), cache.address, []string{outs["second"]}); err != nil {
					t.Fatal(err)
				}
				if !cache.has() {
					t.Errorf("%s: it was not sent %s", cache.address, what)
				}
			}
			offered := func(want bool) {
				t.Helper()
				got, err := n.substitutable(t.Context(), []string{outs["second"]}, cache.address)
				if err != nil || got[outs["second"]] != want {
					t.Errorf("%s offers it: %v, %v, want %t", cache.address, got, err, want)
				}
			}
			offered(false)
			send("at first")
			offered(true)
			restore := cache.remove()
			offered(false)
			restore() // as another machine may do
			offered(true)
			cache.remove()
			offered(false)
			send("after it was deleted")
			cache.remove()
			send("after it was deleted again")
		}
	})
}
