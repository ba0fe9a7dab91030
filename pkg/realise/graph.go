package realise

import (
	"net/url"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/derivation"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/job"
)

// A graph holds the dependencies of derivations in the store. It reads each derivation once,
// and none before a failure, because a machine has thousands of them.
type graph struct {
	store    Store
	nodes    map[string]*node
	closed   map[string]map[string]bool // dependencies of targets
	byOutput map[string][]string        // the derivations of an output
}

// A node is the part of a derivation that is needed here. It is empty if the derivation cannot
// be read.
type node struct {
	inputs  map[string][]string // derivations with the outputs that it needs of them
	outputs []string            // paths
	fixed   bool                // the hash of its output is known, so that it may use the network
	impure  bool                // each build has other outputs, which the store does not remember
	system  string              // of its builder
	builtin bool                // the builder is Nix itself, on any system
	host    string              // from which it fetches, if known
}

func newGraph(store Store) *graph {
	return &graph{store: store, nodes: map[string]*node{}, closed: map[string]map[string]bool{}, byOutput: map[string][]string{}}
}

func (g *graph) node(drv string) *node {
	if n := g.nodes[drv]; n != nil {
		return n
	}
	n := &node{}
	g.nodes[drv] = n
	d, err := g.store.Derivation(drv)
	if err != nil {
		return n // it is not in the store, so it was not built
	}
	n.inputs, n.system, n.builtin = d.InputDerivations, d.Platform, strings.HasPrefix(d.Builder, "builtin:")
	for _, output := range d.Outputs {
		n.impure = output.Hash == impureHash // all of them or none
		if output.Path != "" {
			n.outputs = append(n.outputs, output.Path)
			g.byOutput[output.Path] = append(g.byOutput[output.Path], drv)
		}
	}
	if out, ok := d.Outputs["out"]; ok && out.Hash != "" && !n.impure {
		n.fixed, n.host = true, fetchHost(d)
	}
	return n
}

// needs returns the derivations that a derivation needs, itself included.
func (g *graph) needs(drv string) map[string]bool {
	if needs := g.closed[drv]; needs != nil {
		return needs
	}
	needs := map[string]bool{drv: true}
	for todo := []string{drv}; len(todo) > 0; {
		n := g.node(todo[len(todo)-1])
		todo = todo[:len(todo)-1]
		for input := range n.inputs {
			if !needs[input] {
				needs[input] = true
				todo = append(todo, input)
			}
		}
	}
	g.closed[drv] = needs
	return needs
}

// owners returns the derivations that a store path is or is an output of.
func (g *graph) owners(path string) []string {
	if strings.HasSuffix(path, ".drv") {
		return []string{path}
	}
	return g.byOutput[path]
}

// matching returns those of the needed derivations that a derivation is or stands for: in place
// of a derivation with content-addressed inputs, Nix builds one with the inputs' paths filled
// in, which has the same name and which no other derivation needs.
func (g *graph) matching(needs map[string]bool, drv string) []string {
	if needs[drv] {
		return []string{drv}
	}
	for _, known := range g.closed {
		if known[drv] {
			return nil
		}
	}
	var same []string
	for needed := range needs {
		if job.DrvName(needed) == job.DrvName(drv) {
			same = append(same, needed)
		}
	}
	return same
}

// urls matches addresses in a derivation's variables, or in its structured attributes.
var urls = lazyregexp.New(`\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'\\<>]+`)

// fetchHost returns the host that a derivation fetches from first: gnu for mirror://gnu/.
func fetchHost(d *derivation.Derivation) string {
	for _, name := range []string{"url", "urls", "__json"} {
		for _, address := range urls().FindAllString(d.Env[name], 1) {
			if u, err := url.Parse(address); err == nil && u.Hostname() != "" {
				return u.Hostname()
			}
		}
	}
	return ""
}

// A frontier selects the derivations that are still to be realised of those that Nix would
// build.
type frontier struct {
	*graph
	toBuild map[string]bool
	givenUp map[string]bool // failed, or not to be tried
	lost    map[string]bool // whether derivations depend on those that are given up
	outputs map[string][]string
	order   []string
}

// add adds a derivation that depends on none that is given up, else, if deep, its
// dependencies.
func (f *frontier) add(drv string, outputs []string, deep bool) {
	switch {
	case !f.toBuild[drv] || f.givenUp[drv]:
		return
	case !f.hopeless(drv):
		if f.outputs[drv] == nil {
			f.order = append(f.order, drv)
		}
		for _, output := range outputs {
			if !slices.Contains(f.outputs[drv], output) {
				f.outputs[drv] = append(f.outputs[drv], output)
			}
		}
		return
	case !deep || f.outputs[drv] != nil: // or it was added before
		return
	}
	f.outputs[drv] = []string{}
	inputs := f.node(drv).inputs
	for _, input := range sorted(inputs) {
		if !f.node(input).impure { // it would be built again
			f.add(input, inputs[input], true)
		}
	}
}

// hopeless reports whether a derivation has to be built from one that is given up.
func (f *frontier) hopeless(drv string) bool {
	if !f.toBuild[drv] {
		return false // it is valid, or can be fetched
	}
	lost, known := f.lost[drv]
	if known {
		return lost
	}
	lost = f.givenUp[drv]
	f.lost[drv] = lost
	for input := range f.node(drv).inputs {
		lost = f.hopeless(input) || lost
	}
	f.lost[drv] = lost
	return lost
}

// wanted returns the selected outputs, as for Realise.
func (f *frontier) wanted() []string {
	all := make([]string, len(f.order))
	for i, drv := range f.order {
		all[i] = drv + "!" + strings.Join(f.outputs[drv], ",")
	}
	return all
}

func sorted(m map[string][]string) []string {
	all := make([]string, 0, len(m))
	for key := range m {
		all = append(all, key)
	}
	slices.Sort(all)
	return all
}
