package realise

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/derivation"

	"github.com/org/nix-matrix/pkg/job"
)

// A graph is what derivations of the store need. Each is read once, since that of a
// machine has thousands, and not before something failed.
type graph struct {
	store  Store
	nodes  map[string]*node
	closed map[string]map[string]bool // what targets need
	owners map[string][]string        // the derivations of an output
}

// A node is a derivation as far as it is needed here. One that can't be read is empty.
type node struct {
	inputs  map[string][]string // the outputs that it takes of others
	outputs []string            // paths
	fixed   bool                // the hash of its output is known, so that it may use the network
	impure  bool                // each of its builds makes other outputs, which nobody remembers
	system  string              // of the machine that its builder is for
	builtin bool                // the builder is Nix itself, wherever that runs
	host    string              // from which it fetches then, if that is known
}

func newGraph(store Store) *graph {
	return &graph{store: store, nodes: map[string]*node{}, closed: map[string]map[string]bool{}, owners: map[string][]string{}}
}

func (g *graph) node(drv string) *node {
	if n := g.nodes[drv]; n != nil {
		return n
	}
	n := &node{}
	g.nodes[drv] = n
	d, err := g.store.Derivation(drv)
	if err != nil {
		return n // it is not here, so nothing of it was built
	}
	n.inputs, n.system, n.builtin = d.InputDerivations, d.Platform, strings.HasPrefix(d.Builder, "builtin:")
	for _, output := range d.Outputs {
		n.impure = output.Hash == impureHash // all of them or none
		if output.Path != "" {
			n.outputs = append(n.outputs, output.Path)
			g.owners[output.Path] = append(g.owners[output.Path], drv)
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

// owner returns the derivations that a path of the store is, or is an output of.
func (g *graph) owner(path string) []string {
	if strings.HasSuffix(path, ".drv") {
		return []string{path}
	}
	return g.owners[path]
}

// among returns those of the derivations that are needed that a derivation is, or stands
// for: in place of one whose inputs have contents for names, Nix builds one with the
// inputs' paths put in, which nobody needs and which has the same name.
func (g *graph) among(needs map[string]bool, drv string) []string {
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

// urls are addresses in a derivation's variables; of what is not among those, its
// structured attributes may have some.
var urls = regexp.MustCompile(`\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'\\<>]+`)

// fetchHost returns the host that a derivation fetches from first. Of mirror://gnu/, it is
// gnu.
func fetchHost(d *derivation.Derivation) string {
	for _, name := range []string{"url", "urls", "__json"} {
		for _, address := range urls.FindAllString(d.Env[name], 1) {
			if u, err := url.Parse(address); err == nil && u.Hostname() != "" {
				return u.Hostname()
			}
		}
	}
	return ""
}

// A frontier finds what is still to be realised of what Nix would build.
type frontier struct {
	*graph
	toBuild map[string]bool
	given   map[string]bool // up: they failed, or are not to be tried
	lost    map[string]bool // whether derivations depend on those
	outputs map[string][]string
	order   []string
}

// from adds what a target needs and what depends on nothing that is given up: the target
// itself, else, if deep, what is below it.
func (f *frontier) from(drv string, outputs []string, deep bool) {
	switch {
	case !f.toBuild[drv] || f.given[drv]:
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
	case !deep || f.outputs[drv] != nil: // or it was here before
		return
	}
	f.outputs[drv] = []string{}
	inputs := f.node(drv).inputs
	for _, input := range sorted(inputs) {
		if !f.node(input).impure { // which would be built again
			f.from(input, inputs[input], true)
		}
	}
}

// hopeless reports whether something that a derivation has to be built from is given up.
func (f *frontier) hopeless(drv string) bool {
	if !f.toBuild[drv] {
		return false // it is there, or can be fetched
	}
	lost, known := f.lost[drv]
	if known {
		return lost
	}
	lost = f.given[drv]
	f.lost[drv] = lost
	for input := range f.node(drv).inputs {
		lost = f.hopeless(input) || lost
	}
	f.lost[drv] = lost
	return lost
}

// wanted returns what was added, as for Realise.
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
