// Package simulate plans and simulates runs over graphs of derivations that have the shape of real ones,
// so that the parameters by which units are cut can be chosen, and so that a change for the worse is seen.
package simulate

import (
	"bufio"
	"compress/gzip"
	"context"
	_ "embed"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
)

// A Graph has derivations, each after its inputs.
type Graph struct {
	Name    string
	Seconds []float64 // 0 for trifles
	Inputs  [][]int
	Hosts   [][]int // what each host needs
}

func (g *Graph) add(seconds float64, inputs ...int) int {
	g.Seconds, g.Inputs = append(g.Seconds, math.Round(seconds)), append(g.Inputs, inputs)
	return len(g.Seconds) - 1
}

// randomOf returns numbers that are the same for a kind of graph and its size.
func randomOf(kind, size int) *rand.Rand {
	return rand.New(rand.NewPCG(uint64(kind), uint64(size))) //nolint:gosec // they are no secret
}

// recorded has the shape of twelve machines of a distribution: desktops, servers and workstations. Each
// is a line of what it needs, each package a line of its seconds, by the root of its size, and of
// how many lines before it its inputs are. Packages that need each other are one.
//
//go:embed recorded.txt.gz
var recorded string

// Recorded returns the graph of a real package set for so many hosts, of which every thirteenth and
// later one has the packages of an earlier one and a few of its own.
func Recorded(hosts int) *Graph {
	g := &Graph{Name: fmt.Sprintf("%d hosts of 1,543 packages, recorded", hosts)}
	r, err := gzip.NewReader(strings.NewReader(recorded))
	if err != nil {
		panic(err) // it is a part of the program
	}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		words := strings.Fields(lines.Text())
		var numbers []int
		for _, word := range words[1:] {
			n, _ := strconv.Atoi(word)
			numbers = append(numbers, n)
		}
		if words[0] == "host" {
			g.Hosts = append(g.Hosts, numbers)
			continue
		}
		seconds, _ := strconv.ParseFloat(words[0], 64)
		for i := range numbers {
			numbers[i] = len(g.Seconds) - numbers[i]
		}
		g.add(seconds, numbers...)
	}
	random := randomOf(1, hosts)
	known := len(g.Hosts)
	for len(g.Hosts) < hosts {
		like := g.Hosts[len(g.Hosts)%known]
		g.Hosts = append(g.Hosts, append(append([]int{}, like...), g.add(60*random.ExpFloat64(), like[0]), g.add(60*random.ExpFloat64(), like[0])))
	}
	g.Hosts = g.Hosts[:hosts]
	return g
}

// Packages returns a graph like a package set: most packages need few others, some of which
// nearly all need; most take seconds, a few an hour; a quarter are downloads.
func Packages(count, hosts int) *Graph {
	g := &Graph{Name: fmt.Sprintf("%d hosts of %d packages, generated", hosts, count)}
	random := randomOf(2, count*hosts)
	for n := range count {
		if n%4 == 0 {
			g.add(0)
			continue
		}
		inputs := map[int]bool{n - n%4: true}
		for range 1 + random.IntN(6) {
			// Early packages are needed by many, and the others by what comes soon after them.
			if random.IntN(2) == 0 {
				inputs[int(float64(n)*math.Pow(random.Float64(), 4))] = true
			} else {
				inputs[max(0, n-1-random.IntN(max(1, count/20)))] = true
			}
		}
		g.add(min(3600, 5*math.Exp(1.4*random.NormFloat64())), slices.Sorted(maps.Keys(inputs))...)
	}
	// A host has the base and some roles, such as that of a desktop or of a web server.
	roles := make([][]int, 2+hosts/4)
	for i := range roles {
		for range 8 {
			roles[i] = append(roles[i], count/8+random.IntN(count*7/8))
		}
	}
	for range hosts {
		needs := slices.Clone(roles[0])
		for range 2 {
			needs = append(needs, roles[1+random.IntN(len(roles)-1)]...)
		}
		slices.Sort(needs)
		g.Hosts = append(g.Hosts, slices.Compact(needs))
	}
	return g
}

// Fleet returns hosts that share a kernel, a toolchain and three services, with a
// little of their own each.
func Fleet(hosts int) *Graph {
	g := &Graph{Name: fmt.Sprintf("%d hosts that share a kernel, a toolchain and three services", hosts)}
	random := randomOf(3, hosts)
	toolchain := g.add(300)
	kernel := g.add(900, toolchain)
	modules := []int{g.add(60, kernel), g.add(90, kernel)}
	services := []int{g.add(240, toolchain), g.add(120, toolchain), g.add(180, toolchain)}
	for host := range hosts {
		needs := []int{kernel, modules[host%2], services[host%3], services[(host+1)%3]}
		for range 5 + random.IntN(20) {
			needs = append(needs, g.add(1+4*random.ExpFloat64(), toolchain))
		}
		g.Hosts = append(g.Hosts, needs)
	}
	return g
}

// Single returns a host with so many derivations of 1 to 4 s, in layers of which each needs two of the one
// below.
func Single(count int) *Graph {
	g := &Graph{Name: fmt.Sprintf("one host with %d derivations of 1 to 4 s", count)}
	const layer = 40
	var top []int
	for n := range count {
		var inputs []int
		if n >= layer {
			below := n/layer*layer - layer
			inputs = []int{below + n%layer, below + (n+1)%layer}
		}
		top = append(top, g.add(float64(1+(n/layer+n%layer)%4), inputs...))
	}
	g.Hosts = [][]int{top}
	return g
}

func drv(n int) string { return fmt.Sprintf("/nix/store/%032d-n%d.drv", n, n) }

// Plan returns what is missing for the hosts of a graph, where nothing is available, and their
// entries.
func (g *Graph) Plan(ctx context.Context) (*plan.Missing, []job.Entry, error) {
	all := make(map[string]int, len(g.Seconds))
	var targets []job.Target
	inputs := append([][]int{}, g.Inputs...)
	for host, needs := range g.Hosts {
		name := fmt.Sprint("host", host)
		targets = append(targets, job.Target{
			Attr: name, Name: name, Kind: job.NixOS, Host: name, System: "x86_64-linux", DrvPath: drv(len(inputs)), Outputs: []string{"out"}, State: job.StateBuild,
		})
		inputs = append(inputs, needs)
	}
	for n := range inputs {
		all[drv(n)] = n
	}
	seconds := func(drv string) float64 {
		if n := all[drv]; n < len(g.Seconds) {
			return g.Seconds[n]
		}
		return 0
	}
	missing, err := plan.FindMissing(ctx, targets, plan.Source{
		Derivations: func(_ context.Context, drvs []string) ([]nix.Derivation, error) {
			found := make([]nix.Derivation, len(drvs))
			for i, path := range drvs {
				found[i] = nix.Derivation{Outputs: map[string]string{"out": path + "-out"}, Inputs: map[string][]string{}, Known: true, Light: seconds(path) == 0}
				for _, input := range inputs[all[path]] {
					found[i].Inputs[drv(input)] = []string{"out"}
				}
			}
			return found, nil
		},
		Offered: func(context.Context, []string) (map[string]bool, error) { return nil, nil },
	})
	if err != nil {
		return nil, nil, err
	}
	missing.Weigh(func(drv, _ string) float64 { return seconds(drv) })
	entries, err := plan.Entries(targets, plan.Options{Missing: missing})
	return missing, entries, err
}
