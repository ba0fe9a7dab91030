package evaluate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/nix"
)

// uncaught starts evaluators that end at the first throw.
type uncaught struct{ Evaluator }

func (u uncaught) Eval(ctx context.Context, e nix.Evaluation, line func(string) bool) error {
	e.Apply = strings.Replace(e.Apply, "catch = true; }", "catch = false; }", 1)
	return u.Evaluator.Eval(ctx, e, line)
}

// A throw has the same message as one that ends an evaluator, without the cost of one.
func TestThrown(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `let
			many = builtins.listToAttrs (builtins.genList (n: rec { name = "p${toString (100 + n)}"; value = if n / 3 * 3 == n then throw "${name} is gone" else d name; }) 60);
			lines = "one\n\n         two «error: three» \"four\" ]\n  at /nowhere:1:1:\n\\five é";
		in {
			nixosConfigurations.broken = throw lines;
			nixosConfigurations.fine = host "fine";
			homeConfigurations = throw "no homes";
			packages.x86_64-linux = many // {
				a = throw "";
				assertion = assert false; d "x";
				comparison = assert 1 == 2; d "x";
				context = builtins.addErrorContext "while here" (d (builtins.addErrorContext "while there" (throw "in context")));
				drv = d "drv" // { drvPath = throw lines; };
				escape = throw "${builtins.fromJSON "\"\\u001b\""}[31mred";
				name = d "x" // { name = throw "no name"; };
				set = builtins.listToAttrs [ { name = throw "no such set"; value = 1; } ];
				z = d "z";
			};
			hydraJobs = { nested = { x = throw "x"; y = d "y"; }; throws = throw "y"; };
		}`)
		o := Options{Installables: []string{ref, ref + "#hydraJobs"}, Workers: 1}
		want, err := Run(t.Context(), uncaught{n}, with(n, o))
		if err != nil {
			t.Fatal(err)
		}
		got, d, c := observe(t, n, o)
		if diff := cmp.Diff(want, d); diff != "" {
			t.Errorf("the messages are others:\n%s", diff)
		}
		if len(got) != 75 || !slices.Contains(got, "package packages.x86_64-linux.p103 failed: p103 is gone") {
			t.Errorf("%d targets: %v", len(got), got)
		}
		// One for all, and one more for the place of the assertion.
		if n.EvaluatesWholeFlakes() && c.started != 2 {
			t.Errorf("%d evaluators were started", c.started)
		}
		o.Workers = 3
		if _, again, _ := observe(t, n, o); !cmp.Equal(want, again) {
			t.Errorf("three find something else:\n%s", cmp.Diff(want, again))
		}
	})
}

// A throw in an evaluator that ends later, for any reason, still has its message.
func TestThrownBeforeTheEnd(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, work+`{ packages.x86_64-linux = {
			a = throw "a"; b = d "b"; c = throw "c"; d = builtins.abort "d"; e = throw "e"; f = let x = x; in x; g = d "g"; h = throw "h"; i = busy "i" (grow 40000); j = throw "j"; k = d "k";
		}; }`)
		got, d, c := observe(t, n, Options{Installables: []string{ref + "#packages"}, Workers: 1, MemoryLimit: 256 << 20})
		var want []string
		for name, state := range map[string]string{
			"a": "failed: a", "b": "build", "c": "failed: c", "d": "failed: evaluation aborted with the following error message: 'd'", "e": "failed: e",
			"f": "failed: infinite recursion encountered", "g": "build", "h": "failed: h", "i": "failed: needs more than 256 MiB to evaluate. Raise eval_memory", "j": "failed: j", "k": "build",
		} {
			want = append(want, "package packages.x86_64-linux."+name+" "+state)
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" || d.Incomplete {
			t.Errorf("incomplete %v:\n%s", d.Incomplete, diff)
		}
		// Four walks, perhaps one of them once more for its memory, and one for the messages.
		if n.EvaluatesWholeFlakes() && (c.started < 5 || c.started > 6) {
			t.Errorf("%d evaluators were started", c.started)
		}
	})
}

// The first assertions have their position, the others only lack that.
func TestManyAssertions(t *testing.T) {
	n := useNix(t, "2.34")
	ref := flake(t, `{ packages.x86_64-linux = builtins.listToAttrs (builtins.genList (n: { name = "p${toString (100 + n)}"; value = assert false; d "x"; }) 50); }`)
	got, d, c := observe(t, n, Options{Installables: []string{ref + "#packages"}, Workers: 1})
	places := 0
	for i, line := range got {
		if line != fmt.Sprintf("package packages.x86_64-linux.p%d failed: assertion 'false' failed", 100+i) {
			t.Error(line)
		}
		if strings.Contains(d.Targets[i].Error, "flake.nix:") {
			places++
		}
	}
	if len(got) != 50 || places != maxLocated || c.started != 1+maxLocated {
		t.Errorf("%d targets, %d with a place, %d evaluators", len(got), places, c.started)
	}
}

// A message is complete even if it contains the beginning of another one.
func TestThrownErrors(t *testing.T) {
	n := useNix(t, "2.34")
	_, d, _ := observe(t, n, Options{Installables: []string{flake(t, `{ packages.x86_64-linux.a = throw "it failed:\nerror: one\nerror: two\n"; }`)}})
	if got, want := d.Targets[0].Error, "it failed:\nerror: one\nerror: two"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Messages are found however Nix's output is cut into pieces, and however long they are.
func TestMessages(t *testing.T) {
	long := strings.Repeat("x", 3*maxMessage)
	output := `[ "N" «error: one» "N" null "N" «error: "n" » "M" ]
three» "N" «error: ` + long + `» "N" «error:   last » ]` + "\n"
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 100 {
		m := newMessages("N")
		for rest := []byte(output); len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(1+r.IntN(50000)))
			if _, err := m.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
			if len(m.part) > 2*maxMessage {
				t.Fatalf("%d bytes are kept", len(m.part))
			}
		}
		want := map[int]string{0: "one", 2: "\"n\" » \"M\" ]\nthree", 3: long[:16000], 4: "last"}
		found := m.end()
		found[3] = found[3][:16000]
		if diff := cmp.Diff(want, found); diff != "" {
			t.Fatal(diff)
		}
	}
	if found := newMessages("N").end(); len(found) > 0 {
		t.Errorf("nothing has the messages %v", found)
	}
}
