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
	// soloTime is how long an evaluator works before another may take a part of its span.
	soloTime = 500 * time.Millisecond
	// minShareTime is the least work to start another evaluator for, in addition to the time
	// that it needs to start.
	minShareTime = 500 * time.Millisecond
	// interval is how often evaluators are checked.
	interval = 100 * time.Millisecond
)

var (
	errTimeout = errors.New("the evaluation takes too long")
	// errUnfinished is the failure of an evaluator that ended early without an error.
	errUnfinished = errors.New("the evaluator ended before it had finished, without an error")
)

// A pool holds the evaluators that walk through a source. Each walks through a part, a span.
// An idle one takes the latter part of another one's span, and the other one is stopped when
// it comes there, because an evaluator takes no messages.
type pool struct {
	*evaluation
	source source
	cancel context.CancelFunc
	group  errgroup.Group
	ended  chan *worker

	mu          sync.Mutex // for all below, and for the evaluation
	limit       int        // evaluators at once
	items       []position // known attributes and sets, in the order of the walk
	listed      bool       // all sets that the schema of flakes knows are listed
	last        *position  // the set that was listed last before an evaluator died
	skip        []position // sets that cannot be listed
	waiting     []span
	unexplained []position // have thrown in evaluators that ended before they reported the message
	catch       bool       // evaluators continue after a throw, and report the messages at the end
	located     int        // assertions that were evaluated again for their positions
	workers     []*worker
	retried     map[string]bool // positions at which an evaluator ran out of memory after other items
	reported    map[string]bool // positions of omitted attributes, and of unnameable ones
	records     []record
	shadowed    map[int]bool  // roots whose path is also that of a package
	startTime   time.Duration // until an evaluator begins to walk
	walked      time.Duration // by evaluators that have ended, in total
	done        int           // items of those evaluators
	err         error
}

func newPool(d *evaluation, s source) *pool {
	p := &pool{evaluation: d, source: s, limit: d.o.Workers, ended: make(chan *worker, d.o.Workers), retried: map[string]bool{}, reported: map[string]bool{}, shadowed: map[int]bool{}, waiting: []span{{}}, catch: true}
	for n, r := range s.roots {
		p.items = append(p.items, position{root: n})
		p.known = append(p.known, shown(append(slices.Clone(s.base), r.Path...)))
	}
	return p
}

// run walks through the source until all of it is done.
func (p *pool) run(ctx context.Context) error {
	ctx, p.cancel = context.WithCancel(ctx)
	defer p.cancel()
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for p.assign(ctx) {
		select {
		case w := <-p.ended:
			p.handleExit(ctx, w)
		case <-ticks.C:
			p.supervise()
		}
	}
	_ = p.group.Wait() // they have no errors
	switch {
	case p.err != nil:
		return p.err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	p.count(0)
	p.before += len(p.items)
	return nil
}

// fail ends the whole evaluation.
func (p *pool) fail(err error) {
	if p.err == nil {
		p.err = err
	}
	for _, w := range p.workers {
		w.cancel(nix.ErrEnough)
	}
	p.cancel()
}

// assign starts evaluators, as many as there is work for, and reports whether any is running.
func (p *pool) assign(ctx context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ctx.Err() == nil && len(p.workers) < p.limit && (p.listed || len(p.workers) == 0) {
		s, ok := p.next()
		if !ok {
			s, ok = p.nextUnexplained()
		}
		if !ok {
			break
		}
		p.start(ctx, s)
	}
	return len(p.workers) > 0
}

// next returns a span for another evaluator.
func (p *pool) next() (span, bool) {
	for len(p.waiting) > 0 {
		s := p.waiting[0]
		p.waiting = p.waiting[1:]
		if s.only != nil {
			if len(s.only) > 0 {
				return s, true
			}
			continue
		}
		first, end := p.itemsBetween(s.from, s.until)
		if first == end {
			continue
		}
		// Two have to be started anyway, so less work is worth it.
		half := (first + end + 1) / 2
		if len(p.workers)+1 < p.limit && len(p.waiting) == 0 && half < end && float64(end-half)*p.pace() > float64(p.startTime/2) {
			middle := p.items[half]
			p.waiting = append(p.waiting, span{from: &bound{Path: middle}, until: s.until})
			s.until = &middle
		}
		return s, true
	}
	return p.share()
}

// share takes the latter part of the span of the evaluator that will be busy for longest.
func (p *pool) share() (s span, ok bool) {
	var busiest *worker
	var most float64
	for _, w := range p.workers {
		if w.reached.IsZero() || w.stopped || w.done || w.only != nil || time.Since(w.reached) < soloTime {
			continue
		}
		first, end := p.itemsBetween(w.cursor, w.until)
		if left := float64(end-first) * w.pace(); left > most {
			busiest, most = w, left
		}
	}
	if busiest == nil {
		return span{}, false
	}
	first, end := p.itemsBetween(busiest.cursor, busiest.until)
	pace := busiest.pace()
	part := (end - first + 1) / 2
	part -= int(float64(p.startTime) / pace / 2) // the other one continues meanwhile
	if part < 1 || float64(part)*pace < float64(p.startTime+minShareTime) {
		return span{}, false
	}
	middle := p.items[end-part]
	s = span{from: &bound{Path: middle}, until: busiest.until}
	busiest.until = &middle
	return s, true
}

// itemsBetween returns the items between bounds, as indexes.
func (p *pool) itemsBetween(from *bound, until *position) (first, end int) {
	end = len(p.items)
	if from != nil {
		first = sort.Search(len(p.items), func(i int) bool { return from.before(p.items[i]) })
	}
	if until != nil {
		end = sort.Search(len(p.items), func(i int) bool { return p.items[i].compare(*until) >= 0 })
	}
	return first, max(first, end)
}

// pace returns the mean time of an item so far, in nanoseconds.
func (p *pool) pace() float64 {
	walked, done := p.walked, p.done
	for _, w := range p.workers {
		if !w.reached.IsZero() {
			walked += time.Since(w.reached)
			done += w.finished
		}
	}
	return float64(walked) / float64(done+1)
}

func (p *pool) start(ctx context.Context, s span) {
	now := time.Now()
	w := &worker{
		span: s, pool: p, cursor: s.from, depth: -1, listing: !p.listed, started: now, last: now, lineCounts: map[string]int{},
		nonce: "nix-matrix-" + strings.ToLower(rand.Text()),
	}
	w.messages = newMessages(w.nonce)
	ctx, w.cancel = context.WithCancelCause(ctx)
	p.workers = append(p.workers, w)
	e := nix.Evaluation{
		Flake:       p.source.flake,
		Attr:        p.source.attr(),
		Expr:        p.source.expr,
		Path:        p.o.NixPath,
		Printed:     w.messages,
		Apply:       walker() + " " + w.arguments(),
		MemoryLimit: p.o.MemoryLimit,
		InitialHeap: p.initialHeap,
		Used:        &w.memory,
	}
	p.group.Go(func() error {
		defer w.cancel(nil)
		w.result = p.eval.Eval(ctx, e, w.line)
		if cause := context.Cause(ctx); w.result != nil && errors.Is(cause, errTimeout) {
			w.result = cause
		}
		if w.result == nil && !w.done {
			w.result = errUnfinished
		}
		p.ended <- w
		return nil
	})
}

// supervise stops evaluators that take too long for an attribute.
func (p *pool) supervise() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if p.o.Timeout > 0 && !w.stopped && time.Since(w.last) > p.o.Timeout {
			w.cancel(errTimeout) // without effect the second time
		}
	}
}

// handleExit handles the end of an evaluator: it records a failure, and queues the rest of the
// span.
func (p *pool) handleExit(ctx context.Context, w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.workers = slices.DeleteFunc(p.workers, func(other *worker) bool { return other == w })
	if !w.reached.IsZero() {
		p.walked += time.Since(w.reached)
		p.done += w.finished
	}
	err := w.result
	explained := p.explain(w)
	switch {
	case err == nil || w.done && explained || w.stopped || p.err != nil || ctx.Err() != nil:
	case w.done: // its span is complete, but perhaps not all of its derivations are in the store
		p.Incomplete = true
	case !w.begun && w.from == nil && w.only == nil && len(p.skip) == 0:
		if !p.source.absent(err) {
			p.fail(&outputError{p.source.name, p.describe(err)})
		}
	case w.listing && w.begun:
		at := w.at
		p.last = &at
		p.skip = append(p.skip, at)
		p.recordFailure(w, w.spot, err)
		p.waiting = append(p.waiting, w.span)
	case w.at.root == beforeAll.root:
		p.waiting = append(p.waiting, w.span) // for an evaluator that does not list
	case !w.begun || w.from != nil && !w.from.before(w.at):
		p.recordLost(w, nil, err)
	case w.told == 0 && w.finished > 0 && p.outOfMemory(err) && !p.retried[w.at.String()]:
		// Perhaps not this item needs so much memory, but all items so far together.
		p.retried[w.at.String()] = true
		p.waiting = append(p.waiting, w.rest(false))
	default:
		if w.told == 0 {
			p.recordFailure(w, w.spot, err)
		} else { // only its description is missing
			p.Incomplete = true
		}
		p.waiting = append(p.waiting, w.rest(true))
	}
}

// describe returns an error for the user: about a limit where one was exceeded, else with
// advice.
func (p *pool) describe(err error) error {
	if errors.Is(err, errTimeout) || errors.Is(err, nix.ErrMemory) {
		message, _ := p.message(err)
		return errors.New(message)
	}
	return fmt.Errorf("%w%s", err, advice(p.source.flake, fullMessage(err)))
}

// outOfMemory reports whether an evaluator probably ended for want of memory. If it was killed
// for that, the pool is not to grow any more.
func (p *pool) outOfMemory(err error) bool {
	if errors.Is(err, nix.ErrMemory) {
		return true
	}
	var failed *nix.Error
	if !errors.As(err, &failed) || !failed.Signaled() && failed.Message != "out of memory" {
		return false
	}
	p.limit = max(1, len(p.workers)) // together, they need too much
	return true
}

// recordFailure records that an attribute cannot be evaluated, or that its package forbids to
// build it.
func (p *pool) recordFailure(w *worker, s spot, err error) {
	p.hit(s.alive)
	if !s.wanted { // it may be a set in which a glob would have matched something
		p.Incomplete = true
		message, _ := p.message(err)
		w.log(fmt.Sprintf("ignoring %s, which cannot be evaluated: %s", shown(s.path), message))
		return
	}
	if len(s.path) == 0 && s.name == "" { // all of a file
		p.fail(&outputError{p.source.name, p.describe(err)})
		return
	}
	path := s.targetPath()
	t := p.failed(p.source, path, s.name, err)
	if s.unavailable != nil && !t.Kind.IsHost() {
		if reason, ok := refusedFor(t.Error, s.name, *s.unavailable, s.system); ok {
			t = p.refused(p.source, path, s.name, s.system, "because it "+reason)
		}
	}
	p.records = append(p.records, record{at: s.at, path: path, target: t})
}

// recordLost records all items of a span, or those below a position, as failed, because an
// evaluator did not come to the beginning of its span, although another one had been there.
func (p *pool) recordLost(w *worker, below *position, err error) {
	lost := w.before(w.only)
	if w.only == nil {
		first, end := p.itemsBetween(w.from, w.until)
		lost = p.items[first:end]
	}
	for _, at := range lost {
		if below != nil && !below.contains(at) {
			continue
		}
		r := p.source.roots[at.root]
		path := slices.Concat(p.source.base, r.Path, at.path)
		p.records = append(p.records, record{at: at, path: path, target: p.failed(p.source, path, "", err)})
	}
}

// insert puts the names in a set in their place among the items.
func (p *pool) insert(set position, names []string) {
	i := sort.Search(len(p.items), func(i int) bool { return p.items[i].compare(set) >= 0 })
	known := i < len(p.items) && p.items[i].compare(set) == 0
	if !known && i < len(p.items) && set.contains(p.items[i]) {
		return // another evaluator has reported them
	}
	below := make([]position, len(names))
	for n, name := range names {
		below[n] = set.child(name)
	}
	slices.SortStableFunc(below, position.compare) // sorted already, unless Nix has another order
	behind := i
	if known {
		behind++
	}
	p.items = slices.Replace(p.items, i, behind, below...)
}

func (p *pool) omit(at position, path []string) {
	if p.reported[at.String()] {
		return
	}
	p.reported[at.String()] = true
	p.records = append(p.records, record{at: at, path: path, omitted: true})
}

// progress reports how far the evaluators are.
func (p *pool) progress(path []string) {
	if p.o.Progress != nil {
		p.o.Progress(shown(path))
	}
	left := 0
	for _, s := range p.waiting {
		if s.only == nil {
			first, end := p.itemsBetween(s.from, s.until)
			left += end - first
		}
	}
	for _, w := range p.workers {
		if w.only != nil {
			continue
		}
		first, end := p.itemsBetween(w.cursor, w.until)
		left += end - first
		if !w.listing && w.cursor != nil && w.cursor.After && w.told == 0 {
			left++
		}
	}
	p.count(left)
}

func (p *pool) count(left int) {
	if p.o.Counted != nil {
		p.o.Counted(p.before+max(0, len(p.items)-left), p.before+len(p.items))
	}
}
