package plan_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
)

// A graph has the inputs of derivations, by name. An input is the output "out" of a derivation,
// another one after a ^, or all outputs, as in "lib^".
type graph map[string][]string

func drvOf(name string) string { return "/nix/store/" + strings.Repeat("0", 32) + "-" + name + ".drv" }

// outOf returns the output path of a derivation; it is unknown if the name begins with ca.
func outOf(name, output string) string {
	if strings.HasPrefix(name, "ca") {
		return ""
	}
	return "/nix/store/" + strings.Repeat("1", 32) + "-" + name + "-" + output
}

func (g graph) derivations(_ context.Context, drvs []string) ([]nix.Derivation, error) {
	all := make([]nix.Derivation, len(drvs))
	var err error
	for i, drv := range drvs {
		name := strings.TrimSuffix(job.DrvName(drv), ".drv")
		inputs, ok := g[name]
		if !ok {
			err = fmt.Errorf("no %s", name)
			continue
		}
		all[i] = nix.Derivation{
			Outputs: map[string]string{"out": outOf(name, "out"), "doc": outOf(name, "doc")},
			Inputs:  map[string][]string{},
			Known:   outOf(name, "out") != "",
			Light:   strings.HasPrefix(name, "light"),
		}
		for _, input := range inputs {
			input, output, ok := strings.Cut(input, "^")
			switch drv := drvOf(input); {
			case !ok:
				all[i].Inputs[drv] = []string{"out"}
			case output == "":
				all[i].Inputs[drv] = nil
			default:
				all[i].Inputs[drv] = append(all[i].Inputs[drv], output)
			}
		}
	}
	return all, err
}

// offer returns an Offered function for names of derivations, or NAME^OUTPUT. asked gets the
// paths of each call.
func offer(names []string, asked *[][]string) func(context.Context, []string) (map[string]bool, error) {
	all := map[string]bool{}
	for _, name := range names {
		name, output, ok := strings.Cut(name, "^")
		if !ok {
			all[outOf(name, "doc")] = true
			output = "out"
		}
		all[outOf(name, output)] = true
	}
	return func(_ context.Context, paths []string) (map[string]bool, error) {
		if asked != nil {
			*asked = append(*asked, paths)
		}
		has := map[string]bool{}
		for _, path := range paths {
			if all[path] {
				has[path] = true
			}
		}
		return has, nil
	}
}

// build returns a target that is to be built.
func build(kind job.Kind, name string) job.Target {
	return job.Target{
		Attr: "packages.x86_64-linux." + name, Name: name, Kind: kind, Host: name, System: "x86_64-linux",
		DrvPath: drvOf(name), Outputs: []string{"out"}, State: job.StateBuild,
	}
}

func TestFindMissing(t *testing.T) {
	g := graph{
		"a": {"lib", "tool"}, "b": {"lib", "ca"}, "c": {"lib^doc"}, "d": {"lib^"},
		"lib": {"base"}, "tool": {"base"}, "ca": {"tool"}, "base": nil, "e": {"lost"},
	}
	for _, test := range []struct {
		what    string
		targets []string
		offered []string
		want    int
	}{
		{"all", []string{"a"}, nil, 4},
		{"nothing", []string{"a"}, []string{"a"}, 0},
		{"what is offered needs no inputs", []string{"a"}, []string{"lib", "tool"}, 1},
		{"one needs base all the same", []string{"a"}, []string{"lib"}, 3},
		{"what is shared counts once", []string{"a", "b"}, nil, 6},
		{"an unknown output is missing, and its inputs are looked at", []string{"b"}, []string{"lib", "tool"}, 2},
		{"only what is taken of it must be offered", []string{"a"}, []string{"lib^out", "tool"}, 1},
		{"another output is not", []string{"c"}, []string{"lib^out", "base"}, 2},
		{"one takes this, one that", []string{"a", "c"}, []string{"lib^out", "tool", "base"}, 3},
		{"all outputs", []string{"d"}, []string{"lib"}, 1},
		{"not all outputs", []string{"d"}, []string{"lib^out", "base"}, 2},
	} {
		var targets []job.Target
		for _, name := range test.targets {
			targets = append(targets, build(job.Package, name))
		}
		skipped := build(job.Package, "tool")
		skipped.State = job.StateSkip
		m, err := plan.FindMissing(t.Context(), append(targets, skipped), plan.Source{Derivations: g.derivations, Offered: offer(test.offered, nil)})
		if err != nil {
			t.Errorf("%s: %v", test.what, err)
		} else if m.Count() != test.want {
			t.Errorf("%s: %d are missing, want %d", test.what, m.Count(), test.want)
		}
	}

	m, err := plan.FindMissing(t.Context(), []job.Target{build(job.Package, "e"), build(job.Package, "a")}, plan.Source{Derivations: g.derivations, Offered: offer([]string{"lib", "tool"}, nil)})
	if err == nil || !strings.Contains(err.Error(), "no lost") || m.Count() != 3 {
		t.Errorf("what can't be read: %d are missing, %v", m.Count(), err)
	}
	calls := 0
	g["a"] = append(g["a"], g.chain("long", 1000))
	m, err = plan.FindMissing(t.Context(), []job.Target{build(job.Package, "a")}, plan.Source{
		Derivations: g.derivations,
		Offered: func(context.Context, []string) (map[string]bool, error) {
			calls++
			return map[string]bool{outOf("lib", "out"): true}, errors.New("nobody is there")
		},
	})
	if err == nil || err.Error() != "nobody is there" || calls != 1 || m.Count() != 1003 {
		t.Errorf("who does not answer: asked %d times, %d are missing, %v", calls, m.Count(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if m, err := plan.FindMissing(ctx, []job.Target{build(job.Package, "a")}, plan.Source{Derivations: g.derivations, Offered: offer(nil, nil)}); m != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v, %v", m, err)
	}
}

// No path is queried twice, and a deep and narrow graph takes few queries.
func TestFindMissingAsks(t *testing.T) {
	const depth = 1000
	g := graph{}
	for i := range depth {
		g[fmt.Sprint("n", i)] = []string{fmt.Sprint("n", i+1), fmt.Sprint("n", min(depth, i+7)), "n1000"}
	}
	g["n1000"] = nil
	var asked [][]string
	m, err := plan.FindMissing(t.Context(), []job.Target{build(job.Package, "n0")}, plan.Source{Derivations: g.derivations, Offered: offer([]string{"n900"}, &asked)})
	if err != nil {
		t.Fatal(err)
	}
	// n901 to n906 are reached past n900.
	if m.Count() != depth {
		t.Errorf("%d are missing", m.Count())
	}
	seen := map[string]bool{}
	for _, paths := range asked {
		for _, path := range paths {
			if seen[path] {
				t.Fatalf("%s was asked for twice", path)
			}
			seen[path] = true
		}
	}
	if len(seen) != depth+1 || len(asked) > 40 {
		t.Errorf("%d paths were asked for in %d goes", len(seen), len(asked))
	}
}

// Paths below an offered one are not queried, as for a new host with known packages.
func TestFindMissingAsksNoMore(t *testing.T) {
	g := graph{"top": {"m", "lib"}, "m": {"z"}, "z": {"lib"}, "lib": {"below"}, "below": nil}
	var asked [][]string
	m, err := plan.FindMissing(t.Context(), []job.Target{build(job.Package, "top")}, plan.Source{Derivations: g.derivations, Offered: offer([]string{"lib"}, &asked)})
	if err != nil || m.Count() != 3 {
		t.Errorf("%d are missing, %v", m.Count(), err)
	}
	want := [][]string{{outOf("top", "out")}, {outOf("m", "out"), outOf("lib", "out")}, {outOf("z", "out")}}
	if diff := cmp.Diff(want, asked, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Error(diff)
	}
}

// FindMissing agrees with the definition on random graphs.
func TestFindMissingOfAny(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		g, offered := graph{}, []string{}
		const size = 40
		name := func(i int) string {
			if i%7 == 6 {
				return fmt.Sprint("ca", i)
			}
			return fmt.Sprint("n", i)
		}
		for i := range size {
			g[name(i)] = nil
			for j := i + 1; j < size; j++ {
				if random.IntN(8) == 0 {
					g[name(i)] = append(g[name(i)], name(j)+[]string{"", "^", "^doc"}[random.IntN(3)])
				}
			}
			if random.IntN(3) == 0 {
				offered = append(offered, name(i)+[]string{"", "^out"}[random.IntN(2)])
			}
		}
		targets := []job.Target{build(job.Package, name(0)), build(job.NixOS, name(1)), build(job.Package, name(2))}
		m, err := plan.FindMissing(t.Context(), targets, plan.Source{Derivations: g.derivations, Offered: offer(offered, nil)})
		if err != nil {
			t.Fatal(err)
		}
		missing := map[string]bool{}
		for i := range 3 {
			g.walk(missing, name(i), "out", offered)
		}
		if m.Count() != len(missing) {
			t.Errorf("seed %d: %d are missing, want %q", seed, m.Count(), slices.Sorted(maps.Keys(missing)))
		}
	}
}

// walk is the definition.
func (g graph) walk(missing map[string]bool, name, output string, offered []string) {
	has := func(output string) bool {
		return !strings.HasPrefix(name, "ca") && (slices.Contains(offered, name) || slices.Contains(offered, name+"^"+output))
	}
	if has(output) || output == "" && has("out") && has("doc") || missing[name] {
		return
	}
	missing[name] = true
	for _, input := range g[name] {
		input, output, ok := strings.Cut(input, "^")
		if !ok {
			output = "out"
		}
		g.walk(missing, input, output, offered)
	}
}

// chain adds derivations of which each needs the one before, and returns the last.
func (g graph) chain(name string, length int) string {
	last := ""
	for i := range length {
		drv := fmt.Sprint(name, "-", i)
		g[drv] = nil
		if i > 0 {
			g[drv] = []string{last}
		}
		last = drv
	}
	return last
}
