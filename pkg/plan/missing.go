package plan

import (
	"cmp"
	"context"
	"errors"
	"slices"

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
	numbers   map[string]int32 // of derivations, by path
	inputs    [][]int32        // missing dependencies of each
	systems   []string         // of a target that needs each
	// Each derivation has as many members of a set as it takes units of time; ends has the
	// number after its last.
	ends     []int
	hasTimes bool
}

// unit is the time that counts as one derivation, in seconds: the estimate for one without a
// known duration.
const unit = 10

// maxUnits is the most units of a derivation: an hour.
const maxUnits = 360

// Weigh sets the durations of earlier builds of derivations, by system, in seconds; 0 is unknown.
func (m *Missing) Weigh(took func(drv, system string) float64) {
	m.hasTimes = false
	for drv, n := range m.numbers {
		seconds := took(drv, m.systems[n])
		m.hasTimes = m.hasTimes || seconds > 0
		m.ends[n] = max(1, int(min(seconds/unit+0.5, maxUnits)))
	}
	m.accumulate()
}

// accumulate turns the units of each derivation into ends.
func (m *Missing) accumulate() {
	end := 0
	for n := range m.ends {
		end += m.ends[n]
		m.ends[n] = end
	}
}

// units returns the units of all derivations together.
func (m *Missing) units() int {
	if len(m.ends) == 0 {
		return 0
	}
	return m.ends[len(m.ends)-1]
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
	w := &walk{from: from, nodes: map[string]*node{}, offered: map[string]bool{}}
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
				continue
			}
			n.missing = true
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
	unanswered   bool            // a query failed
	asked        int             // number of paths
	offeredCount int
	errs         []error
}

type node struct {
	path    string
	system  string // of a target that needs it
	read    bool
	drv     nix.Derivation // until it is missing
	wanted  []string       // outputs
	missing bool
	inputs  []*node // once it is missing
	number  int32   // likewise
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

// missing returns the result.
func (w *walk) missing() *Missing {
	m := &Missing{Available: w.found, numbers: map[string]int32{}}
	var all []*node
	for _, n := range w.nodes {
		if n.missing {
			n.number = int32(len(all)) //nolint:gosec // there are not so many
			m.numbers[n.path] = n.number
			all = append(all, n)
		}
	}
	m.inputs, m.systems, m.ends = make([][]int32, len(all)), make([]string, len(all)), make([]int, len(all))
	for i, n := range all {
		m.systems[i] = n.system
		for _, input := range n.inputs {
			if input.missing {
				m.inputs[i] = append(m.inputs[i], input.number)
			}
		}
	}
	m.Weigh(func(string, string) float64 { return 0 })
	return m
}
