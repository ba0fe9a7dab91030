package nix

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

func connect(t *testing.T, n *Nix) *Daemon {
	t.Helper()
	d, err := n.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func outputMap(t *testing.T, d *Daemon, drv string) map[string]string {
	t.Helper()
	outputs, err := d.OutputMap(drv)
	if err != nil {
		t.Fatal(err)
	}
	return outputs
}

func TestOutputMap(t *testing.T) {
	eachDaemon(t, func(t *testing.T, n *Nix) {
		drv := instantiate(t, n, `{ two = derivation { name = "two"; system = "x86_64-linux"; builder = "/bin/sh"; outputs = [ "out" "doc" ]; args = [ "-c" "echo >$out; echo >$doc" ]; }; }`)["two"]
		parsed, err := n.Derivation(drv)
		if err != nil {
			t.Fatal(err)
		}
		d := connect(t, n)
		want := map[string]string{"out": parsed.Outputs["out"].Path, "doc": parsed.Outputs["doc"].Path}
		if diff := cmp.Diff(want, outputMap(t, d, drv)); diff != "" {
			t.Error(diff)
		}
		none := "/nix/store/" + strings.Repeat("1", 32) + "-none.drv"
		if _, err := d.OutputMap(none); err == nil || !strings.Contains(err.Error(), none) {
			t.Errorf("of a missing path: %v", err)
		}
		// After an error message of the server, the connection is usable.
		if diff := cmp.Diff(want, outputMap(t, d, drv)); diff != "" {
			t.Error(diff)
		}
	})
}

// The outputs of a derivation with floating content addresses are known after its build.
func TestOutputMapFloating(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		n = n.WithOptions(Set("extra-experimental-features", "ca-derivations"))
		const common = `system = "x86_64-linux"; builder = "/bin/sh"; __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";`
		drvs := instantiate(t, n, `rec { base = derivation { name = "base"; `+common+` args = [ "-c" "echo base >$out" ]; };
			top = derivation { name = "top"; `+common+` args = [ "-c" "echo ${base} >$out" ]; }; }`)
		d := connect(t, n)
		for _, drv := range drvs {
			if diff := cmp.Diff(map[string]string{"out": ""}, outputMap(t, d, drv)); diff != "" {
				t.Error(diff)
			}
		}
		if paths, unbuilt, err := n.Built(t.Context(), drvs["top"]); len(paths) > 0 || len(unbuilt) != 1 || err != nil {
			t.Errorf("before the build, %q and not %q, %v", paths, unbuilt, err)
		}
		realise(t, n, drvs["top"])
		for name, drv := range drvs {
			out := outputMap(t, d, drv)["out"]
			if paths, unbuilt, err := n.Built(t.Context(), drv); !slices.Equal(paths, []string{out, drv + "!*"}) || len(unbuilt) > 0 || err != nil {
				t.Errorf("%s has built %q and not %q, %v", name, paths, unbuilt, err)
			}
			if paths, err := n.BuiltHere(t.Context(), drv); !slices.Equal(paths, []string{out, drv + "!*"}) || err != nil {
				t.Errorf("%s: built here are %q, %v", name, paths, err)
			}
			if !strings.HasSuffix(out, "-"+name) || !isValid(t, n, out) {
				t.Errorf("%s is %q", name, out)
			}
			if info, err := d.PathInfo(out); err != nil || !strings.HasPrefix(info.CA, "fixed:r:sha256:") {
				t.Errorf("%+v, %v", info, err)
			}
		}
	})
}

// Goroutines may share a connection.
func TestDaemonShared(t *testing.T) {
	eachDaemon(t, func(t *testing.T, n *Nix) {
		drvs, outs := recorded(t, n)
		d := connect(t, n)
		var g errgroup.Group
		for i := range 8 {
			name := fmt.Sprint(strings.Repeat("x", i+1))
			info, nar := file(name, name)
			g.Go(func() error {
				for range 20 {
					outputs, err := d.OutputMap(drvs["second"])
					if err != nil {
						return err
					}
					if outputs["out"] != outs["second"] {
						return fmt.Errorf("the outputs are %v", outputs)
					}
					if err := d.AddTempRoots(outs["second"]); err != nil {
						return err
					}
					if err := d.AddMultiple([]PathInfo{info}, from(map[string][]byte{info.Path: nar})); err != nil {
						return err
					}
					got, err := d.PathInfo(info.Path)
					if err != nil {
						return err
					}
					if diff := cmp.Diff(info, got); diff != "" {
						return fmt.Errorf("another path: %s", diff)
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// After unexpected data, nothing that follows is taken for an answer.
func TestDaemonLost(t *testing.T) {
	d := talk(t, func(r io.Reader, w io.Writer) {
		var q request
		q.numbers(12345, messageLast, 1, messageLast, 1)
		go func() { _, _ = q.WriteTo(w) }()
		_, _ = io.Copy(io.Discard, r)
	})
	for i, want := range []string{"unknown message 0x3039", "closed pipe"} {
		if err := d.AddTempRoots(aPath); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("request %d: %v", i, err)
		}
	}
}
