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
	until *position  // before it; nil is the end
	only  []position // what to walk to within that; nil is everything
	alone bool       // what throws ends the evaluator, which says more of it then
}

// before returns the positions that the span has not come to.
func (s *span) before(all []position) []position {
	return slices.DeleteFunc(slices.Clone(all), func(p position) bool { return s.from != nil && !s.from.before(p) })
}

// A spot is what an evaluator is at.
type spot struct {
	at     position
	path   []string // as the user sees it
	wanted bool
	alive  []int  // globs that may match something below
	name   string // of the derivation, if it told
	system string
	// unavailable is where the package is defined whose own meta says that it is
	// unavailable, as far as that says.
	unavailable *string
	told        int // number of its record, from 1
}

// A worker is an evaluator.
type worker struct {
	span
	spot
	crew   *crew
	nonce  string
	cancel context.CancelCauseFunc
	result error

	listing bool
	started time.Time
	reached time.Time // when it was where it begins
	last    time.Time // when it told something
	depth   int       // length of the path of the root, once it is found
	set     contents  // of the set that it will enter
	cursor  *bound    // behind it is what it has yet to do

	finished int
	begun    bool // it tells
	done     bool // it has told all but the messages
	dying    bool
	stopped  bool // by us, since the rest is another's
	said     map[string]int

	memory  atomic.Int64  // bytes that it has
	initial int64         // of them, when its first item was done
	lead    time.Duration // that this took

	thrown   []spot // what has thrown
	again    int    // how many of those it has begun to evaluate once more
	messages *messages
}

// rest is what a worker has before it from where it is, or after that.
func (w *worker) rest(after bool) span {
	s := w.span
	s.from = &bound{Path: w.at, After: after}
	s.only = s.before(w.only)
	return s
}

// pace is how long the evaluator takes for an item, in nanoseconds; one that it
// is at counts, as it takes as long already.
func (w *worker) pace() float64 {
	return max(1, float64(time.Since(w.reached))/float64(w.finished+1))
}

func (w *worker) arguments() string {
	c := w.crew
	args := "{ }"
	if c.source.flake == "" {
		args = c.arguments()
	}
	return fmt.Sprintf("{ nonce = %s; systems = %s; currentSystem = %s; base = %s; roots = %s; flake = %t; host = %s; args = %s; globs = %s; meta = %t; list = %t; listed = %s; from = %s; until = %s; skip = %s; only = %s; catch = %t; }",
		quote(w.nonce), fromJSON(c.o.Systems), quote(c.o.System), fromJSON(append([]string{}, c.source.base...)), fromJSON(c.source.roots), c.source.flake != "",
		fromJSON(c.host), args, fromJSON(append([]glob{}, c.globs...)), c.o.Meta, w.listing, fromJSON(c.last), fromJSON(w.from), fromJSON(w.until), fromJSON(append([]position{}, c.skip...)), fromJSON(tree(w.only)), c.catch && !w.alone)
}

// stop ends an evaluator.
func (w *worker) stop(why error) {
	w.stopped = errors.Is(why, nix.ErrEnough)
	w.cancel(why)
}
