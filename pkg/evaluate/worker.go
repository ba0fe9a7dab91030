package evaluate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/org/nix-matrix/pkg/nix"
)

// A span is a part of the walk.
type span struct {
	from  *bound     // nil is the beginning
	until *position  // exclusive; nil is the end
	only  []position // to walk to within that; nil is everything
	alone bool       // a throw ends the evaluator, so that Nix prints more about it
}

// before returns the positions that the span has not passed.
func (s *span) before(all []position) []position {
	return slices.DeleteFunc(slices.Clone(all), func(p position) bool { return s.from != nil && !s.from.before(p) })
}

// A spot is the attribute that an evaluator is at.
type spot struct {
	at     position
	path   []string // as the user sees it
	suffix []string // from there to the target, until that is named
	wanted bool
	alive  []int  // globs that may match something below
	name   string // of the derivation, once it is known
	system string
	// unavailable is the position of a package whose own meta says that it is unavailable;
	// empty if meta has no position.
	unavailable *string
	told        int // number of its record, from 1
}

// targetPath returns the path of the target that is there, if there is one.
func (s *spot) targetPath() []string { return slices.Concat(s.path, s.suffix) }

// A worker is an evaluator.
type worker struct {
	span
	spot
	pool   *pool
	nonce  string
	cancel context.CancelCauseFunc
	result error

	listing  bool
	started  time.Time
	reached  time.Time // when it came to the beginning of its span
	last     time.Time // of its last event
	depth    int       // length of the path of the root, once it is found
	contents contents  // of the set that it enters next
	cursor   *bound    // the rest of its span begins here

	finished   int
	begun      bool // it has reported something
	done       bool // it has reported all but the messages
	dying      bool
	stopped    bool // by us, because another one has the rest
	lineCounts map[string]int

	memory          atomic.Int64  // in bytes
	firstItemMemory int64         // when its first item was done
	firstItemTime   time.Duration // until then

	thrown   []spot // attributes that have thrown
	again    int    // how many of those it has begun to evaluate again
	messages *messages
}

// rest returns the part of the span from the position of the worker on, or after it.
func (w *worker) rest(after bool) span {
	s := w.span
	s.from = &bound{Path: w.at, After: after}
	s.only = s.before(w.only)
	return s
}

// pace returns the mean time that the evaluator takes for an item, in nanoseconds, the item in
// progress included.
func (w *worker) pace() float64 {
	return max(1, float64(time.Since(w.reached))/float64(w.finished+1))
}

func (w *worker) arguments() string {
	p := w.pool
	args := "{ }"
	if p.source.flake == "" {
		args = p.arguments()
	}
	return fmt.Sprintf("{ nonce = %s; systems = %s; currentSystem = %s; base = %s; roots = %s; flake = %t; host = %s; args = %s; globs = %s; meta = %t; list = %t; listed = %s; from = %s; until = %s; skip = %s; only = %s; catch = %t; }",
		quote(w.nonce), fromJSON(p.o.Systems), quote(p.o.System), fromJSON(append([]string{}, p.source.base...)), fromJSON(p.source.roots), p.source.flake != "",
		fromJSON(p.host), args, fromJSON(append([]glob{}, p.globs...)), p.o.Meta, w.listing, fromJSON(p.last), fromJSON(w.from), fromJSON(w.until), fromJSON(append([]position{}, p.skip...)), fromJSON(tree(w.only)), p.catch && !w.alone)
}

// stop ends an evaluator.
func (w *worker) stop(why error) {
	w.stopped = errors.Is(why, nix.ErrEnough)
	w.cancel(why)
}
