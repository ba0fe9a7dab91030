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
)

// The walker's events, see evaluate.nix.
type (
	rootEvent struct {
		N    int      `json:"n"`
		Path []string `json:"path"`
	}
	// atEvent announces an attribute, or a root that is found.
	atEvent struct {
		Path   []string `json:"path"`
		Wanted bool     `json:"wanted"` // by a glob, or a set that globs may match something in
		Alive  []int    `json:"alive"`  // globs that may match something below
		Hits   []int    `json:"hits"`   // globs that match here
		Suffix []string `json:"suffix"` // of the path, to the target
		// Shadowed says that the path of a root is also that of a package.
		Shadowed bool `json:"shadowed"`
	}
	enteredEvent struct {
		Path    []string `json:"path"`
		Hits    []int    `json:"hits"`
		Perhaps []int    `json:"perhaps"` // globs that may match something in what is omitted
	}
	// closedEvent is about a set that is not entered.
	closedEvent struct {
		Path  []string `json:"path"`
		Names []string `json:"names"` // the first in it
	}
	// unnameableEvent is about an attribute whose name JSON cannot hold, under a similar name.
	unnameableEvent struct {
		Name    string `json:"name"`
		Problem string `json:"problem"`
	}
	namedEvent struct {
		Path   []string `json:"path"`
		Name   string   `json:"name"`
		System string   `json:"system"`
	}
)

// contents are the names in a set, which are reported in parts before it is entered.
type contents struct {
	names      []string // that are walked to
	omitted    []string // because of the system
	others     []string // that globs leave out
	near       []string // of packages, where an attribute is missed
	unnameable []unnameableEvent
}

// maxAttributes is the most attributes of an evaluation: more than any set of packages has that
// is meant to be built, and few enough for a Plan.
const maxAttributes = 100_000

// line handles a line of the evaluator's stderr. It reports whether the line is an event.
func (w *worker) line(line string) bool {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	_, told, ours := strings.Cut(line, w.nonce+" ")
	switch {
	case w.stopped || w.pool.err != nil:
	case ours && w.done: // what it reports of an attribute the second time is known
		w.last = time.Now()
		if told == "again null" {
			w.again++
			clear(w.lineCounts)
		}
	case ours:
		w.last = time.Now()
		kind, data, _ := strings.Cut(told, " ")
		if err := w.event(kind, []byte(data)); err != nil {
			w.pool.fail(err)
		}
	default:
		w.other(line)
	}
	return ours
}

func read[T any](data []byte) (T, error) {
	var v T
	err := json.Unmarshal(data, &v)
	return v, err
}

// event handles an event of the walker.
func (w *worker) event(kind string, data []byte) (err error) {
	p := w.pool
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot evaluate %s: invalid event %q with %.200q: %w", p.source.name, kind, data, err)
		}
	}()
	switch kind {
	case "root":
		var e rootEvent
		if e, err = read[rootEvent](data); err != nil {
			return err
		}
		if e.N < 0 || e.N >= len(p.source.roots) {
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
			p.hit(e.Hits)
			p.shadowed[w.at.root] = e.Shadowed
		}
		if w.depth < 0 || len(e.Path) < w.depth {
			return fmt.Errorf("it is not in root %d", w.at.root)
		}
		w.announced(position{w.at.root, e.Path[w.depth:]}, e)
	case "listed":
		w.listing = false
		p.listed = true
		w.at, w.cursor = beforeAll, w.from
	case "names":
		return w.addNames(&w.contents.names, data)
	case "omitted":
		return w.addNames(&w.contents.omitted, data)
	case "others":
		if len(p.known)+len(w.contents.others) > maxAttributes {
			return nil // they only serve for suggestions
		}
		return w.addNames(&w.contents.others, data)
	case "near":
		return w.addNames(&w.contents.near, data)
	case "unnameable":
		var part []unnameableEvent
		part, err = read[[]unnameableEvent](data)
		if w.contents.unnameable = append(w.contents.unnameable, part...); len(w.contents.unnameable) > maxAttributes {
			p.failTooMany()
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
		clear(w.lineCounts)
	case "omit":
		if err = w.hit(data); err != nil {
			return err
		}
		p.omit(w.at, w.path)
	case "left":
		return w.hit(data)
	case "named":
		var e namedEvent
		if e, err = read[namedEvent](data); err != nil {
			return err
		}
		w.path, w.suffix, w.name, w.system = e.Path, nil, e.Name, p.runnerSystem(e.System)
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
		if len(p.closed) < maxClosed {
			p.closed = append(p.closed, e)
		}
	case "passed":
		var kind string
		if kind, err = read[string](data); err != nil {
			return err
		}
		name := shown(w.path)
		if len(w.path) == 0 {
			name = p.source.name
		}
		p.records = append(p.records, record{at: w.at, path: w.path, passed: fmt.Sprintf("%s (%s)", name, kind)})
	case "failed":
		var why string
		if why, err = read[string](data); err != nil || w.listing { // it is reported again
			return err
		}
		w.path = w.targetPath()
		w.record(p.failed(p.source, w.path, w.name, errors.New(why)))
	case "refused":
		var reason string
		if reason, err = read[string](data); err != nil {
			return err
		}
		w.record(p.refused(p.source, w.path, w.name, w.system, "because it "+reason))
	case "skipped":
		var reason string
		if reason, err = read[string](data); err != nil || w.listing {
			return err
		}
		w.path, w.suffix = w.targetPath(), nil
		w.record(p.refused(p.source, w.path, w.name, w.system, skipReason(reason)))
	case "target":
		var found targetEvent
		if found, err = read[targetEvent](data); err != nil {
			return err
		}
		found.System = p.runnerSystem(found.System)
		w.record(p.target(p.source, w.path, w.name, found))
	case "about":
		var a aboutEvent
		if a, err = read[aboutEvent](data); err != nil {
			return err
		}
		if w.told > 0 {
			r := &p.records[w.told-1]
			a.describe(&r.target)
			r.odd = a.ask(&r.target)
			r.target = gate(r.target)
		}
	case "meta":
		if w.told > 0 {
			p.records[w.told-1].meta = slices.Clone(data)
		}
	case "missing":
		var path []string
		if path, err = read[[]string](data); err != nil {
			return err
		}
		if len(path) == 0 {
			return errors.New("nothing")
		}
		have := shownNames(w.contents.others)
		p.fail(&MissingError{
			In: p.source.name, Attr: shown(path), Have: have,
			Nearest: nearest.Name(path[len(path)-1], append(have, shownNames(w.contents.near)...)),
		})
	case "needs":
		var needs []string
		if needs, err = read[[]string](data); err != nil {
			return err
		}
		if len(needs) == 0 {
			return fmt.Errorf("nothing")
		}
		in := p.source.name
		if len(w.path) > 0 {
			in = shown(w.path) + " in " + in
		}
		p.fail(&ArgumentsError{In: in, Needs: shownNames(needs)})
	default:
		return errors.New("there is no such event")
	}
	return nil
}

// addNames appends a part of the names in a set.
func (w *worker) addNames(names *[]string, data []byte) error {
	part, err := read[[]string](data)
	*names = append(*names, part...)
	if len(*names) > maxAttributes {
		w.pool.failTooMany()
	}
	return err
}

// failTooMany ends an evaluation without an end, or with too many attributes for a Plan.
func (p *pool) failTooMany() {
	p.fail(fmt.Errorf("there are more than %d attributes in %s. Name the ones to build, or leave sets out with --exclude (input exclude)", maxAttributes, p.request()))
}

func (p *pool) hit(globs []int) {
	for _, n := range globs {
		p.hits[n] = true
	}
}

func (w *worker) hit(data []byte) error {
	hits, err := read[[]int](data)
	w.pool.hit(hits)
	return err
}

// announced notes the attribute that the evaluator is at from now on.
func (w *worker) announced(at position, e atEvent) {
	p := w.pool
	w.spot = spot{at: at, path: e.Path, suffix: e.Suffix, wanted: e.Wanted, alive: e.Alive}
	if w.begun && p.startTime == 0 {
		p.startTime = time.Since(w.started)
	}
	if w.listing {
		p.progress(w.path)
		return
	}
	if w.until != nil && at.compare(*w.until) >= 0 {
		w.stop(nix.ErrEnough) // another one has the rest
		return
	}
	if w.from != nil && !w.from.before(at) {
		return // on the way to the beginning of its span
	}
	if w.reached.IsZero() {
		w.reached = time.Now()
	}
	if w.outgrown() {
		p.waiting = append(p.waiting, span{from: &bound{Path: at}, until: w.until})
		w.stop(nix.ErrEnough) // a new one continues
		return
	}
	w.cursor = &bound{Path: at, After: true}
	if w.only != nil {
		return // counted before
	}
	if p.attributes++; p.attributes > maxAttributes {
		p.failTooMany()
	}
	p.progress(w.path)
}

// entered notes the contents of the set that the evaluator is at.
func (w *worker) entered(set position, e enteredEvent) {
	p := w.pool
	in := w.contents
	w.contents = contents{}
	p.hit(e.Hits)
	for _, n := range e.Perhaps {
		p.maybe[n] = true
	}
	for _, name := range in.omitted {
		p.omit(set.child(name), append(slices.Clone(e.Path), name))
	}
	for _, odd := range in.unnameable {
		if at := set.child(odd.Name); !p.reported[at.String()] {
			p.reported[at.String()] = true
			path := append(slices.Clone(e.Path), odd.Name)
			p.records = append(p.records, record{at: at, path: path, target: p.failed(p.source, path, "", errors.New(odd.Problem))})
		}
	}
	if len(p.globs) > 0 {
		for _, name := range slices.Concat(in.names, in.omitted, in.others) {
			p.known = append(p.known, shown(append(slices.Clone(e.Path), name)))
		}
	}
	if p.insert(set, in.names); p.before+len(p.items) > maxAttributes {
		p.failTooMany()
	}
	if !w.listing && w.cursor != nil && w.cursor.After && w.cursor.Path.compare(set) == 0 {
		w.cursor = &bound{Path: set}
	}
}

// record adds the record of a target.
func (w *worker) record(t job.Target) {
	w.pool.records = append(w.pool.records, record{at: w.at, path: w.path, target: t})
	w.told = len(w.pool.records)
	w.finished++
}
