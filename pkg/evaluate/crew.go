package evaluate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/nix"
)

const (
	// patience is how long an evaluator works alone before another takes a part.
	patience = 500 * time.Millisecond
	// worthwhile is how much work another evaluator must be able to take, besides
	// what it needs to start.
	worthwhile = 500 * time.Millisecond
	// interval is how often evaluators are looked after.
	interval = 100 * time.Millisecond
)

var (
	errTimeout = errors.New("the evaluation takes too long")
	// errUnfinished is the failure of an evaluator that ended as if all were well.
	errUnfinished = errors.New("the evaluator ended before it had finished, and did not say why")
)

// A crew is the evaluators that walk through a source. Each walks through a part,
// a span. One that has nothing to do takes a part of what another has before it;
// that one is ended when it comes there, as it can't be told.
type crew struct {
	*evaluation
	source source
	cancel context.CancelFunc
	group  errgroup.Group
	ended  chan *worker

	mu      sync.Mutex // for all below, and what the discovery collects
	most    int        // evaluators at once
	items   []position // what is known to be there, in the order of the walk
	listed  bool       // all sets are, which the schema of flakes knows
	last    *position  // the set that was listed last before an evaluator died
	skip    []position // sets that can't be listed
	waiting []span
	owed    []position // that have thrown in evaluators that ended before they told why
	catch   bool       // evaluators go on after what throws, and tell why at the end
	exact   int        // assertions that were evaluated once more for their places
	workers []*worker
	retried map[string]bool // positions that were at fault in an evaluator that had others before
	told    map[string]bool // positions of what is left out, and of what has no name that can be told
	records []record
	startup time.Duration // until an evaluator begins to walk
	walked  time.Duration // by evaluators that have ended
	done    int           // items of those
	err     error
}

func newCrew(d *evaluation, s source) *crew {
	c := &crew{evaluation: d, source: s, most: d.o.Workers, ended: make(chan *worker, d.o.Workers), retried: map[string]bool{}, told: map[string]bool{}, waiting: []span{{}}, catch: true}
	for n, r := range s.roots {
		c.items = append(c.items, position{root: n})
		c.known = append(c.known, shown(append(slices.Clone(s.base), r.Path...)))
	}
	return c
}

// run walks through the source until all of it is done.
func (c *crew) run(ctx context.Context) error {
	ctx, c.cancel = context.WithCancel(ctx)
	defer c.cancel()
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for c.assign(ctx) {
		select {
		case w := <-c.ended:
			c.bury(ctx, w)
		case <-ticks.C:
			c.supervise()
		}
	}
	_ = c.group.Wait() // they have no errors
	switch {
	case c.err != nil:
		return c.err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	c.count(0)
	c.before += len(c.items)
	return nil
}

// fail ends the whole discovery.
func (c *crew) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	for _, w := range c.workers {
		w.cancel(nix.ErrEnough)
	}
	c.cancel()
}

// assign starts evaluators, as many as there is work for, and says whether any
// is at work.
func (c *crew) assign(ctx context.Context) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ctx.Err() == nil && len(c.workers) < c.most && (c.listed || len(c.workers) == 0) {
		s, ok := c.next()
		if !ok {
			s, ok = c.settle()
		}
		if !ok {
			break
		}
		c.start(ctx, s)
	}
	return len(c.workers) > 0
}

// next finds work for another evaluator.
func (c *crew) next() (span, bool) {
	for len(c.waiting) > 0 {
		s := c.waiting[0]
		c.waiting = c.waiting[1:]
		if s.only != nil {
			if len(s.only) > 0 {
				return s, true
			}
			continue
		}
		first, end := c.within(s.from, s.until)
		if first == end {
			continue
		}
		// When two have to be started anyway, there is less to lose.
		half := (first + end + 1) / 2
		if len(c.workers)+1 < c.most && len(c.waiting) == 0 && half < end && float64(end-half)*c.pace() > float64(c.startup/2) {
			middle := c.items[half]
			c.waiting = append(c.waiting, span{from: &bound{Path: middle}, until: s.until})
			s.until = &middle
		}
		return s, true
	}
	return c.share()
}

// share takes the latter part of what the evaluator has before it that will be
// busy for longest.
func (c *crew) share() (s span, ok bool) {
	var busiest *worker
	var most float64
	for _, w := range c.workers {
		if w.reached.IsZero() || w.stopped || w.done || w.only != nil || time.Since(w.reached) < patience {
			continue
		}
		first, end := c.within(w.cursor, w.until)
		if left := float64(end-first) * w.pace(); left > most {
			busiest, most = w, left
		}
	}
	if busiest == nil {
		return span{}, false
	}
	first, end := c.within(busiest.cursor, busiest.until)
	pace := busiest.pace()
	part := (end - first + 1) / 2
	part -= int(float64(c.startup) / pace / 2) // which is the other's head start
	if part < 1 || float64(part)*pace < float64(c.startup+worthwhile) {
		return span{}, false
	}
	middle := c.items[end-part]
	s = span{from: &bound{Path: middle}, until: busiest.until}
	busiest.until = &middle
	return s, true
}

// within gives the items between bounds, as indexes.
func (c *crew) within(from *bound, until *position) (first, end int) {
	end = len(c.items)
	if from != nil {
		first = sort.Search(len(c.items), func(i int) bool { return from.before(c.items[i]) })
	}
	if until != nil {
		end = sort.Search(len(c.items), func(i int) bool { return c.items[i].compare(*until) >= 0 })
	}
	return first, max(first, end)
}

// pace is how long an item took until now.
func (c *crew) pace() float64 {
	walked, done := c.walked, c.done
	for _, w := range c.workers {
		if !w.reached.IsZero() {
			walked += time.Since(w.reached)
			done += w.finished
		}
	}
	return float64(walked) / float64(done+1)
}

func (c *crew) start(ctx context.Context, s span) {
	now := time.Now()
	w := &worker{
		span: s, crew: c, cursor: s.from, depth: -1, listing: !c.listed, started: now, last: now, said: map[string]int{},
		nonce: "nix-matrix-" + strings.ToLower(rand.Text()),
	}
	w.messages = newMessages(w.nonce)
	ctx, w.cancel = context.WithCancelCause(ctx)
	c.workers = append(c.workers, w)
	e := nix.Evaluation{
		Flake:       c.source.flake,
		Attr:        c.source.attr(),
		Expr:        c.source.expr,
		Path:        c.o.NixPath,
		Printed:     w.messages,
		Apply:       "(" + walker + ") (" + textNix + ") " + w.arguments(),
		MemoryLimit: c.o.MemoryLimit,
		InitialHeap: c.heap,
		Used:        &w.memory,
	}
	c.group.Go(func() error {
		defer w.cancel(nil)
		w.result = c.eval.Eval(ctx, e, w.line)
		if cause := context.Cause(ctx); w.result != nil && errors.Is(cause, errTimeout) {
			w.result = cause
		}
		if w.result == nil && !w.done {
			w.result = errUnfinished
		}
		c.ended <- w
		return nil
	})
}

// supervise ends what takes too long.
func (c *crew) supervise() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.workers {
		if c.o.Timeout > 0 && !w.stopped && time.Since(w.last) > c.o.Timeout {
			w.cancel(errTimeout) // again is as once
		}
	}
}

// bury sees to what an evaluator that has ended has left undone.
func (c *crew) bury(ctx context.Context, w *worker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.workers = slices.DeleteFunc(c.workers, func(other *worker) bool { return other == w })
	if !w.reached.IsZero() {
		c.walked += time.Since(w.reached)
		c.done += w.finished
	}
	err := w.result
	explained := c.explain(w)
	switch {
	case err == nil || w.done && explained || w.stopped || c.err != nil || ctx.Err() != nil:
	case w.done: // nothing is left of it, but perhaps not all that it made is in the store
		c.Incomplete = true
	case !w.begun && w.from == nil && w.only == nil && len(c.skip) == 0:
		if !c.source.absent(err) {
			c.fail(&outputError{c.source.name, c.describe(err)})
		}
	case w.listing && w.begun:
		at := w.at
		c.last = &at
		c.skip = append(c.skip, at)
		c.blame(w, w.spot, err)
		c.waiting = append(c.waiting, w.span)
	case w.at.root == beforeAll.root:
		c.waiting = append(c.waiting, w.span) // for one that need not list
	case !w.begun || w.from != nil && !w.from.before(w.at):
		c.lose(w, nil, err)
	case w.told == 0 && w.finished > 0 && c.outOfMemory(err) && !c.retried[w.at.String()]:
		// Perhaps it is not this one that needs so much, but all until now.
		c.retried[w.at.String()] = true
		c.waiting = append(c.waiting, w.rest(false))
	default:
		if w.told == 0 {
			c.blame(w, w.spot, err)
		} else { // it is only its description that is not known
			c.Incomplete = true
		}
		c.waiting = append(c.waiting, w.rest(true))
	}
}

// describe makes an error of what the user may have caused with the limits, and adds
// to others what may help.
func (c *crew) describe(err error) error {
	if errors.Is(err, errTimeout) || errors.Is(err, nix.ErrMemory) {
		message, _ := c.message(err)
		return errors.New(message)
	}
	return fmt.Errorf("%w%s", err, advice(c.source.flake, saidWith(err)))
}

// outOfMemory says whether an evaluator ended for want of memory, as far as one
// can tell.
func (c *crew) outOfMemory(err error) bool {
	if errors.Is(err, nix.ErrMemory) {
		return true
	}
	var failed *nix.Error
	if !errors.As(err, &failed) || !failed.Signaled() && failed.Message != "out of memory" {
		return false
	}
	c.most = max(1, len(c.workers)) // together, they are too many
	return true
}

// blame records that an attribute can't be evaluated, or is not to be.
func (c *crew) blame(w *worker, s spot, err error) {
	c.hit(s.alive)
	if !s.wanted { // but perhaps a set in which a glob would have matched something
		c.Incomplete = true
		message, _ := c.message(err)
		w.log(fmt.Sprintf("%s is passed over, it can't be evaluated: %s", shown(s.path), message))
		return
	}
	if len(s.path) == 0 && s.name == "" { // all of a file
		c.fail(&outputError{c.source.name, c.describe(err)})
		return
	}
	t := c.failed(c.source, s.path, s.name, err)
	if s.unavailable != nil && !t.Kind.IsHost() {
		if reason, ok := refusedFor(t.Error, s.name, *s.unavailable, s.system); ok {
			t = c.refused(c.source, s.path, s.name, s.system, reason)
		}
	}
	c.records = append(c.records, record{at: s.at, path: s.path, target: t})
}

// lose records all that a span has as failed, or what it has below a position, since an
// evaluator did not come to its beginning, where another one was.
func (c *crew) lose(w *worker, below *position, err error) {
	lost := w.before(w.only)
	if w.only == nil {
		first, end := c.within(w.from, w.until)
		lost = c.items[first:end]
	}
	for _, at := range lost {
		if below != nil && !below.holds(at) {
			continue
		}
		r := c.source.roots[at.root]
		path := slices.Concat(c.source.base, r.Path, at.path)
		c.records = append(c.records, record{at: at, path: path, target: c.failed(c.source, path, "", err)})
	}
}

// expand puts what is in a set in its place among the items.
func (c *crew) expand(set position, names []string) {
	i := sort.Search(len(c.items), func(i int) bool { return c.items[i].compare(set) >= 0 })
	known := i < len(c.items) && c.items[i].compare(set) == 0
	if !known && i < len(c.items) && set.holds(c.items[i]) {
		return // by another evaluator
	}
	below := make([]position, len(names))
	for n, name := range names {
		below[n] = set.child(name)
	}
	slices.SortFunc(below, position.compare) // as they are, unless Nix has another order
	behind := i
	if known {
		behind++
	}
	c.items = slices.Replace(c.items, i, behind, below...)
}

func (c *crew) omit(at position, path []string) {
	if c.told[at.String()] {
		return
	}
	c.told[at.String()] = true
	c.records = append(c.records, record{at: at, path: path, omitted: true})
}

// progress tells how far the evaluators are.
func (c *crew) progress(path []string) {
	if c.o.Progress != nil {
		c.o.Progress(shown(path))
	}
	left := 0
	for _, s := range c.waiting {
		if s.only == nil {
			first, end := c.within(s.from, s.until)
			left += end - first
		}
	}
	for _, w := range c.workers {
		if w.only != nil {
			continue
		}
		first, end := c.within(w.cursor, w.until)
		left += end - first
		if !w.listing && w.cursor != nil && w.cursor.After && w.told == 0 {
			left++
		}
	}
	c.count(left)
}

func (c *crew) count(left int) {
	if c.o.Counted != nil {
		c.o.Counted(c.before+max(0, len(c.items)-left), c.before+len(c.items))
	}
}
