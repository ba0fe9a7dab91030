package push

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/nix"
)

// Grace is how long a Session still pushes finished paths after its context has ended: nearly
// all of the five seconds that stopping may take.
const Grace = 3500 * time.Millisecond

// Store is what a Session needs of Nix.
type Store interface {
	Nix
	// Built returns the valid outputs of derivations, with DRV!* where they were known only
	// after the build, and the derivations with outputs that are not valid.
	Built(ctx context.Context, drvs ...string) (paths, unbuilt []string, err error)
}

// Options say how to push.
type Options struct {
	Secrets Secrets
	// Timeout is how long the push of a batch may take before the destination is given up;
	// 0 is no limit.
	Timeout time.Duration
	// Filter decides which paths are pushed; nil lets all through.
	Filter *Filter
}

// A Session pushes to all destinations while a build goes on, so that finished paths are safe
// at once. Pushing never holds the build up.
type Session struct {
	store  Store
	built  *mailbox // derivations
	queues []*queue
	group  errgroup.Group
	cancel context.CancelFunc

	err error // of Store.Built
}

// A Report is the result of pushing to a destination.
type Report struct {
	Destination string      // without credentials
	Paths       int         // whose closures have arrived
	Sent        nix.Traffic // the part that the destination lacked, as far as it is known
	Seconds     float64
	Err         error
}

// Start begins a Session. The caller must call Finish.
func Start(ctx context.Context, store Store, to []Destination, o Options) *Session {
	s := &Session{store: store, built: newMailbox()}
	// Paths that are finished when the context ends are still worth pushing.
	pushing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(Grace, cancel) })
	s.cancel = func() { stop(); cancel() }
	for _, destination := range to {
		q := &queue{to: destination, store: store, o: o, mail: newMailbox(), done: map[string]bool{}}
		s.queues = append(s.queues, q)
		s.group.Go(func() error {
			q.run(pushing)
			return nil
		})
	}
	s.group.Go(func() error {
		s.resolve(pushing)
		return nil
	})
	return s
}

// Built pushes the valid outputs of a derivation whose build has ended, soon.
func (s *Session) Built(drv string) {
	if len(s.queues) > 0 {
		s.built.put(drv)
	}
}

// Push pushes valid paths, soon.
func (s *Session) Push(paths ...string) {
	for _, q := range s.queues {
		q.mail.put(paths...)
	}
}

// Finish pushes the paths too, waits until everything is pushed, and returns a Report for each
// destination.
func (s *Session) Finish(paths []string) []Report {
	s.Push(paths...)
	s.built.close()
	_ = s.group.Wait()
	s.cancel()
	reports := make([]Report, len(s.queues))
	for i, q := range s.queues {
		reports[i] = Report{Destination: q.to.Name, Paths: q.paths(), Sent: q.sent, Seconds: q.spent.Seconds(), Err: errors.Join(q.err, s.err)}
	}
	return reports
}

// resolve hands the outputs of built derivations to all destinations. Outputs of a build that
// has ended may not be registered yet, so they are queried until the end.
func (s *Session) resolve(ctx context.Context) {
	var waiting []string
	for last := false; !last; {
		var drvs, paths []string
		drvs, last = s.built.take()
		if waiting = append(waiting, drvs...); len(waiting) == 0 {
			continue
		}
		var unbuilt []string
		if paths, unbuilt, s.err = s.store.Built(ctx, waiting...); s.err != nil {
			continue
		}
		waiting = unbuilt
		s.Push(paths...)
	}
	for _, q := range s.queues {
		q.mail.close()
	}
}

// A mailbox collects items while its reader is busy.
type mailbox struct {
	news chan struct{} // has a value when there are new items

	mu     sync.Mutex
	items  []string
	closed bool
}

func newMailbox() *mailbox { return &mailbox{news: make(chan struct{}, 1)} }

func (m *mailbox) put(items ...string) {
	if len(items) == 0 {
		return
	}
	m.mu.Lock()
	m.items = append(m.items, items...)
	m.mu.Unlock()
	m.wake()
}

func (m *mailbox) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.wake()
}

func (m *mailbox) wake() {
	select {
	case m.news <- struct{}{}:
	default: // the reader is already woken
	}
}

// take waits for new items. It returns all of them, and whether they are the last.
func (m *mailbox) take() (items []string, last bool) {
	<-m.news
	m.mu.Lock()
	defer m.mu.Unlock()
	items, last, m.items = m.items, m.closed, nil
	return items, last
}

// A queue pushes to one destination. The paths that come while a batch is pushed are the next
// batch.
type queue struct {
	to    Destination
	store Store
	o     Options
	mail  *mailbox

	done    map[string]bool // pushed paths
	failed  []string        // paths, which are tried once more at the end
	sent    nix.Traffic
	spent   time.Duration
	err     error
	givenUp bool
}

// paths returns how many paths were pushed.
func (q *queue) paths() (n int) {
	for path := range q.done {
		if !IsDerivation(path) {
			n++
		}
	}
	return n
}

func (q *queue) run(ctx context.Context) {
	for last := false; !last; {
		var paths []string
		paths, last = q.mail.take()
		if last {
			paths = append(paths, q.failed...)
		}
		slices.Sort(paths)
		paths = slices.DeleteFunc(slices.Compact(paths), func(path string) bool { return q.done[path] })
		if len(paths) > 0 && !q.givenUp {
			q.push(ctx, paths)
		}
	}
}

func (q *queue) push(ctx context.Context, paths []string) {
	limited, cancel := ctx, context.CancelFunc(func() {})
	if q.o.Timeout > 0 {
		limited, cancel = context.WithTimeout(ctx, q.o.Timeout)
	}
	start := time.Now()
	var sent nix.Traffic
	pass, err := q.o.Filter.pass(limited, q.store, paths)
	if err == nil && len(pass) > 0 {
		sent, err = q.to.Push(limited, q.store, pass, q.o.Secrets)
	}
	q.givenUp = limited.Err() != nil
	cancel()
	q.spent += time.Since(start)
	q.sent.Add(sent)
	switch {
	case err == nil:
		for _, path := range pass {
			q.done[path] = true
		}
		q.failed = slices.DeleteFunc(q.failed, func(path string) bool { return slices.Contains(paths, path) })
		if len(q.failed) == 0 {
			q.err = nil // all paths have arrived
		}
	case q.givenUp && ctx.Err() == nil:
		q.err = fmt.Errorf("push to %s: timeout after %v. Set a longer one with --push-timeout (input push_timeout)", q.to.Name, q.o.Timeout)
	case q.err == nil || ctx.Err() == nil: // after the context has ended, an earlier error says more
		q.err = err
	}
	if err != nil {
		q.failed = append(q.failed, paths...)
	}
}
