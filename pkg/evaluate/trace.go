package evaluate

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/nearest"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// A position is how far a walk has come: the number of a root, and the path from
// there.
type position struct {
	root int
	path []string
}

// beforeAll is where an evaluator is that has listed all sets.
var beforeAll = position{root: -1}

// compare has the order of the walk.
func (p position) compare(q position) int {
	if p.root != q.root {
		return p.root - q.root
	}
	return slices.Compare(p.path, q.path)
}

// holds says whether q is p or below it.
func (p position) holds(q position) bool {
	return p.root == q.root && len(p.path) <= len(q.path) && slices.Equal(p.path, q.path[:len(p.path)])
}

func (p position) String() string { return string(p.json()) }

// MarshalJSON makes the list that evaluate.nix takes for a position.
func (p position) MarshalJSON() ([]byte, error) { return p.json(), nil }

func (p position) json() []byte {
	list := []any{p.root}
	for _, name := range p.path {
		list = append(list, name)
	}
	data, err := json.Marshal(list)
	if err != nil {
		panic(err) // numbers and texts can always be written
	}
	return data
}

// A bound is where an evaluator begins: at a position or after it, which is after
// all that it holds.
type bound struct {
	Path  position `json:"path"`
	After bool     `json:"after"`
}

// before says whether the bound is before a position.
func (b *bound) before(p position) bool {
	if b.After {
		return p.compare(b.Path) > 0 && !b.Path.holds(p)
	}
	return p.compare(b.Path) >= 0
}

// What the walker tells.
type (
	rootEvent struct {
		N    int      `json:"n"`
		Path []string `json:"path"`
	}
	// atEvent announces a path: of an attribute, or of a root that is found.
	atEvent struct {
		Path   []string `json:"path"`
		Wanted bool     `json:"wanted"` // by a glob, or a set that globs may match something in
		Alive  []int    `json:"alive"`  // globs that may match something below
		Hits   []int    `json:"hits"`   // globs that match here
	}
	enteredEvent struct {
		Path    []string `json:"path"`
		Hits    []int    `json:"hits"`
		Perhaps []int    `json:"perhaps"` // globs that may match something in what is omitted
	}
	// closedEvent tells of a set that is not entered.
	closedEvent struct {
		Path  []string `json:"path"`
		Names []string `json:"names"` // in it, the first of them
	}
	// unnameable is an attribute whose name is not the one that it has, but like it.
	unnameable struct {
		Name    string `json:"name"`
		Problem string `json:"problem"`
	}
	namedEvent struct {
		Path   []string `json:"path"`
		Name   string   `json:"name"`
		System string   `json:"system"`
	}
)

// contents are what is in a set, which is told in parts before it is entered.
type contents struct {
	names      []string // that are walked to
	omitted    []string // because of the system
	others     []string // that globs leave out
	near       []string // of packages, where an attribute is missed
	unnameable []unnameable
}

// maxAttributes is how many attributes a discovery walks to: more than any set of packages
// has that is meant to be built, and few enough for a Plan.
const maxAttributes = 100_000

// line takes a line of the evaluator's stderr.
func (w *worker) line(line string) bool {
	w.crew.mu.Lock()
	defer w.crew.mu.Unlock()
	_, told, ours := strings.Cut(line, w.nonce+" ")
	switch {
	case w.stopped || w.crew.err != nil:
	case ours && w.done: // what it tells of an attribute the second time is known
		w.last = time.Now()
		if told == "again null" {
			w.again++
			clear(w.said)
		}
	case ours:
		w.last = time.Now()
		kind, data, _ := strings.Cut(told, " ")
		if err := w.event(kind, []byte(data)); err != nil {
			w.crew.fail(err)
		}
	default:
		// From an error on, what it says ends up in the target or the error.
		line = text.Plain(text.Clip(line, maxLogLine))
		w.dying = w.dying || strings.HasPrefix(line, "error:")
		if !w.dying {
			w.log(line)
		}
	}
	return ours
}

// How much is logged of what evaluators say on their own: lines of a discovery, and bytes
// of a line.
const (
	maxLogLines = 5000
	maxLogLine  = 4 << 10
)

// log tells what an evaluator says besides, but not what another one has said as
// often already.
func (w *worker) log(line string) {
	c := w.crew
	if c.logged > maxLogLines {
		return
	}
	w.said[line]++
	if w.said[line] <= c.said[line] {
		return
	}
	c.said[line] = w.said[line]
	if c.logged++; c.logged > maxLogLines {
		line = fmt.Sprintf("The evaluators say more than %d lines: the rest is not shown.", maxLogLines)
	}
	if c.o.Log != nil {
		c.o.Log(line)
	}
}

func read[T any](data []byte) (T, error) {
	var v T
	err := json.Unmarshal(data, &v)
	return v, err
}

// event follows the walker.
func (w *worker) event(kind string, data []byte) (err error) {
	c := w.crew
	defer func() {
		if err != nil {
			err = fmt.Errorf("evaluate %s: the walker said %q with %.200q: %w", c.source.name, kind, data, err)
		}
	}()
	switch kind {
	case "root":
		var e rootEvent
		if e, err = read[rootEvent](data); err != nil {
			return err
		}
		if e.N < 0 || e.N >= len(c.source.roots) {
			return fmt.Errorf("there is no root %d", e.N)
		}
		w.begun, w.depth = true, -1
		w.announced(position{root: e.N}, atEvent{Path: e.Path, Wanted: true})
	case "found", "at":
		var e atEvent
		if e, err = read[atEvent](data); err != nil {
			return err
		}
		if kind == "found" {
			w.depth = len(e.Path)
			c.hit(e.Hits)
		}
		if w.depth < 0 || len(e.Path) < w.depth {
			return fmt.Errorf("it is not in root %d", w.at.root)
		}
		w.announced(position{w.at.root, e.Path[w.depth:]}, e)
	case "listed":
		w.listing = false
		c.listed = true
		w.at, w.cursor = beforeAll, w.from
	case "names":
		return w.some(&w.set.names, data)
	case "omitted":
		return w.some(&w.set.omitted, data)
	case "others":
		if len(c.known)+len(w.set.others) > maxAttributes {
			return nil // they are only to choose the nearest from
		}
		return w.some(&w.set.others, data)
	case "near":
		return w.some(&w.set.near, data)
	case "unnameable":
		var part []unnameable
		part, err = read[[]unnameable](data)
		if w.set.unnameable = append(w.set.unnameable, part...); len(w.set.unnameable) > maxAttributes {
			c.tooMany()
		}
		return err
	case "entered":
		var e enteredEvent
		if e, err = read[enteredEvent](data); err != nil {
			return err
		}
		if w.depth < 0 || len(e.Path) < w.depth {
			return fmt.Errorf("it is not in root %d", w.at.root)
		}
		w.entered(position{w.at.root, e.Path[w.depth:]}, e)
	case "thrown":
		w.threw()
	case "done":
		w.done = true
		clear(w.said)
	case "omit":
		if err = w.hit(data); err != nil {
			return err
		}
		c.omit(w.at, w.path)
	case "left":
		return w.hit(data)
	case "named":
		var e namedEvent
		if e, err = read[namedEvent](data); err != nil {
			return err
		}
		w.path, w.name, w.system = e.Path, e.Name, c.builtOn(e.System)
	case "unavailable":
		var at string
		if at, err = read[string](data); err != nil {
			return err
		}
		w.unavailable = &at
	case "closed":
		var e closedEvent
		if e, err = read[closedEvent](data); err != nil {
			return err
		}
		if len(c.closed) < maxClosed {
			c.closed = append(c.closed, e)
		}
	case "passed":
		var kind string
		if kind, err = read[string](data); err != nil {
			return err
		}
		name := shown(w.path)
		if len(w.path) == 0 {
			name = c.source.name
		}
		c.records = append(c.records, record{at: w.at, path: w.path, passed: fmt.Sprintf("%s (%s)", name, kind)})
	case "failed":
		var why string
		if why, err = read[string](data); err != nil || w.listing { // and is said again
			return err
		}
		w.record(c.failed(c.source, w.path, w.name, errors.New(why)))
	case "refused":
		var reason string
		if reason, err = read[string](data); err != nil {
			return err
		}
		w.record(c.refused(c.source, w.path, w.name, w.system, reason))
	case "target":
		var found described
		if found, err = read[described](data); err != nil {
			return err
		}
		found.System = c.builtOn(found.System)
		w.record(c.target(c.source, w.path, w.name, found))
	case "about":
		var a about
		if a, err = read[about](data); err != nil {
			return err
		}
		if w.told > 0 {
			t := &c.records[w.told-1].target
			a.describe(t)
			*t = gate(*t)
		}
	case "meta":
		if w.told > 0 {
			c.records[w.told-1].meta = slices.Clone(data)
		}
	case "missing":
		var path []string
		if path, err = read[[]string](data); err != nil {
			return err
		}
		if len(path) == 0 {
			return errors.New("nothing")
		}
		have := eachShown(w.set.others)
		c.fail(&MissingError{
			In: c.source.name, Attr: shown(path), Have: have,
			Nearest: nearest.Name(path[len(path)-1], append(have, eachShown(w.set.near)...)),
		})
	case "needs":
		var needs []string
		if needs, err = read[[]string](data); err != nil {
			return err
		}
		if len(needs) == 0 {
			return fmt.Errorf("nothing")
		}
		in := c.source.name
		if len(w.path) > 0 {
			in = shown(w.path) + " in " + in
		}
		c.fail(&ArgumentsError{In: in, Needs: eachShown(needs)})
	default:
		return fmt.Errorf("nobody knows that")
	}
	return nil
}

// some takes a part of the names in a set.
func (w *worker) some(names *[]string, data []byte) error {
	part, err := read[[]string](data)
	*names = append(*names, part...)
	if len(*names) > maxAttributes {
		w.crew.tooMany()
	}
	return err
}

// tooMany ends a discovery that has no end, or a Plan that nobody could use.
func (c *crew) tooMany() {
	c.fail(fmt.Errorf("there are more than %d attributes in %s: name the ones to build, or leave sets out with --exclude (input exclude)", maxAttributes, c.what()))
}

func (c *crew) hit(globs []int) {
	for _, n := range globs {
		c.hits[n] = true
	}
}

func (w *worker) hit(data []byte) error {
	hits, err := read[[]int](data)
	w.crew.hit(hits)
	return err
}

// announced notes what the evaluator is at from now on.
func (w *worker) announced(at position, e atEvent) {
	c := w.crew
	w.spot = spot{at: at, path: e.Path, wanted: e.Wanted, alive: e.Alive}
	if w.begun && c.startup == 0 {
		c.startup = time.Since(w.started)
	}
	if w.listing {
		c.progress(w.path)
		return
	}
	if w.until != nil && at.compare(*w.until) >= 0 {
		w.stop(nix.ErrEnough) // another one has that
		return
	}
	if w.from != nil && !w.from.before(at) {
		return // on the way to where it begins
	}
	if w.reached.IsZero() {
		w.reached = time.Now()
	}
	if w.outgrown() {
		c.waiting = append(c.waiting, span{from: &bound{Path: at}, until: w.until})
		w.stop(nix.ErrEnough) // a smaller one goes on
		return
	}
	w.cursor = &bound{Path: at, After: true}
	if w.only != nil {
		return // another one was there before
	}
	if c.walkedTo++; c.walkedTo > maxAttributes {
		c.tooMany()
	}
	c.progress(w.path)
}

// entered notes what is in the set that the evaluator is at.
func (w *worker) entered(set position, e enteredEvent) {
	c := w.crew
	in := w.set
	w.set = contents{}
	c.hit(e.Hits)
	for _, n := range e.Perhaps {
		c.perhaps[n] = true
	}
	for _, name := range in.omitted {
		c.omit(set.child(name), append(slices.Clone(e.Path), name))
	}
	for _, odd := range in.unnameable {
		if at := set.child(odd.Name); !c.told[at.String()] {
			c.told[at.String()] = true
			path := append(slices.Clone(e.Path), odd.Name)
			c.records = append(c.records, record{at: at, path: path, target: c.failed(c.source, path, "", errors.New(odd.Problem))})
		}
	}
	if len(c.globs) > 0 {
		for _, name := range slices.Concat(in.names, in.omitted, in.others) {
			c.known = append(c.known, shown(append(slices.Clone(e.Path), name)))
		}
	}
	if c.expand(set, in.names); c.before+len(c.items) > maxAttributes {
		c.tooMany()
	}
	if !w.listing && w.cursor != nil && w.cursor.After && w.cursor.Path.compare(set) == 0 {
		w.cursor = &bound{Path: set}
	}
}

func (p position) child(name string) position {
	return position{p.root, append(slices.Clone(p.path), name)}
}

// record notes a target.
func (w *worker) record(t job.Target) {
	w.crew.records = append(w.crew.records, record{at: w.at, path: w.path, target: t})
	w.told = len(w.crew.records)
	w.finished++
}
