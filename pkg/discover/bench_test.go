package discover

import (
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
)

// BenchmarkPackages compares 400 packages, 3 of which abort, with the others
// alone by one evaluator, and with an evaluator for each attribute (10 of them, so
// count it 40 times).
func BenchmarkPackages(b *testing.B) {
	n := useNix(b, "2.34")
	good := flake(b, manyPackages("{ }"))
	aborting := flake(b, manyPackages(abortingPackages))
	for _, bench := range []struct {
		name    string
		refs    []string
		workers int
	}{
		{"the good ones alone by one", []string{good}, 1},
		{"with three that abort by one", []string{aborting}, 1},
		{"with three that abort by two", []string{aborting}, 2},
		{"ten by one each", strings.Fields(strings.Repeat(good+"#packages.x86_64-linux.p007 ", 10)), 1},
	} {
		for _, fresh := range []string{"", ", empty store"} {
			b.Run(bench.name+fresh, func(b *testing.B) {
				for b.Loop() {
					if fresh != "" {
						b.StopTimer()
						testbench.UseStore(b, b.TempDir())
						b.StartTimer()
					}
					for _, ref := range bench.refs {
						if _, err := Run(b.Context(), n, with(n, Options{Installables: []string{ref}, Workers: bench.workers})); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// BenchmarkHosts compares 16 hosts that have nothing in common by one evaluator
// and by two.
func BenchmarkHosts(b *testing.B) {
	n := useNix(b, "2.34")
	ref := flake(b, work+`{ nixosConfigurations = builtins.listToAttrs (builtins.genList (n: {
		name = "host${toString (100 + n)}";
		value.config.system.build.toplevel = busy "nixos-system-${toString n}" (fib 32);
	}) 16); }`)
	for name, workers := range map[string]int{"by one": 1, "by two": 2} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Run(b.Context(), n, with(n, Options{Installables: []string{ref}, Workers: workers})); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
