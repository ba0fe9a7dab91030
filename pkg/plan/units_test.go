package plan_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
)

// missingOf returns what is missing for targets, with durations by name.
func (g graph) missingOf(t *testing.T, targets []job.Target, seconds map[string]float64) *plan.Missing {
	t.Helper()
	m, err := plan.FindMissing(t.Context(), targets, plan.Source{Derivations: g.derivations, Offered: offer(nil, nil)})
	if err != nil {
		t.Fatal(err)
	}
	m.Weigh(func(drv, _ string) float64 { return seconds[drvName(drv)] })
	return m
}

func drvName(drv string) string { return strings.TrimSuffix(job.DrvName(drv), ".drv") }

// unitsOf returns the entries of hosts, and units as text: their derivations, those wanted, the units
// before them and the entries that need them.
func (g graph) unitsOf(t *testing.T, seconds map[string]float64, o plan.UnitOptions, hosts ...string) []string {
	t.Helper()
	var targets []job.Target
	for _, host := range hosts {
		targets = append(targets, build(job.NixOS, host))
	}
	m := g.missingOf(t, targets, seconds)
	entries, err := plan.Entries(targets, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, u := range m.Units(entries, o) {
		var drvs, wanted []string
		for _, drv := range u.Drvs {
			drvs = append(drvs, drvName(drv))
		}
		for _, w := range u.Wanted {
			wanted = append(wanted, drvName(w.DrvPath)+"^"+strings.Join(w.Outputs, ","))
		}
		all = append(all, fmt.Sprint(strings.Join(drvs, " "), " / ", strings.Join(wanted, " "), " / after ", u.After, " for ", u.For, " / ", u.Seconds, " s, tail ", u.Tail))
	}
	return all
}

func TestUnits(t *testing.T) {
	g := graph{
		"h1": {"kernel", "web", "own"}, "h2": {"kernel", "web"}, "h3": {"kernel"},
		"kernel": {"cc", "light-source"}, "web": {"cc", "light-config", "lib^doc"}, "lib": nil,
		"cc": {"light-source"}, "light-source": nil, "light-config": {"kernel"}, "own": {"cc"},
	}
	seconds := map[string]float64{"kernel": 100, "cc": 50, "web": 20, "lib": 4, "own": 300, "h1": 1, "h2": 1, "h3": 1}
	for _, test := range []struct {
		what string
		o    plan.UnitOptions
		take map[string]float64
		want []string
	}{
		{"what hosts share", plan.UnitOptions{}, nil, []string{
			// The source is needed by both, and a trifle. lib is too light for a claim, but only web needs it.
			"cc / cc^out / after [] for [0 1 2] / 50 s, tail 351",
			"kernel / kernel^out / after [0] for [0 1 2] / 100 s, tail 125",
			"lib light-config web / web^out / after [0 1] for [0 1] / 24 s, tail 25",
		}},
		{"with helpers what one needs too", plan.UnitOptions{Helpers: 1}, nil, []string{
			"cc / cc^out / after [] for [0 1 2] / 50 s, tail 351",
			"own / own^out / after [0] for [0] / 300 s, tail 301",
			"kernel / kernel^out / after [0] for [0 1 2] / 100 s, tail 125",
			"lib light-config web / web^out / after [0 2] for [0 1] / 24 s, tail 25",
		}},
		{"too many: those that save least are nobody's", plan.UnitOptions{Most: 1}, nil, []string{"kernel / kernel^out / after [] for [0 1 2] / 100 s, tail 121"}},
		{"a light one between", plan.UnitOptions{}, map[string]float64{"cc": 3, "own": 1}, []string{
			"cc kernel light-source / cc^out kernel^out / after [] for [0 1 2] / 103 s, tail 128",
			"lib light-config web / web^out / after [0] for [0 1] / 24 s, tail 25",
		}},
		{"nothing is worth a claim", plan.UnitOptions{}, map[string]float64{"cc": 3, "own": 1, "kernel": 5, "web": 4}, nil},
	} {
		take := maps.Clone(seconds)
		maps.Copy(take, test.take)
		if diff := cmp.Diff(test.want, g.unitsOf(t, take, test.o, "h1", "h2", "h3")); diff != "" {
			t.Errorf("%s: %s", test.what, diff)
		}
	}
}

// A derivation whose path is known only after the build is in no unit, nor is one that needs it, nor
// one that hosts of several systems need.
func TestUnitsOfOneSystem(t *testing.T) {
	g := graph{"h1": {"ca", "after", "shared"}, "h2": {"ca", "after", "shared"}, "ca": {"plain"}, "after": {"ca"}, "plain": nil, "shared": nil}
	if got := g.unitsOf(t, nil, plan.UnitOptions{Helpers: 2}, "h1", "h2"); len(got) != 2 || !strings.HasPrefix(got[0], "plain") || !strings.HasPrefix(got[1], "shared") {
		t.Errorf("got %q", got)
	}
	targets := []job.Target{build(job.NixOS, "h1"), build(job.NixOS, "h2"), build(job.NixOS, "h3")}
	g["h3"] = []string{"shared"}
	targets[2].System = "aarch64-linux"
	m := g.missingOf(t, targets, nil)
	entries, err := plan.Entries(targets, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	units := m.Units(entries, plan.UnitOptions{})
	if len(units) != 1 || drvName(units[0].Drvs[0]) != "plain" {
		t.Errorf("got %+v", units)
	}
}

// A wide graph becomes about as many units as the jobs can take in a few rounds, a chain one.
func TestUnitsSize(t *testing.T) {
	g := graph{"wide": nil}
	for i := range 400 {
		leaf := fmt.Sprint("leaf", i)
		g[leaf], g["wide"] = nil, append(g["wide"], leaf)
	}
	if got := g.unitsOf(t, nil, plan.UnitOptions{Helpers: 7}, "wide"); len(got) < 100 || len(got) > 140 {
		t.Errorf("wide: %d units", len(got))
	}
	g["deep"] = []string{g.chain("link", 100)}
	if got := g.unitsOf(t, nil, plan.UnitOptions{Helpers: 7}, "deep"); len(got) != 1 {
		t.Errorf("deep: %d units", len(got))
	}
}

// Parts that only one entry needs are built once too, however light: with helpers, all are in units.
func TestUnitsOfLight(t *testing.T) {
	const layers, width = 5, 40
	g, seconds := graph{"host": nil}, map[string]float64{}
	name := func(layer, i int) string { return fmt.Sprintf("layer%dpart%d", layer, i%width) }
	for layer := range layers {
		for i := range width {
			part := name(layer, i)
			g["host"], seconds[part] = append(g["host"], part), float64(1+(layer+i)%4)
			if g[part] = nil; layer > 0 {
				g[part] = []string{name(layer-1, i), name(layer-1, i+1)}
			}
		}
	}
	_, units, _ := g.share(t, seconds, []job.Target{build(job.NixOS, "host")}, plan.Options{Helpers: 7})
	in := map[string]bool{}
	for _, u := range units {
		for _, drv := range u.Drvs {
			in[drvName(drv)] = true
		}
	}
	for part := range seconds {
		if !in[part] {
			t.Errorf("%s is in no unit", part)
		}
	}
}

// randomFleet returns random targets with their entries, what they need, and how long some of it takes.
func randomFleet(t *testing.T, random *rand.Rand) (g graph, seconds map[string]float64, targets []job.Target, entries []job.Entry) {
	t.Helper()
	g, seconds = randomGraph(random), map[string]float64{}
	for name := range g {
		if random.IntN(3) > 0 {
			seconds[name] = float64(random.IntN(40))
		}
	}
	for i := range 2 + random.IntN(8) {
		target := build([]job.Kind{job.NixOS, job.Package}[random.IntN(2)], fmt.Sprint("n", i))
		target.System = []string{"x86_64-linux", "x86_64-linux", "x86_64-linux", "aarch64-linux"}[random.IntN(4)]
		targets = append(targets, target)
	}
	entries, err := plan.Entries(targets, plan.Options{JobsPerSystem: 1 + random.IntN(4)})
	if err != nil {
		t.Fatal(err)
	}
	return g, seconds, targets, entries
}

// checkParses fails if the Plan is not one that a job would read.
func checkParses(t *testing.T, seed uint64, p *job.Plan) {
	t.Helper()
	data, err := p.Marshal()
	if err == nil {
		_, err = job.ParsePlan(data)
	}
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
}

// Units hold what they promise, on random graphs.
func TestUnitsOfAny(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		g, seconds, targets, entries := randomFleet(t, random)
		o := plan.UnitOptions{Helpers: random.IntN(3), Most: []int{0, 0, 3, 64}[random.IntN(4)]}
		units := g.missingOf(t, targets, seconds).Units(entries, o)
		if diff := cmp.Diff(units, g.missingOf(t, targets, seconds).Units(entries, o)); diff != "" {
			t.Fatalf("seed %d: not the same again: %s", seed, diff)
		}
		p := &job.Plan{Version: job.Version, ID: "test", Targets: targets, Entries: entries, Units: units, Beat: 60}
		checkParses(t, seed, p)
		checkUnits(t, fmt.Sprint("seed ", seed), g, seconds, p, o, 10)

		// So do those that are chosen by simulation, with private ones where they pay.
		shared := plan.Options{Missing: g.missingOf(t, targets, seconds), Helpers: []int{0, 0, 1, plan.HelpersAuto}[random.IntN(4)]}
		p.Units, _ = plan.Share(entries, shared)
		if again, _ := plan.Share(entries, shared); cmp.Diff(p.Units, again) != "" {
			t.Fatalf("seed %d: not the same again: %s", seed, cmp.Diff(p.Units, again))
		}
		checkParses(t, seed, p)
		checkUnits(t, fmt.Sprint("seed ", seed, ", shared"), g, seconds, p, plan.UnitOptions{Helpers: 1}, 10)
		if t.Failed() {
			return
		}
	}
}

// randomGraph has derivations n0 to n59, of which each may need later ones, trifles, and a few whose
// paths are known only after the build.
func randomGraph(random *rand.Rand) graph {
	const size = 60
	name := func(i int) string {
		switch {
		case i%29 == 28:
			return fmt.Sprint("ca", i)
		case i%5 == 4 && i > 10:
			return fmt.Sprint("light", i)
		}
		return fmt.Sprint("n", i)
	}
	g := graph{}
	density := 5 + random.IntN(30)
	for i := range size {
		g[name(i)] = nil
		for j := i + 1; j < size; j++ {
			if random.IntN(density) == 0 {
				g[name(i)] = append(g[name(i)], name(j)+[]string{"", "^doc"}[random.IntN(2)])
			}
		}
	}
	return g
}

// inputs are the names of what a derivation needs.
func (g graph) inputs(name string) []string {
	var all []string
	for _, input := range g[name] {
		input, _, _ = strings.Cut(input, "^")
		all = append(all, input)
	}
	return all
}

// below adds what a derivation needs, and itself.
func (g graph) below(all map[string]bool, name string) {
	if all[name] {
		return
	}
	all[name] = true
	for _, input := range g.inputs(name) {
		g.below(all, input)
	}
}

// checkUnits fails unless the units of a plan hold what Missing.Units promises. least is the least time of one.
func checkUnits(t *testing.T, what string, g graph, seconds map[string]float64, p *job.Plan, o plan.UnitOptions, least float64) {
	t.Helper()
	needers := map[string][]int{}
	target := map[string]bool{}
	for i, e := range p.Entries {
		all := map[string]bool{}
		for _, ref := range e.Targets {
			target[drvName(ref.DrvPath)] = true
			g.below(all, drvName(ref.DrvPath))
		}
		for name := range all {
			needers[name] = append(needers[name], i)
		}
	}
	unitOf := map[string]int{}
	systems := map[string]int{}
	for n, u := range p.Units {
		systems[u.System]++
		for _, drv := range u.Drvs {
			name := drvName(drv)
			if other, twice := unitOf[name]; twice {
				t.Errorf("%s: %s is in the units %d and %d", what, name, other, n)
			}
			unitOf[name] = n
		}
	}
	for system, count := range systems {
		if most := map[int]int{0: 1024, 64: 64, 3: 3}[o.Most]; count > most {
			t.Errorf("%s: %d units for %s", what, count, system)
		}
	}
	weight := func(name string) float64 {
		if strings.HasPrefix(name, "light") {
			return 0
		}
		return map[bool]float64{true: seconds[name], false: 10}[seconds[name] > 0]
	}
	for i, e := range p.Entries {
		direct := map[int]bool{}
		for _, ref := range e.Targets {
			if unit, ok := unitOf[drvName(ref.DrvPath)]; ok {
				direct[unit] = true
			} else {
				g.unitsBelow(direct, unitOf, map[string]bool{}, -1, drvName(ref.DrvPath))
			}
		}
		for n, u := range p.Units {
			if slices.Contains(u.Direct, i) != direct[n] {
				t.Errorf("%s: unit %d is direct for %d, but for %d that is %v", what, n, u.Direct, i, direct[n])
			}
		}
	}
	for n, u := range p.Units {
		sum := 0.0
		after := map[int]bool{}
		wanted := map[string]bool{}
		for _, w := range u.Wanted {
			wanted[drvName(w.DrvPath)] = true
		}
		for _, drv := range u.Drvs {
			name := drvName(drv)
			sum += weight(name)
			if !slices.Equal(needers[name], u.For) {
				t.Errorf("%s: unit %d is for %d, but %v need %s", what, n, u.For, needers[name], name)
			}
			all := map[string]bool{}
			g.below(all, name)
			for below := range all {
				if strings.HasPrefix(below, "ca") {
					t.Errorf("%s: unit %d has %s, which needs %s", what, n, name, below)
				}
			}
			g.unitsBelow(after, unitOf, map[string]bool{}, n, name)
		}
		for name := range g {
			for _, input := range g.inputs(name) {
				if unit, ok := unitOf[input]; ok && unit == n && len(needers[name]) > 0 {
					if other, ok := unitOf[name]; (!ok || other != n) && !wanted[input] {
						t.Errorf("%s: unit %d does not hand over %s, which %s needs", what, n, input, name)
					}
				}
			}
		}
		for name := range target {
			if unit, ok := unitOf[name]; ok && unit == n && !wanted[name] {
				t.Errorf("%s: unit %d does not hand over the target %s", what, n, name)
			}
		}
		if got := slices.Sorted(maps.Keys(after)); !slices.Equal(got, u.After) {
			t.Errorf("%s: unit %d is after %d, want %d", what, n, u.After, got)
		}
		if sum != u.Seconds {
			t.Errorf("%s: unit %d takes %v s, want %v", what, n, u.Seconds, sum)
		}
		if private := len(u.For) == 1; sum < least && !private || sum < min(least, 1) {
			t.Errorf("%s: unit %d takes only %v s", what, n, sum)
		}
		for _, before := range u.After {
			if b := p.Units[before]; b.Tail < b.Seconds+u.Tail || before >= n {
				t.Errorf("%s: unit %d has the tail %v, after %d with %v", what, n, u.Tail, before, b.Tail)
			}
		}
		if len(u.For) < 2 && o.Helpers == 0 {
			t.Errorf("%s: unit %d is for %d alone", what, n, u.For)
		}
		// The only target of its entry is built there, unless something else waits for it.
		if len(u.For) == 1 && len(p.Entries[u.For[0]].Targets) == 1 {
			only := drvName(p.Entries[u.For[0]].Targets[0].DrvPath)
			waits := slices.ContainsFunc(slices.Collect(maps.Keys(g)), func(name string) bool {
				return len(needers[name]) > 0 && slices.Contains(g.inputs(name), only)
			})
			if unit, ok := unitOf[only]; ok && unit == n && !waits {
				t.Errorf("%s: unit %d has %s, for which only its own entry waits", what, n, only)
			}
		}
		for _, e := range u.For {
			if p.Entries[e].System != u.System {
				t.Errorf("%s: unit %d is for %s and for %s", what, n, u.System, p.Entries[e].System)
			}
		}
	}
}

// unitsBelow adds the other units that a derivation needs, with none between.
func (g graph) unitsBelow(all map[int]bool, unitOf map[string]int, seen map[string]bool, unit int, name string) {
	for _, input := range g.inputs(name) {
		other, ok := unitOf[input]
		switch {
		case ok && other != unit:
			all[other] = true
		case !ok && !seen[input]:
			seen[input] = true
			g.unitsBelow(all, unitOf, seen, unit, input)
		}
	}
}
