package plan

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// A Source answers the queries of FindMissing.
type Source struct {
	// Derivations returns derivations in the order of the paths. With an error, those that
	// cannot be read are empty.
	Derivations func(ctx context.Context, drvs []string) ([]nix.Derivation, error)
	// Offered returns which of the store paths need no building, and maybe of other paths.
	Offered func(ctx context.Context, paths []string) (map[string]bool, error)
}

// Missing are the derivations that have to be built for targets.
type Missing struct {
	// Available are the outputs that need no building, of targets and of dependencies of the
	// missing derivations.
	Available []string
	available map[string]string // their derivations, with the system of a target that needs each
	known     int               // derivations whose durations are known, or that are light
	paths     []string          // of derivations, sorted
	numbers   map[string]int32  // of derivations, by path
	inputs    [][]int32         // missing dependencies of each
	order     []int32           // all of them, each after its inputs
	systems   []string          // of a target that needs each
	// outputs are those of each that targets and other missing derivations need; nil if they cannot
	// be handed over, see [nix.Derivation].Known.
	outputs [][]string
	light   []bool    // see [nix.Derivation]
	seconds []float64 // expected duration of each, 0 for the light ones
	// Each derivation has as many members of a set as it takes points of time; ends has the
	// number after its last.
	ends     []int
	hasTimes bool
}

// Count returns the number of missing derivations, 0 for nil.
func (m *Missing) Count() int {
	if m == nil {
		return 0
	}
	return len(m.inputs)
}

// FindMissing walks down the graph of derivations from the targets that are to be built. An
// offered output needs no building, and its inputs don't matter. A derivation is missing if one
// of its needed outputs is not offered, or has a path that is known only after the build; then
// its inputs are needed too.
//
// With an error, the result is complete, unless ctx has ended: outputs that could not be queried
// and derivations that could not be read count as missing.
func FindMissing(ctx context.Context, targets []job.Target, from Source) (*Missing, error) {
	w := &walk{from: from, foundDrvs: map[string]string{}, nodes: map[string]*node{}, offered: map[string]bool{}, lists: map[string][]string{}}
	var level []want
	for i := range targets {
		if t := &targets[i]; t.State == job.StateBuild {
			var n *node
			level, n = w.want(level, nil, t.DrvPath, t.Outputs)
			n.system = t.System
		}
	}
	for len(level) > 0 {
		if err := w.query(ctx, level); err != nil {
			return nil, err
		}
		var next []want
		for _, taken := range level {
			n := taken.node
			if n.missing {
				continue
			}
			if w.available(taken) {
				w.found = append(w.found, taken.paths()...)
				w.foundDrvs[n.path] = n.system
				continue
			}
			n.missing, n.light = true, n.drv.Light
			if n.drv.Known {
				n.outputs = w.names(n.drv.Outputs)
			}
			n.inputs = make([]*node, 0, len(n.drv.Inputs))
			for input, outputs := range n.drv.Inputs {
				var of *node
				next, of = w.want(next, nil, input, outputs)
				of.system = cmp.Or(of.system, n.system)
				n.inputs = append(n.inputs, of)
			}
			n.drv = nix.Derivation{} // frees memory
		}
		level = next
	}
	return w.missing(), errors.Join(w.errs...)
}

// A walk is the state of the way down the graph.
type walk struct {
	from         Source
	nodes        map[string]*node
	offered      map[string]bool // by path, of those that were queried
	found        []string        // offered paths that are needed
	foundDrvs    map[string]string
	unanswered   bool // a query failed
	asked        int  // number of paths
	offeredCount int
	errs         []error
	lists        map[string][]string // of outputs, so that each is in memory once
}

type node struct {
	path    string
	system  string // of a target that needs it
	read    bool
	drv     nix.Derivation // until it is missing
	wanted  []string       // outputs
	missing bool
	// These are set once it is missing.
	inputs  []*node
	number  int32
	outputs []string // of the derivation, nil unless they can be handed over
	light   bool
}

// A want is a needed output; an empty output is all of them.
type want struct {
	node   *node
	output string
}

// want adds outputs of a derivation to all, unless they are in seen or, without seen, were wanted
// before.
func (w *walk) want(all []want, seen map[want]bool, drv string, outputs []string) ([]want, *node) {
	n := w.nodes[drv]
	if n == nil {
		n = &node{path: drv}
		w.nodes[drv] = n
	}
	if len(outputs) == 0 {
		outputs = []string{""}
	}
	for _, output := range outputs {
		taken := want{n, output}
		switch {
		case seen == nil && !slices.Contains(n.wanted, output):
			n.wanted = append(n.wanted, output)
		case seen != nil && !seen[taken]:
			seen[taken] = true
		default:
			continue
		}
		all = append(all, taken)
	}
	return all, n
}

// paths returns the store paths of a want, none if one is unknown.
func (t want) paths() []string {
	if t.output != "" {
		if path := t.node.drv.Outputs[t.output]; path != "" {
			return []string{path}
		}
		return nil
	}
	var paths []string
	for _, path := range t.node.drv.Outputs {
		if path == "" {
			return nil
		}
		paths = append(paths, path)
	}
	return paths
}

func (w *walk) available(t want) bool {
	paths := t.paths()
	for _, path := range paths {
		if !w.offered[path] {
			return false
		}
	}
	return len(paths) > 0
}

// batchSize is the number of paths in a query: a smaller query takes as long. A narrow level is
// queried together with those below it if few paths were offered so far, because inputs of
// offered outputs are not needed.
const batchSize = 256

// query sets which outputs of a level are offered. It returns an error only if ctx has ended.
func (w *walk) query(ctx context.Context, level []want) error {
	if err := w.read(ctx, level); err != nil {
		return err
	}
	paths := w.unasked(nil, level)
	if len(paths) == 0 || w.unanswered {
		return nil
	}
	seen := map[want]bool{}
	for prefetched := level; w.sparse() && len(paths) < batchSize && len(prefetched) > 0; {
		var below []want
		for _, taken := range prefetched {
			if taken.node.missing || w.available(taken) {
				continue
			}
			for input, outputs := range taken.node.drv.Inputs {
				below, _ = w.want(below, seen, input, outputs)
			}
		}
		prefetched = below
		if err := w.read(ctx, prefetched); err != nil {
			return err
		}
		paths = w.unasked(paths, prefetched)
	}
	offered, err := w.from.Offered(ctx, paths)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		w.unanswered = true
		w.errs = append(w.errs, err)
	}
	for path, has := range offered {
		w.offered[path] = has
	}
	w.asked += len(paths)
	for _, path := range paths {
		if w.offered[path] {
			w.offeredCount++
		}
	}
	return nil
}

// sparse reports whether at most one of ten paths was offered, of sufficiently many.
func (w *walk) sparse() bool {
	const enough = 100 // paths
	return w.asked >= enough && w.offeredCount*10 <= w.asked
}

// unasked adds the paths of a level that were not queried.
func (w *walk) unasked(paths []string, level []want) []string {
	for _, taken := range level {
		if taken.node.missing {
			continue
		}
		for _, path := range taken.paths() {
			if _, asked := w.offered[path]; !asked {
				w.offered[path] = false
				paths = append(paths, path)
			}
		}
	}
	return paths
}

func (w *walk) read(ctx context.Context, level []want) error {
	var unread []*node
	var drvs []string
	for _, taken := range level {
		if n := taken.node; !n.read {
			n.read = true
			unread, drvs = append(unread, n), append(drvs, n.path)
		}
	}
	if len(drvs) == 0 {
		return nil
	}
	all, err := w.from.Derivations(ctx, drvs)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		w.errs = append(w.errs, err)
	}
	for i := range all {
		unread[i].drv = all[i]
	}
	return nil
}

// maxOutputs is the most outputs of a derivation in a unit. A real one has ten.
const maxOutputs = 64

// names returns the names of outputs, sorted, or nil for too many.
func (w *walk) names(outputs map[string]string) []string {
	if len(outputs) > maxOutputs {
		return nil
	}
	return w.list(slices.Sorted(maps.Keys(outputs)))
}

// list returns an equal list.
func (w *walk) list(names []string) []string {
	key := strings.Join(names, "\n")
	known, ok := w.lists[key]
	if !ok {
		known = names
		w.lists[key] = names
	}
	return known
}

// needed returns the outputs of a derivation that are wanted, nil if they cannot be handed over.
func (w *walk) needed(n *node) []string {
	if slices.Contains(n.wanted, "") {
		return n.outputs
	}
	wanted := slices.Sorted(slices.Values(n.wanted))
	for _, output := range wanted {
		if !slices.Contains(n.outputs, output) {
			return nil
		}
	}
	return w.list(wanted)
}

// missing returns the result.
func (w *walk) missing() *Missing {
	var all []*node
	for _, n := range w.nodes {
		if n.missing {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b *node) int { return strings.Compare(a.path, b.path) })
	m := &Missing{
		Available: w.found,
		available: w.foundDrvs,
		paths:     make([]string, len(all)),
		numbers:   make(map[string]int32, len(all)),
		inputs:    make([][]int32, len(all)),
		systems:   make([]string, len(all)),
		outputs:   make([][]string, len(all)),
		light:     make([]bool, len(all)),
		seconds:   make([]float64, len(all)),
		ends:      make([]int, len(all)),
	}
	for i, n := range all {
		n.number = int32(i)
		m.paths[i], m.numbers[n.path] = n.path, n.number
		m.systems[i], m.outputs[i], m.light[i] = n.system, w.needed(n), n.light
	}
	for i, n := range all {
		for _, input := range n.inputs {
			if input.missing {
				m.inputs[i] = append(m.inputs[i], input.number)
			}
		}
		slices.Sort(m.inputs[i]) // not in the order of a map
	}
	m.sort()
	m.Weigh(func(string, string) float64 { return 0 })
	return m
}

// sort sets the order.
func (m *Missing) sort() {
	m.order = make([]int32, 0, len(m.inputs))
	visited := make([]bool, len(m.inputs))
	var visit func(n int32)
	visit = func(n int32) {
		visited[n] = true
		for _, input := range m.inputs[n] {
			if !visited[input] {
				visit(input)
			}
		}
		m.order = append(m.order, n)
	}
	for n := range m.inputs {
		if !visited[n] {
			visit(int32(n))
		}
	}
}
