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

// Grace is how long a Session goes on pushing what is finished after all was told
// to stop: nearly all of the five seconds that this may take.
const Grace = 3500 * time.Millisecond

// Store is what a Session asks about what was built.
type Store interface {
	Nix
	// Built returns the outputs of derivations that are there, with DRV!* where they
	// were known only after the build, and the derivations that have others.
	Built(ctx context.Context, drvs ...string) (paths, unbuilt []string, err error)
}

// Options say how to push.
type Options struct {
	Secrets Secrets
	// Timeout is how long sending what has come together may take, before the
	// destination is given up; 0 is for ever.
	Timeout time.Duration
}

// A Session pushes to all destinations while a build goes on, so that what is
// finished is safe at once. Pushing never holds the build up.
type Session struct {
	store  Store
	built  *mailbox // derivations
	queues []*queue
	group  errgroup.Group
	cancel context.CancelFunc

	err error // of asking for what was built
}

// A Report is what became of pushing to a destination.
type Report struct {
	Destination string      // without credentials
	Paths       int         // whose closures are there
	Sent        nix.Traffic // what the destination lacked of them, as far as it is known
	Seconds     float64
	Err         error
}

// Start begins a Session. It must be finished.
func Start(ctx context.Context, store Store, to []Destination, o Options) *Session {
	s := &Session{store: store, built: newMailbox()}
	// What is finished when all is told to stop is still worth pushing.
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

// Built says that a derivation's build has ended. Those of its outputs that are
// there are pushed soon.
func (s *Session) Built(drv string) {
	if len(s.queues) > 0 {
		s.built.put(drv)
	}
}

// Push has valid paths pushed soon.
func (s *Session) Push(paths ...string) {
	for _, q := range s.queues {
		q.mail.put(paths...)
	}
}

// Finish pushes the paths too, waits until all is pushed and says what became of
// it.
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

// resolve hands the outputs of what was built on to all destinations. A build that
// has ended may not be registered yet, so it is asked for until the end.
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

// A mailbox collects what comes while its reader is busy.
type mailbox struct {
	news chan struct{} // has a value when there is something new

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
	default: // the reader will look anyway
	}
}

// take waits for something new. It gives what has come together, and whether that
// was the last.
func (m *mailbox) take() (items []string, last bool) {
	<-m.news
	m.mu.Lock()
	defer m.mu.Unlock()
	items, last, m.items = m.items, m.closed, nil
	return items, last
}

// A queue pushes to one destination. All that has come together while the last
// batch was pushed is the next one.
type queue struct {
	to    Destination
	store Store
	o     Options
	mail  *mailbox

	done    map[string]bool // pushed paths
	owed    []string        // paths that failed, to be tried once more at the end
	sent    nix.Traffic
	spent   time.Duration
	err     error
	givenUp bool
}

// paths is how many were pushed.
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
			paths = append(paths, q.owed...)
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
	sent, err := q.to.Push(limited, q.store, paths, q.o.Secrets)
	q.givenUp = limited.Err() != nil
	cancel()
	q.spent += time.Since(start)
	q.sent.Add(sent)
	switch {
	case err == nil:
		for _, path := range paths {
			q.done[path] = true
		}
		q.owed = slices.DeleteFunc(q.owed, func(path string) bool { return q.done[path] })
		if len(q.owed) == 0 {
			q.err = nil // what was owed is there now
		}
	case q.givenUp && ctx.Err() == nil:
		q.err = fmt.Errorf("push to %s: given up after %v without an end; a longer time can be given with --push-timeout (input push_timeout)", q.to.Name, q.o.Timeout)
	case q.err == nil || ctx.Err() == nil: // when pushing was told to stop, what came before says more
		q.err = err
	}
	if err != nil {
		q.owed = append(q.owed, paths...)
	}
}
