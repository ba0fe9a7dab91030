package claim

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
)

// memory is a cache in which lookups may lag, on the clock of the test.
type memory struct {
	mu       sync.Mutex
	blobs    []saved
	reserved map[string]bool
	lag      time.Duration
	lookup   time.Duration // that a lookup takes
	lastWins bool
	creates  int
	refused  int
}

type saved struct {
	key  string
	data []byte
	at   time.Time
}

func newMemory() *memory { return &memory{reserved: map[string]bool{}} }

func (m *memory) LastWins() bool { return m.lastWins }

func (m *memory) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	if err := pause(ctx, m.lookup); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, prefix := range append([]string{key}, prefixes...) {
		for _, b := range slices.Backward(m.blobs) {
			if (i == 0 && b.key == key || i > 0 && strings.HasPrefix(b.key, prefix)) && time.Since(b.at) >= m.lag {
				return &blob{b}, nil
			}
		}
	}
	return nil, cache.ErrMiss
}

func (m *memory) Save(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	return m.save(ctx, key, body, size, 0)
}

// save stores a blob a delay after the check of its key.
func (m *memory) save(ctx context.Context, key string, body io.ReaderAt, size int64, delay time.Duration) error {
	m.mu.Lock()
	m.creates++
	taken := m.reserved[key]
	if !taken && !m.lastWins {
		m.reserved[key] = true
	}
	if taken {
		m.refused++
	}
	m.mu.Unlock()
	if taken {
		return cache.ErrExists
	}
	data := make([]byte, size)
	if _, err := body.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := pause(ctx, delay); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reserved[key] = true
	m.blobs = append(m.blobs, saved{key, data, time.Now()})
	return nil
}

// change replaces the blobs whose keys have a part.
func (m *memory) change(part string, with func([]byte) []byte) (changed int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.blobs {
		if strings.Contains(m.blobs[i].key, part) {
			m.blobs[i].data = with(m.blobs[i].data)
			changed++
		}
	}
	return changed
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

type blob struct{ saved }

func (b *blob) Key() string { return b.key }
func (b *blob) Size() int64 { return int64(len(b.data)) }
func (b *blob) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b.data[offset : offset+length])), ctx.Err()
}

// host is a job: a worker with a store of its own, whose way to the cache may fail.
type host struct {
	*Worker
	fleet   *fleet
	name    string
	cache   cache.Cache
	have    []bool
	context context.Context
	cancel  context.CancelFunc
	outcome Outcome
	over    bool

	mu     sync.Mutex
	cut    bool                                    // no way to the cache, but calls return
	dead   bool                                    // nothing returns any more
	fault  func(save bool, key string) error       // before the call
	after  func(save bool, key string, err error)  // it
	build  func(ctx context.Context, u int) string // outcome, empty for built
	take   func(u int) error
	rest   func(ctx context.Context, open []bool) bool
	rests  int
	taken  []int
	warned []string
}

// fleet is a run.
type fleet struct {
	t      *testing.T
	units  []job.Unit
	memory *memory
	hosts  []*host
	wait   sync.WaitGroup

	mu       sync.Mutex
	built    []string // unit@host, when it ended well
	began    []int    // builds by unit
	building []map[string]bool
	claims   bool // two who build one unit at once are an error
}

var diamond = [][]int{{}, {0}, {0}, {1, 2}}

func newUnits(after ...[]int) []job.Unit {
	units := make([]job.Unit, len(after))
	for u := range units {
		units[u] = job.Unit{ID: fmt.Sprintf("%016x", u+1), Name: fmt.Sprint("unit", u), After: after[u], Seconds: 100, Tail: float64(100 * (len(after) - u))}
	}
	return units
}

// run has a test of a fleet run on a clock of its own.
func run(t *testing.T, after [][]int, test func(f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, units: newUnits(after...), memory: newMemory(), claims: true}
		f.began = make([]int, len(f.units))
		f.building = make([]map[string]bool, len(f.units))
		test(f)
		f.wait.Wait()
	})
}

func all(n int) []bool { return slices.Repeat([]bool{true}, n) }

// host adds a job that needs all units and may build them.
func (f *fleet) host(name string) *host {
	h := &host{name: name, fleet: f, cache: f.memory, have: make([]bool, len(f.units))}
	h.context, h.cancel = context.WithCancel(f.t.Context())
	docs := &documents.Store{Cache: h, ID: "nix-matrix", Run: 7, Attempt: 1, Trust: &action.Trust{}, Log: h}
	h.Worker = &Worker{
		Docs: docs, Units: f.units, Entry: name, URL: "https://example.org/" + name, Beat: time.Minute,
		Needs: all(len(f.units)), May: all(len(f.units)), Have: slices.Clone(h.have), Number: len(f.hosts), Hands: h, Log: h,
	}
	f.hosts = append(f.hosts, h)
	return h
}

func (f *fleet) helper(name string) *host {
	h := f.host(name)
	h.Needs, h.Helper = nil, true
	return h
}

// start starts a job.
func (h *host) start() {
	h.fleet.wait.Go(func() {
		h.outcome = h.Run(h.context)
		h.mu.Lock()
		h.over = true
		h.mu.Unlock()
	})
}

// all starts all jobs and waits for their ends.
func (f *fleet) all() {
	for _, h := range f.hosts {
		h.start()
	}
	f.wait.Wait()
}

// kill is SIGKILL.
func (h *host) kill() {
	h.mu.Lock()
	h.dead = true
	h.mu.Unlock()
	h.cancel()
}

var errCut = errors.New("connection refused")

func (h *host) before(ctx context.Context, save bool, key string) error {
	h.mu.Lock()
	cut, dead, fault := h.cut, h.dead, h.fault
	h.mu.Unlock()
	switch {
	case dead:
		return errCut
	case cut:
		return cmp.Or(pause(ctx, time.Second), errCut)
	case fault != nil:
		return fault(save, key)
	}
	return nil
}

func (h *host) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	if err := h.before(ctx, false, key); err != nil {
		return nil, err
	}
	return h.cache.Open(ctx, key, prefixes...)
}

func (h *host) Save(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if err := h.before(ctx, true, key); err != nil {
		return err
	}
	err := h.cache.Save(ctx, key, body, size)
	if h.after != nil {
		h.after(true, key, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return errCut
	}
	return err
}

func (h *host) LastWins() bool { return cache.LastWins(h.cache) }

func (h *host) Build(ctx context.Context, u int) *job.Done {
	f := h.fleet
	for _, v := range f.units[u].After {
		if !h.have[v] && !h.Near {
			f.t.Errorf("%s builds unit %d without %d", h.name, u, v)
		}
	}
	f.mu.Lock()
	f.began[u]++
	if f.building[u] == nil {
		f.building[u] = map[string]bool{}
	}
	f.building[u][h.name] = true
	if f.claims && len(f.building[u]) > 1 {
		f.t.Errorf("%s builds unit %d at the same time as others: %v", h.name, u, f.building[u])
	}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.building[u], h.name)
		f.mu.Unlock()
	}()
	outcome := ""
	if h.build != nil {
		outcome = h.build(ctx, u)
	} else if pause(ctx, 100*time.Second) != nil {
		outcome = string(job.OutcomeFailed) // Nix was interrupted
	}
	if outcome == "" {
		h.have[u] = true
		f.mu.Lock()
		f.built = append(f.built, fmt.Sprint(u, "@", h.name))
		f.mu.Unlock()
		return &job.Done{Outcome: job.OutcomeBuilt, Seconds: 100, Index: []byte(f.units[u].ID)}
	}
	done := &job.Done{Outcome: job.Outcome(outcome), Seconds: 100}
	if done.Outcome == job.OutcomeFailed {
		done.Failures = []job.Failure{{DrvPath: "/nix/store/00000000000000000000000000000000-a.drv", Error: "it fails"}}
	}
	return done
}

func (h *host) Take(ctx context.Context, units []int, done []*job.Done) []error {
	errs := make([]error, len(units))
	for i, u := range units {
		errs[i] = h.takeOne(ctx, u, done[i])
	}
	return errs
}

func (h *host) takeOne(ctx context.Context, u int, done *job.Done) error {
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	if h.take != nil {
		if err := h.take(u); err != nil {
			return err
		}
	}
	if string(done.Index) != h.fleet.units[u].ID {
		return errors.New("no pack of the unit")
	}
	h.have[u] = true
	h.taken = append(h.taken, u)
	return nil
}

func (h *host) Rest(ctx context.Context, open []bool) bool {
	h.rests++
	for u, o := range open {
		if o == h.have[u] && !h.Near {
			h.fleet.t.Errorf("%s: open is %v, and there are %v", h.name, open, h.have)
		}
	}
	return h.rest != nil && h.rest(ctx, open)
}

func (h *host) Doing(string, ...any)  {}
func (h *host) Printf(string, ...any) {}
func (h *host) Warn(title string, err error) {
	h.warned = append(h.warned, title+": "+err.Error())
}
func (h *host) Warnf(format string, args ...any) {
	h.warned = append(h.warned, fmt.Sprintf(format, args...))
}

// once fails unless each unit was built as often as said, once by default.
func (f *fleet) once(more ...int) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	want := make([]int, len(f.units))
	for u := range want {
		want[u] = 1
	}
	for _, u := range more {
		want[u]++
	}
	got := make([]int, len(f.units))
	for _, b := range f.built {
		var u int
		fmt.Sscanf(b, "%d@", &u)
		got[u]++
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("built %v, want %v: %v", got, want, f.built)
	}
}

// served fails unless each job that lives has what it needs.
func (f *fleet) served() {
	f.t.Helper()
	for _, h := range f.hosts {
		for u, needs := range h.Needs {
			if needs && !h.have[u] && !h.dead {
				f.t.Errorf("%s lacks unit %d: %+v", h.name, u, h.outcome)
			}
		}
	}
}
