package plan_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
)

// A fleet in which groups of packages share dependencies, and hosts others.
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

// packageEntries returns the targets of the entries that are no hosts.
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

// If the packages had too many entries, they have fewer.
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

// For random targets, each is in exactly one entry, hosts alone unless there are too many, the
// same derivation in one entry, with no more entries than allowed; and the result is the same
// each time.
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

// Derivations with a long known duration weigh more, are spread, and come first.
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
