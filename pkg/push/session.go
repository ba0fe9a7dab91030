package push

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nix-community/go-nix/pkg/derivation"
	"golang.org/x/sync/errgroup"
)

// Grace is how long a Session goes on pushing what is finished after the build
// was told to stop.
const Grace = 3 * time.Second

// Store is what a Session asks about what was built.
type Store interface {
	Nix
	Derivation(path string) (*derivation.Derivation, error)
	Valid(ctx context.Context, paths ...string) (map[string]bool, error)
}

// A Session pushes to all destinations while a build goes on, so that what is
// finished is safe at once. Pushing never holds the build up.
type Session struct {
	store   Store
	secrets Secrets
	queues  []*queue
	group   errgroup.Group
	cancel  context.CancelFunc
}

// A Report is what became of pushing to a destination.
type Report struct {
	Destination string // without credentials
	Paths       int    // whose closures are there
	Seconds     float64
	Err         error
}

// Start begins a Session. It must be finished.
func Start(ctx context.Context, store Store, to []Destination, secrets Secrets) *Session {
	s := &Session{store: store, secrets: secrets}
	// What is finished when the build is told to stop is still worth pushing.
	pushing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(Grace, cancel) })
	s.cancel = func() { stop(); cancel() }
	for _, destination := range to {
		q := &queue{to: destination, more: make(chan struct{}, 1), done: map[string]bool{}}
		s.queues = append(s.queues, q)
		s.group.Go(func() error {
			q.run(pushing, s)
			return nil
		})
	}
	return s
}

// Built says that a derivation's build has ended. Those of its outputs that are
// there are pushed soon.
func (s *Session) Built(drv string) {
	for _, q := range s.queues {
		q.add(drv, nil)
	}
}

// Finish pushes the paths too, waits until all is pushed and says what became of
// it.
func (s *Session) Finish(paths []string) []Report {
	for _, q := range s.queues {
		q.add("", paths)
		q.close()
	}
	_ = s.group.Wait()
	s.cancel()
	reports := make([]Report, len(s.queues))
	for i, q := range s.queues {
		reports[i] = Report{Destination: q.to.Name, Paths: len(q.done), Seconds: q.spent.Seconds(), Err: q.err}
	}
	return reports
}

// outputs gives the outputs of derivations that are in the store.
func (s *Session) outputs(ctx context.Context, drvs []string) ([]string, error) {
	var paths []string
	for _, path := range drvs {
		drv, err := s.store.Derivation(path)
		if err != nil {
			return nil, err
		}
		for _, output := range drv.Outputs {
			if output.Path != "" { // else it is known only after the build
				paths = append(paths, output.Path)
			}
		}
	}
	valid, err := s.store.Valid(ctx, paths...)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(valid)), nil
}

// A queue holds what is to be pushed to one destination. All that has come
// together while the last batch was pushed is the next one.
type queue struct {
	to   Destination
	more chan struct{} // has a value when there is something new

	mu     sync.Mutex
	drvs   []string
	paths  []string
	closed bool

	// Of the goroutine that pushes.
	done    map[string]bool // pushed paths
	waiting []string        // derivations whose outputs could not be asked for yet
	owed    []string        // paths that failed, to be tried once more at the end
	spent   time.Duration
	err     error
}

func (q *queue) add(drv string, paths []string) {
	q.mu.Lock()
	if drv != "" {
		q.drvs = append(q.drvs, drv)
	}
	q.paths = append(q.paths, paths...)
	q.mu.Unlock()
	q.wake()
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wake()
}

func (q *queue) wake() {
	select {
	case q.more <- struct{}{}:
	default: // it will look anyway
	}
}

// take gives what has come together, and whether that was the last.
func (q *queue) take() (drvs, paths []string, last bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	drvs, paths, last = q.drvs, q.paths, q.closed
	q.drvs, q.paths = nil, nil
	return drvs, paths, last
}

func (q *queue) run(ctx context.Context, s *Session) {
	for last := false; !last; {
		<-q.more
		var drvs, paths []string
		drvs, paths, last = q.take()
		q.push(ctx, s, drvs, paths, last)
	}
}

func (q *queue) push(ctx context.Context, s *Session, drvs, paths []string, last bool) {
	q.waiting = append(q.waiting, drvs...)
	built, askErr := s.outputs(ctx, q.waiting)
	if askErr != nil {
		q.fail(ctx, askErr)
	} else {
		paths, q.waiting = append(paths, built...), nil
	}
	if last {
		paths = append(paths, q.owed...)
	}
	slices.Sort(paths)
	paths = slices.DeleteFunc(slices.Compact(paths), func(path string) bool { return q.done[path] })
	if len(paths) > 0 {
		start := time.Now()
		err := q.to.Push(ctx, s.store, paths, s.secrets)
		q.spent += time.Since(start)
		if err != nil {
			q.owed = append(q.owed, paths...)
			q.fail(ctx, err)
			return
		}
		for _, path := range paths {
			q.done[path] = true
		}
	}
	if last && askErr == nil {
		q.err = nil // what was owed is there now
	}
}

// fail keeps the error of the last try. When pushing was told to stop, what came
// before says more.
func (q *queue) fail(ctx context.Context, err error) {
	if err != nil && (q.err == nil || ctx.Err() == nil) {
		q.err = err
	}
}
