package storecache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/pkg/cache"
)

// A sender is a cache that sends blobs while they are written.
type sender struct {
	cache.Collectable
	fail error // of a blob
	soon bool  // it fails before the blob is written

	mu    sync.Mutex
	early []string // keys
	ended []error  // of these saves

	began chan struct{} // closed when the first save has begun
	once  sync.Once
}

func newSender(t *testing.T) *sender {
	t.Helper()
	return &sender{Collectable: open(t).(cache.Collectable), began: make(chan struct{})}
}

func (s *sender) SaveGrowing(ctx context.Context, key string, body cache.Growing) error {
	err := s.send(ctx, key, body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.early, s.ended = append(s.early, key), append(s.ended, err)
	return err
}

func (s *sender) send(ctx context.Context, key string, body cache.Growing) error {
	if _, err := s.Open(ctx, key); err == nil {
		return cache.ErrExists
	}
	s.once.Do(func() { close(s.began) })
	if s.soon {
		return s.fail
	}
	size, _, err := body.Grown(ctx, math.MaxInt64)
	if err != nil {
		return fmt.Errorf("the end: %w", err)
	}
	if s.fail != nil {
		return s.fail
	}
	return s.Save(ctx, key, body, size)
}

// large returns a content whose pack is uploaded while it is written, even if the packer has read most of it ahead.
func large(seed int) string { return string(noise(seed, 12*smallPack)) }

// waiting is a shop of which the last bytes are read when an upload has begun.
type waiting struct {
	*shop
	began <-chan struct{}
}

func (w *waiting) Walk(ctx context.Context, path string, to nar.Visitor) error {
	return w.shop.Walk(ctx, path, &waitingVisitor{Visitor: to, left: int64(len(w.nars[path])) - smallPack/2, began: w.began})
}

type waitingVisitor struct {
	nar.Visitor
	left  int64
	began <-chan struct{}
}

func (w *waitingVisitor) Filled(n int) error {
	if w.left -= int64(n); w.left < 0 {
		<-w.began
	}
	return w.Visitor.Filled(n)
}

// A large pack is uploaded while it is written, a small one when it is complete. Equal ones are stored once.
func TestSaveGrowing(t *testing.T) {
	c := newSender(t)
	s := &shop{}
	s.put(t, "large", large(1))
	s.put(t, "small", big(1))
	small := s.save(t, c, nil, "small")
	if len(c.early) > 0 || len(small) != 1 {
		t.Errorf("%d small packs, early are %q", len(small), c.early)
	}
	packs, err := (&Saver{Nix: &waiting{s, c.began}, Cache: c, ID: "test"}).Save(t.Context(), s.infos("large"))
	must(t, err)
	if len(packs) != 1 || !slices.Equal(c.early, []string{packs[0].Key}) {
		t.Fatalf("saved %q, early are %q", keysOf(NewIndex(packs...)), c.early)
	}
	if again := s.save(t, c, nil, "large"); len(again) != 1 || again[0].Key != packs[0].Key || again[0].sum != packs[0].sum || again[0].sums == nil {
		t.Errorf("saved again as %q", keysOf(NewIndex(again...)))
	}
	if all, err := c.List(t.Context(), ""); len(all) != 2 || err != nil {
		t.Errorf("the cache has %v, %v", all, err)
	}
	m := newMemory()
	if got, err := m.restore(t, c, stored(t, c, NewIndex(packs...))); err != nil || got.Paths != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if want := m.valid[pathOf("large")]; !strings.HasSuffix(want, string(s.nars[pathOf("large")])) {
		t.Error("another content is restored")
	}
}

// A pack whose early key is taken by something else is stored under another one.
func TestSaveGrowingTaken(t *testing.T) {
	c := newSender(t)
	s := &shop{}
	s.put(t, "large", large(1))
	packs := s.save(t, c, nil, "large")
	must(t, c.Remove(t.Context(), packs[0].Key))
	must(t, c.Save(t.Context(), packs[0].Key, strings.NewReader("another"), 7))
	again := s.save(t, c, nil, "large")
	if len(again) != 1 || again[0].Key == packs[0].Key || again[0].sum != packs[0].sum {
		t.Fatalf("saved as %q and %q", keysOf(NewIndex(packs...)), keysOf(NewIndex(again...)))
	}
	if got, err := newMemory().restore(t, c, stored(t, c, NewIndex(again...))); err != nil || got.Paths != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Of a pack that is not finished nothing is stored, and the next try is another pack.
func TestSaveGrowingFails(t *testing.T) {
	c := newSender(t)
	s := &shop{}
	s.put(t, "large", large(1))
	s.put(t, "odd", large(2))
	from := &changes{shop: s, path: pathOf("odd")}
	saver := &Saver{Nix: from, Cache: c, ID: "test"}
	packs, err := saver.Save(t.Context(), s.list)
	must(t, err)
	if len(c.ended) == 0 || !errors.Is(c.ended[0], errNoPack) {
		t.Errorf("the first save ended with %v", c.ended)
	}
	if all, err := c.List(t.Context(), ""); len(all) != len(packs) || err != nil {
		t.Errorf("the cache has %v, %v", all, err)
	}
	if got, err := newMemory().restore(t, c, stored(t, c, NewIndex(packs...))); err != nil || got.Paths != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, soon := range []bool{false, true} {
		full := newSender(t)
		full.fail, full.soon = errors.New("no more room"), soon
		saver := &Saver{Nix: &waiting{s, full.began}, Cache: full, ID: "test"}
		if packs, err := saver.Save(t.Context(), s.infos("large")); err == nil || err.Error() != "cannot save: cannot upload a pack: no more room" || len(packs) > 0 {
			t.Errorf("soon %v: %d packs, %v", soon, len(packs), err)
		}
	}
}
