package plan_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
)

// A graph has the inputs of derivations, by name. An input stands for its output
// "out", or has another behind a ^, or is without one all of them, as in "lib^".
type graph map[string][]string

func drvOf(name string) string { return "/nix/store/" + strings.Repeat("0", 32) + "-" + name + ".drv" }

// outOf is the output of a derivation; that of one whose name begins with ca is not
// known.
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

// offer gives what is offered, by the names of derivations, or NAME^OUTPUT. asked
// are the paths that each call asks for.
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

// build is a target that is to be built.
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

// Nothing is asked for twice, and a deep graph takes few questions, though it is
// narrow.
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
	if len(seen) != depth+1 || len(asked) > 5 {
		t.Errorf("%d paths were asked for in %d goes", len(seen), len(asked))
	}
}

// Nobody is asked for what lies below something that is known to be offered.
func TestFindMissingAsksNoMore(t *testing.T) {
	g := graph{"top": {"m", "lib"}, "m": {"z"}, "z": {"lib"}, "lib": {"below"}, "below": nil}
	offered := []string{"lib"}
	for i := range 300 { // so that this level is asked for alone
		name := fmt.Sprint("n", i)
		g[name], g["top"], offered = nil, append(g["top"], name), append(offered, name)
	}
	var asked [][]string
	m, err := plan.FindMissing(t.Context(), []job.Target{build(job.Package, "top")}, plan.Source{Derivations: g.derivations, Offered: offer(offered, &asked)})
	if err != nil || m.Count() != 3 {
		t.Errorf("%d are missing, %v", m.Count(), err)
	}
	if len(asked) != 2 || !cmp.Equal(asked[1], []string{outOf("z", "out")}) {
		t.Errorf("%d goes, the last for %q", len(asked), asked[len(asked)-1])
	}
}

// What is missing is what the definition says, whatever the graph.
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

// chain adds derivations that need each other, and gives the last.
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

// A fleet in which groups of packages need the same thing, and hosts another.
func shares(groups, each, base, hosts, host int) (graph, []job.Target) {
	g := graph{}
	var targets []job.Target
	for h := range hosts {
		name := fmt.Sprint("host", h)
		g[name] = []string{g.chain(name+"-part", host-1)}
		targets = append(targets, build(job.NixOS, name))
	}
	for i := range each {
		for n := range groups {
			name := fmt.Sprint("p", n, "-", i)
			g[name] = []string{g.chain(fmt.Sprint("base", n), base)}
			targets = append(targets, build(job.Package, name))
		}
	}
	return g, targets
}

func TestEntriesByWhatIsMissing(t *testing.T) {
	for _, test := range []struct {
		what                            string
		groups, each, base, hosts, host int
		offered                         []string
		want                            []string // the packages' entries
	}{
		{"few stay together", 4, 1, 1, 0, 0, nil, []string{"p0-0 p1-0 p2-0 p3-0"}},
		{"much is spread by what is shared", 4, 2, 20, 0, 0, nil, []string{"p0-0 p0-1", "p1-0 p1-1", "p2-0 p2-1", "p3-0 p3-1"}},
		{"what is offered does not count", 4, 2, 20, 0, 0, []string{"base0-19", "base1-19", "base2-19", "base3-19"}, []string{"p0-0 p1-0 p2-0 p3-0 p0-1 p1-1 p2-1 p3-1"}},
		{"as few as the longest host allows", 4, 2, 20, 1, 50, nil, []string{"p0-0 p2-0 p0-1 p2-1", "p1-0 p3-0 p1-1 p3-1"}},
		{"or all in one", 4, 2, 20, 1, 100, nil, []string{"p0-0 p1-0 p2-0 p3-0 p0-1 p1-1 p2-1 p3-1"}},
		{"what all share is not built twice", 1, 4, 50, 0, 0, nil, []string{"p0-0 p0-1 p0-2 p0-3"}},
		{"nor for a host that takes less", 1, 4, 50, 2, 10, nil, []string{"p0-0 p0-1 p0-2 p0-3"}},
	} {
		g, targets := shares(test.groups, test.each, test.base, test.hosts, test.host)
		m, err := plan.FindMissing(t.Context(), targets, plan.Source{Derivations: g.derivations, Offered: offer(test.offered, nil)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := plan.Entries(targets, plan.Options{Missing: m})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, packageEntries(targets, got)); diff != "" || len(got) != len(test.want)+test.hosts {
			t.Errorf("%s: %d entries\n%s", test.what, len(got), diff)
		}
	}
}

func TestEntriesShareWhatIsMissing(t *testing.T) {
	g := graph{}
	var all []job.Target
	add := func(name string, kind job.Kind, inputs ...string) {
		g[name] = inputs
		all = append(all, build(kind, name))
	}
	for _, base := range []string{"red", "blue"} {
		for i := range 4 {
			add(fmt.Sprint(base, i), job.Package, g.chain(base, 10))
		}
	}
	check := func(what string, from int, want ...string) {
		t.Helper()
		targets := all[from:]
		m, err := plan.FindMissing(t.Context(), targets, plan.Source{Derivations: g.derivations, Offered: offer(nil, nil)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := plan.Entries(targets, plan.Options{Missing: m})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, packageEntries(targets, got)); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}
	}
	check("with what it shares", 0, "red0 red1 red2 red3", "blue0 blue1 blue2 blue3")

	from := len(all)
	add("small", job.Package, g.chain("light", 10))
	add("large", job.Package, g.chain("heavy", 20))
	check("in the order of the targets", from, "small", "large")

	from = len(all)
	add("one", job.Package, g.chain("common", 50), g.chain("this", 24))
	add("two", job.Package, g.chain("common", 50), g.chain("that", 24))
	check("no second one for what is mostly shared", from, "one two")
	add("host", job.NixOS, g.chain("part", 74))
	check("but to be no later than the host", from, "one", "two")
}

// packageEntries are the targets of the entries that are no hosts.
func packageEntries(targets []job.Target, entries []job.Entry) []string {
	var all []string
	for _, e := range entries {
		var names []string
		for _, r := range e.Targets {
			names = append(names, targets[r.N].Name)
		}
		if e.Host == nil {
			all = append(all, strings.Join(names, " "))
		}
	}
	return all
}

// Where the packages' entries would be too many, there are fewer of them.
func TestEntriesFewer(t *testing.T) {
	g, targets := shares(4, 2, 20, 0, 0)
	for n := range 5 {
		name := fmt.Sprint("host", n)
		g[name] = nil
		targets = append(targets, build(job.NixOS, name))
	}
	other := build(job.Package, "other")
	g["other"], other.System = nil, "aarch64-linux"
	targets = append(targets, other)
	m, err := plan.FindMissing(t.Context(), targets, plan.Source{Derivations: g.derivations, Offered: offer(nil, nil)})
	if err != nil {
		t.Fatal(err)
	}
	for most, want := range map[int]int{256: 10, 10: 10, 9: 9, 8: 8, 7: 7, 6: 6, 4: 4, 3: 3, 2: 0, 1: 0} {
		got, err := plan.Entries(targets, plan.Options{Missing: m, MaxEntries: most})
		if (err != nil) != (want == 0) || len(got) != want {
			t.Errorf("at most %d: %d, %v", most, len(got), err)
		}
	}
}

// Each target to be built is in exactly one entry, hosts alone unless there are too
// many, the same derivation in one place, and never too many, whatever there is; and it is the
// same each time.
func TestEntriesOfAny(t *testing.T) {
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 1))
		g := graph{}
		count := 1 + random.IntN(120)
		for i := range 3 * count {
			g[fmt.Sprint("n", i)] = nil
			for range random.IntN(4) {
				if j := i + 1 + random.IntN(count); j < 3*count {
					g[fmt.Sprint("n", i)] = append(g[fmt.Sprint("n", i)], fmt.Sprint("n", j))
				}
			}
		}
		var targets []job.Target
		hosts := map[string]bool{}
		for i := range count {
			target := build([]job.Kind{job.Package, job.Check, job.NixOS}[random.IntN(3)], fmt.Sprint("n", random.IntN(2*count)))
			target.System = []string{"x86_64-linux", "aarch64-linux"}[random.IntN(2)]
			target.State = []job.State{job.StateBuild, job.StateBuild, job.StateSkip}[random.IntN(3)]
			target.Name = fmt.Sprint(target.Name, " ", i)
			if target.State == job.StateBuild && target.Kind.IsHost() {
				hosts[target.DrvPath] = true
			}
			targets = append(targets, target)
		}
		var offered []string
		for i := range 3 * count {
			if random.IntN(4) == 0 {
				offered = append(offered, fmt.Sprint("n", i))
			}
		}
		var before []job.Entry
		for again := range 3 {
			m, err := plan.FindMissing(t.Context(), targets, plan.Source{Derivations: g.derivations, Offered: offer(offered, nil)})
			if err != nil {
				t.Fatal(err)
			}
			most := len(hosts) + 2 + random.IntN(8)
			switch again {
			case 1:
				most = 256
			case 2:
				most = min(most, 4+random.IntN(len(hosts)+1)) // two systems, with hosts and without
			}
			got, err := plan.Entries(targets, plan.Options{Missing: m, MaxEntries: most, JobsPerSystem: 4})
			if err != nil || len(got) > most || len(got) > len(hosts)+2*4 {
				t.Fatalf("seed %d: %d entries with %d hosts, at most %d: %v", seed, len(got), len(hosts), most, err)
			}
			checkEntries(t, targets, got, len(hosts), again == 2)
			if again == 1 {
				before = got
			}
		}
		m, err := plan.FindMissing(t.Context(), targets, plan.Source{Derivations: g.derivations, Offered: offer(offered, nil)})
		if err != nil {
			t.Fatal(err)
		}
		after, err := plan.Entries(targets, plan.Options{Missing: m, JobsPerSystem: 4})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Fatalf("seed %d: not the same again:\n%s", seed, diff)
		}
	}
}

func checkEntries(t *testing.T, targets []job.Target, entries []job.Entry, hosts int, packed bool) {
	t.Helper()
	in, at := map[int]string{}, map[string]string{}
	for _, e := range entries {
		if e.Host != nil {
			hosts--
		}
		for i, r := range e.Targets {
			target := targets[r.N]
			if target.State != job.StateBuild || in[r.N] != "" {
				t.Fatalf("target %d is in %q and in %q", r.N, in[r.N], e.ID)
			}
			in[r.N] = e.ID
			place := target.DrvPath
			if !target.Kind.IsHost() && e.Host == nil {
				place += target.System
			}
			if at[place] == "" {
				at[place] = e.ID
			}
			if at[place] != e.ID {
				t.Fatalf("%s is in two entries", target.DrvPath)
			}
			if e.Host == nil && (target.Kind.IsHost() && !packed || !packed && (target.System != e.System || i > 0 && e.Targets[i-1].N >= r.N)) {
				t.Fatalf("target %d does not belong into %s", r.N, e.Name)
			}
		}
	}
	if hosts != 0 && !packed {
		t.Fatalf("%d hosts have no entry of their own", hosts)
	}
	for n := range targets {
		if targets[n].State == job.StateBuild && in[n] == "" {
			t.Fatalf("target %d is in no entry", n)
		}
	}
}

// What is known to take long counts for more, is not put together, and comes first.
func TestEntriesByTime(t *testing.T) {
	g := graph{"a": {"kernel"}, "b": {"chromium"}, "c": nil, "d": nil, "kernel": {"cc"}, "chromium": {"cc"}, "cc": nil}
	var targets []job.Target
	for _, name := range []string{"a", "b", "c", "d"} {
		targets = append(targets, build(job.Package, name))
	}
	targets[3].System = "aarch64-linux"
	find := func() *plan.Missing {
		t.Helper()
		m, err := plan.FindMissing(t.Context(), targets, plan.Source{Derivations: g.derivations, Offered: offer(nil, nil)})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	asked := map[string]string{}
	for _, test := range []struct {
		took map[string]float64
		want []string
	}{
		{nil, []string{"d", "a b c"}},
		{map[string]float64{"kernel": 1800, "chromium": 5000}, []string{"b", "a c", "d"}},
		{map[string]float64{"kernel": 30, "chromium": 30, "cc": 1e12}, []string{"a b c", "d"}}, // which both need
		{map[string]float64{"kernel": math.Inf(1), "chromium": math.NaN(), "c": -5}, []string{"a b c", "d"}},
	} {
		m := find()
		m.Weigh(func(drv, system string) float64 {
			asked[job.DrvName(drv)] = system
			return test.took[job.DrvName(drv)]
		})
		got, err := plan.Entries(targets, plan.Options{Missing: m})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, packageEntries(targets, got)); diff != "" {
			t.Errorf("%v: %s", test.took, diff)
		}
	}
	if want := map[string]string{"a": "x86_64-linux", "b": "x86_64-linux", "c": "x86_64-linux", "kernel": "x86_64-linux", "chromium": "x86_64-linux", "cc": "x86_64-linux", "d": "aarch64-linux"}; !maps.Equal(asked, want) {
		t.Errorf("asked is %v", asked)
	}
}
