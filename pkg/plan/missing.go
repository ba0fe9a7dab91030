package plan

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// A Source knows what FindMissing asks for.
type Source struct {
	// Derivations reads derivations, in the order given. What it can't read is empty,
	// and in the error beside the others.
	Derivations func(ctx context.Context, drvs []string) ([]nix.Derivation, error)
	// Offered says which of the store paths need no building, and may say so of others.
	Offered func(ctx context.Context, paths []string) (map[string]bool, error)
}

// Missing are the derivations that have to be built for targets.
type Missing struct {
	// Available are the outputs that need no building, and that those that are built
	// take; and those of the targets themselves.
	Available []string
	numbers   map[string]int32 // of derivations, by path
	inputs    [][]int32        // the missing ones that each needs
	systems   []string         // of a target that needs each
	// Each takes as many members of a set as it takes units of time; ends has the
	// number behind its last.
	ends    []int
	weighed bool
}

// unit is the time that counts as one derivation, in seconds: that is what one of
// which nothing is known takes.
const unit = 10

// maxUnits is how much one may count: an hour.
const maxUnits = 360

// Weigh sets how long derivations took to build before, by system, in seconds; 0 is unknown.
func (m *Missing) Weigh(took func(drv, system string) float64) {
	m.weighed = false
	for drv, n := range m.numbers {
		seconds := took(drv, m.systems[n])
		m.weighed = m.weighed || seconds > 0
		m.ends[n] = max(1, int(min(seconds/unit+0.5, maxUnits)))
	}
	m.sumUp()
}

// sumUp makes ends of the units of each.
func (m *Missing) sumUp() {
	end := 0
	for n := range m.ends {
		end += m.ends[n]
		m.ends[n] = end
	}
}

// units returns the units of time that all take together.
func (m *Missing) units() int {
	if len(m.ends) == 0 {
		return 0
	}
	return m.ends[len(m.ends)-1]
}

// Count returns how many derivations are missing, 0 for the nil one.
func (m *Missing) Count() int {
	if m == nil {
		return 0
	}
	return len(m.inputs)
}

// FindMissing walks from the targets that are to be built down the graph of
// derivations. What is offered needs no building, and its inputs don't matter. A
// derivation of which something is taken that nobody offers, or whose path is not
// known before it is built, is missing, and so its inputs are looked at.
//
// An error comes beside what was found, unless ctx has ended: what could not be
// asked or read counts as missing.
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
		if err := w.look(ctx, level); err != nil {
			return nil, err
		}
		var next []want
		for _, taken := range level {
			n := taken.of
			if n.missing {
				continue
			}
			if w.available(taken) {
				w.taken = append(w.taken, taken.paths()...)
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
			n.drv = nix.Derivation{} // which is large
		}
		level = next
	}
	return w.missing(), errors.Join(w.errs...)
}

// A walk is on its way down the graph.
type walk struct {
	from    Source
	nodes   map[string]*node
	offered map[string]bool // of the paths that were asked for
	taken   []string        // of these, by what is missing or wanted itself
	silent  bool            // nobody answers
	asked   int             // paths, and how many of them were offered
	had     int
	errs    []error
}

type node struct {
	path    string
	system  string // of a target that needs it
	read    bool
	drv     nix.Derivation // until it is missing
	wanted  []string       // outputs
	missing bool
	inputs  []*node // once it is missing
	number  int32   // then, in the end
}

// A want is an output that something takes; the empty one is all of them.
type want struct {
	of     *node
	output string
}

// want adds outputs of a derivation to what is wanted, each once: ever, or as seen
// has it.
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

// paths returns the store paths that are wanted, none if one is unknown.
func (t want) paths() []string {
	if t.output != "" {
		if path := t.of.drv.Outputs[t.output]; path != "" {
			return []string{path}
		}
		return nil
	}
	var paths []string
	for _, path := range t.of.drv.Outputs {
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

// atOnce is how many paths it pays to ask for at once: as many take no longer than
// it takes to ask at all. A narrow level is asked for together with those below it where
// hardly anything was offered so far, since nobody needs what is below something offered.
const atOnce = 256

// look finds out what is offered of a level. The error is the end of ctx.
func (w *walk) look(ctx context.Context, level []want) error {
	if err := w.read(ctx, level); err != nil {
		return err
	}
	paths := w.unasked(nil, level)
	if len(paths) == 0 || w.silent {
		return nil
	}
	seen := map[want]bool{}
	for ahead := level; w.bare() && len(paths) < atOnce && len(ahead) > 0; {
		var below []want
		for _, taken := range ahead {
			if taken.of.missing || w.available(taken) {
				continue
			}
			for input, outputs := range taken.of.drv.Inputs {
				below, _ = w.want(below, seen, input, outputs)
			}
		}
		ahead = below
		if err := w.read(ctx, ahead); err != nil {
			return err
		}
		paths = w.unasked(paths, ahead)
	}
	offered, err := w.from.Offered(ctx, paths)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		w.silent = true
		w.errs = append(w.errs, err)
	}
	for path, has := range offered {
		w.offered[path] = has
	}
	w.asked += len(paths)
	for _, path := range paths {
		if w.offered[path] {
			w.had++
		}
	}
	return nil
}

// bare reports whether it is known that hardly anything is offered, one of ten.
func (w *walk) bare() bool {
	const enough = 100 // questions to know
	return w.asked >= enough && w.had*10 <= w.asked
}

// unasked adds the paths of what is wanted that nobody was asked for.
func (w *walk) unasked(paths []string, level []want) []string {
	for _, taken := range level {
		if taken.of.missing {
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
		if n := taken.of; !n.read {
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

// missing returns the derivations that were found.
func (w *walk) missing() *Missing {
	m := &Missing{Available: w.taken, numbers: map[string]int32{}}
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
