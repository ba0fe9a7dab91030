package evaluate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// Functions for the fixtures: fib takes time, grow takes memory.
const work = `let
	fib = n: if n < 2 then n else fib (n - 1) + fib (n - 2);
	grow = n: builtins.foldl' (a: b: a + b) 0 (builtins.concatLists (builtins.genList (x: builtins.genList (y: x + y) 10000) n));
	busy = name: n: derivation { inherit name n; system = "x86_64-linux"; builder = "/bin/sh"; };
in `

// manyPackages are 400 packages, the given ones among them.
func manyPackages(broken string) string {
	return work + `let
		base = builtins.genList (n: busy "base-${toString n}" 0) 40;
		package = name: derivation { inherit name base; n = fib 16; system = "x86_64-linux"; builder = "/bin/sh"; };
		name = n: "p${builtins.substring 1 3 (toString (1000 + n))}";
	in { packages.x86_64-linux = builtins.listToAttrs (builtins.genList (n: { name = name n; value = package (name n); }) 400) // ` + broken + `; }`
}

const abortingPackages = `{
	p100 = (({ missing }: d missing) { });
	p200 = let x = x; in x;
	p300 = builtins.abort "stop here";
}`

// counting counts the evaluators that are started, and how many are at work at once.
type counting struct {
	Evaluator
	mu                 sync.Mutex
	started, now, most int
}

func (c *counting) Eval(ctx context.Context, e nix.Evaluation, line func(string) bool) error {
	c.mu.Lock()
	c.started++
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.now--
	}()
	return c.Evaluator.Eval(ctx, e, line)
}

// observe discovers and counts evaluators.
func observe(t *testing.T, n *nix.Nix, o Options) ([]string, *Evaluation, *counting) {
	t.Helper()
	c := &counting{Evaluator: n}
	d, err := Run(t.Context(), c, with(n, o))
	if err != nil {
		t.Fatal(err)
	}
	return summary(d), d, c
}

// The result does not depend on the number of evaluators, nor on where they die.
func TestManyOfWhichSomeAbort(t *testing.T) {
	for _, version := range []string{"2.34", "2.26", "2.8"} {
		t.Run(version, func(t *testing.T) {
			n := useNix(t, version)
			ref := flake(t, manyPackages(abortingPackages))
			var first *Evaluation
			for _, workers := range []int{1, 2, 5} {
				got, d, c := observe(t, n, Options{Installables: []string{ref + "#packages"}, Workers: workers})
				if first == nil {
					first = d
				} else if diff := cmp.Diff(first, d); diff != "" {
					t.Errorf("%d evaluators find something else:\n%s", workers, diff)
				}
				if len(got) != 400 {
					t.Fatalf("%d targets", len(got))
				}
				for i, line := range got {
					want := fmt.Sprintf("package packages.x86_64-linux.p%03d build", i)
					switch i {
					case 100:
						want = "package packages.x86_64-linux.p100 failed: "
					case 200:
						want = "package packages.x86_64-linux.p200 failed: infinite recursion encountered"
					case 300:
						want = "package packages.x86_64-linux.p300 failed: evaluation aborted with the following error message: "
					}
					if !strings.HasPrefix(line, want) {
						t.Errorf("target %d is %q, want %q", i, line, want)
					}
				}
				if message := d.Targets[100].Error; !strings.Contains(message, "without required argument 'missing'") || !strings.Contains(message, "flake.nix:") {
					t.Errorf("the message has no cause or no position:\n%s", message)
				}
				// How often they share depends on how fast the machine is at that moment.
				if most := 4 + 8*(workers-1); c.started > most {
					t.Errorf("%d evaluators were started, more than %d", c.started, most)
				}
				if c.most > workers {
					t.Errorf("%d evaluators at once, %d are allowed", c.most, workers)
				}
			}
		})
	}
}

// A long walk is shared between evaluators, with the same order as of a single one.
func TestSharing(t *testing.T) {
	n := useNix(t, "2.34")
	for _, test := range []struct{ what, outputs, attr string }{
		{"hosts", `{ nixosConfigurations = builtins.listToAttrs (builtins.genList (n: { name = "h${toString n}"; value.config.system.build.toplevel = busy "nixos-system-${toString n}" (fib 30 + n); }) 6); }`, ""},
		{"outputs", `{ nixosConfigurations.a.config.system.build.toplevel = busy "nixos-system-a" (fib 31); packages.x86_64-linux.b = busy "b" (fib 31); formatter.x86_64-linux = busy "f" (fib 31); }`, ""},
		{"nested sets", `{ hydraJobs = { a.b = { c = busy "c" (fib 31); d = busy "d" (fib 31); }; e.f.g = busy "g" (fib 31); h = busy "h" (fib 31); }; }`, "#hydraJobs"},
	} {
		ref := flake(t, work+test.outputs)
		alone, _, _ := observe(t, n, Options{Installables: []string{ref + test.attr}, Workers: 1})
		together, _, c := observe(t, n, Options{Installables: []string{ref + test.attr}, Workers: 3})
		if !slices.Equal(alone, together) {
			t.Errorf("%s: one finds %v, three find %v", test.what, alone, together)
		}
		if c.most < 2 || c.started > 16 {
			t.Errorf("%s: %d evaluators were started, %d at once", test.what, c.started, c.most)
		}
	}
}

// A few attributes are not worth another evaluator, unless the machine stands still
// meanwhile.
func TestFewNeedOneEvaluator(t *testing.T) {
	n := useNix(t, "2.34")
	_, _, c := observe(t, n, Options{Installables: []string{flake(t, `{ packages.x86_64-linux = { a = d "a"; b = d "b"; }; }`)}, Workers: 4})
	if c.started > 2 {
		t.Errorf("%d evaluators for two attributes", c.started)
	}
}

// Sets that abort when they are listed, one in another too.
func TestSetsThatAbort(t *testing.T) {
	n := useNix(t, "2.34")
	ref := flake(t, `{
		nixosConfigurations.a = host "a";
		homeConfigurations = let x = x; in x;
		packages = { x86_64-linux = builtins.abort "none"; aarch64-linux.b = d "b"; aarch64-darwin = throw "not wanted"; };
		checks = ({ missing }: missing) { };
		devShells.x86_64-linux.default = d "shell";
	}`)
	for _, workers := range []int{1, 3} {
		got, d, c := observe(t, n, Options{Installables: []string{ref}, Workers: workers, Systems: []string{"x86_64-linux"}})
		want := []string{
			"nixos nixosConfigurations.a build",
			"other homeConfigurations failed: infinite recursion encountered",
			"package packages.x86_64-linux failed: evaluation aborted with the following error message: 'none'",
			"check checks failed: function",
			"other devShells.x86_64-linux.default build",
		}
		got[3], _, _ = strings.Cut(got[3], " 'anonymous")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if want := []string{"packages.aarch64-darwin", "packages.aarch64-linux"}; !slices.Equal(d.Omitted, want) {
			t.Errorf("omitted are %v, want %v", d.Omitted, want)
		}
		if c.started > 10 {
			t.Errorf("%d evaluators", c.started)
		}
	}
}

func TestTimeout(t *testing.T) {
	n := useNix(t, "2.34")
	ref := flake(t, work+`{ packages.x86_64-linux = { a = d "a"; slow = busy "slow" (fib 60); z = d "z"; }; checks = builtins.seq (fib 60) { }; }`)
	got, _, _ := observe(t, n, Options{Installables: []string{ref}, Workers: 2, Timeout: 5 * time.Second})
	want := []string{
		"package packages.x86_64-linux.a build",
		"package packages.x86_64-linux.slow failed: evaluation took longer than 5s",
		"package packages.x86_64-linux.z build",
		"check checks failed: evaluation took longer than 5s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	_, err := Run(t.Context(), n, with(n, Options{Installables: []string{flake(t, work+`builtins.seq (fib 60) { }`)}, Timeout: time.Second}))
	if err == nil || !strings.Contains(err.Error(), "evaluation took longer than 1s") {
		t.Errorf("a flake that takes too long: %v", err)
	}
}

// The timeout is for one attribute, not for all.
func TestTimeoutOfEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := []string{`root {"n":3,"path":["packages"]}`, `found {"path":["packages"],"wanted":true}`,
			`names ["x86_64-linux"]`, `entered {"path":["packages"]}`, `names ["a","b","c"]`, `entered {"path":["packages","x86_64-linux"]}`}
		for _, attr := range []string{"a", "b", "c"} {
			events = append(events, healthy(attr).events(t)...)
		}
		start := time.Now()
		d, err := Run(t.Context(), &fakeEvaluator{events: append(events, "done null"), each: time.Minute}, Options{Systems: []string{"x86_64-linux"}, System: "x86_64-linux", Timeout: 5 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 10*time.Minute {
			t.Errorf("it took only %v", took)
		}
		for _, target := range d.Targets {
			if target.State != job.StateBuild {
				t.Errorf("%s: %s", target.Attr, target.Error)
			}
		}
		if len(d.Targets) != 3 {
			t.Errorf("there are %d targets", len(d.Targets))
		}
	})
}

func TestMemoryLimit(t *testing.T) {
	for _, version := range []string{"2.34", "2.26", "2.8"} {
		t.Run(version, func(t *testing.T) {
			n := useNix(t, version)
			ref := flake(t, work+`{ packages.x86_64-linux = { a = d "a"; hungry = busy "hungry" (grow 40000); z = d "z"; }; }`)
			for _, workers := range []int{1, 2} {
				got, _, c := observe(t, n, Options{Installables: []string{ref + "#packages"}, Workers: workers, MemoryLimit: 256 << 20})
				want := []string{
					"package packages.x86_64-linux.a build",
					"package packages.x86_64-linux.hungry failed: needs more than 256 MiB to evaluate. Raise eval_memory",
					"package packages.x86_64-linux.z build",
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
				if c.started > 10 {
					t.Errorf("%d evaluators", c.started)
				}
			}
		})
	}
}

// Attributes that together need too much memory, but none alone, do not fail.
func TestMemoryOfMany(t *testing.T) {
	n := useNix(t, "2.34")
	ref := flake(t, work+`let
		kept = builtins.mapAttrs (_: n: builtins.genList (x: { inherit x; y = x + n; }) 700000) { a = 1; b = 2; c = 3; d = 4; e = 5; f = 6; };
	in { packages.x86_64-linux = builtins.mapAttrs (n: _: busy n (builtins.foldl' (sum: x: sum + x.y) 0 kept.${n})) kept; }`)
	got, _, c := observe(t, n, Options{Installables: []string{ref}, Workers: 1, MemoryLimit: 400 << 20})
	for _, line := range got {
		if !strings.HasSuffix(line, " build") {
			t.Error(line)
		}
	}
	if c.started < 2 || len(got) != 6 {
		t.Errorf("%d targets by %d evaluators", len(got), c.started)
	}
}

func TestProgress(t *testing.T) {
	n := useNix(t, "2.34")
	var attrs []string
	var counts [][2]int
	o := with(n, Options{Installables: []string{flake(t, manyPackages(abortingPackages))}, Workers: 2})
	o.Progress = func(attr string) { attrs = append(attrs, attr) }
	o.Counted = func(done, total int) { counts = append(counts, [2]int{done, total}) }
	if _, err := Run(t.Context(), n, o); err != nil {
		t.Fatal(err)
	}
	for i := range 400 {
		if name := fmt.Sprintf("packages.x86_64-linux.p%03d", i); !slices.Contains(attrs, name) {
			t.Errorf("nothing of %s", name)
		}
	}
	for _, c := range counts {
		if c[0] < 0 || c[0] > c[1] {
			t.Errorf("%d of %d are done", c[0], c[1])
		}
	}
	if last := counts[len(counts)-1]; last[0] != last[1] || last[1] < 400 || last[1] > 406 {
		t.Errorf("at the end, %d of %d are done", last[0], last[1])
	}
	if !slices.ContainsFunc(counts, func(c [2]int) bool { return c[1] >= 400 && c[0] > 90 && c[0] < 110 }) {
		t.Error("the count is not live")
	}
}

// A line that several evaluators print is logged once, one that a single one prints twice is
// logged twice.
func TestLog(t *testing.T) {
	n := useNix(t, "2.34")
	ref := flake(t, `builtins.trace "the flake" { packages.x86_64-linux = { a = builtins.trace "twice" (builtins.trace "twice" (d "a")); b = throw "no"; c = d "c"; d = throw "no"; e = builtins.trace "late" (d "e"); }; }`)
	var said []string
	o := with(n, Options{Installables: []string{ref}, Workers: 1})
	o.Log = func(line string) { said = append(said, line) }
	if _, err := Run(t.Context(), n, o); err != nil {
		t.Fatal(err)
	}
	said = slices.DeleteFunc(said, func(line string) bool { return !strings.HasPrefix(line, "trace:") })
	if want := []string{"trace: the flake", "trace: twice", "trace: twice", "trace: late"}; !slices.Equal(said, want) {
		t.Errorf("it says %q, want %q", said, want)
	}
}

// The end of the context ends an evaluator that would not end by itself.
func TestCancel(t *testing.T) {
	n := useNix(t, "2.34")
	ref := flake(t, work+`{ packages.x86_64-linux.slow = busy "slow" (fib 60); }`)
	ctx, cancel := context.WithCancel(t.Context())
	o := with(n, Options{Installables: []string{ref}})
	o.Progress = func(attr string) {
		if strings.HasSuffix(attr, ".slow") {
			cancel()
		}
	}
	if _, err := Run(ctx, n, o); err == nil || ctx.Err() == nil {
		t.Errorf("got %v", err)
	}
}

func TestDefaultWorkers(t *testing.T) {
	const gib = 1 << 30
	for _, test := range []struct {
		cores  int
		memory int64
		want   int
	}{{1, 16 * gib, 1}, {2, 7 * gib, 2}, {4, 15 * gib, 4}, {4, 7 * gib, 2}, {64, 20 * gib, 6}, {4, gib, 1}, {8, 0, 2}, {0, 0, 1}} {
		if got := DefaultWorkers(test.cores, test.memory); got != test.want {
			t.Errorf("with %d cores and %d GiB: %d, want %d", test.cores, test.memory/gib, got, test.want)
		}
	}
	if got := initialHeap(16*gib, 0); got != gib {
		t.Errorf("a heap of %d", got)
	}
	if got := initialHeap(gib, 0); got != 0 {
		t.Errorf("a heap of %d with little memory", got)
	}
	if got := initialHeap(16*gib, gib); got != gib/4 {
		t.Errorf("a heap of %d below a limit", got)
	}
	if memory := machineMemory(); memory < 64<<20 {
		t.Errorf("this machine has %d bytes of memory", memory)
	}
}

func TestPositions(t *testing.T) {
	order := []position{{0, nil}, {0, []string{""}}, {0, []string{"a"}}, {0, []string{"a", "b"}}, {0, []string{"a", "c"}}, {0, []string{"a.b"}}, {0, []string{"b"}}, {1, nil}, {1, []string{"a"}}}
	for i, p := range order {
		for j, q := range order {
			if got := p.compare(q); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%v against %v: %d", p, q, got)
			}
			if got, want := (&bound{Path: p}).before(q), j >= i; got != want {
				t.Errorf("from %v, %v: %v", p, q, got)
			}
			if got, want := (&bound{Path: p, After: true}).before(q), j > i && !p.contains(q); got != want {
				t.Errorf("after %v, %v: %v", p, q, got)
			}
		}
	}
	if text := order[3].String(); text != `[0,"a","b"]` {
		t.Error(text)
	}
}
