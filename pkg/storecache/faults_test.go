package storecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

// memory is an engine that keeps the NARs of valid paths.
type memory struct {
	mu    sync.Mutex
	added map[string]string
	valid map[string]string
}

func (m *memory) engine() engine.Engine {
	return engine.Engine{Name: "memory", Parallel: 4, Begin: func(context.Context, []nix.PathInfo) (engine.Sink, error) { return m, nil }}
}

func (m *memory) Add(_ context.Context, info nix.PathInfo, nar io.Reader) error {
	data, err := io.ReadAll(nar)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.added[info.Path] = fmt.Sprint(info, string(data))
	return nil
}

func (m *memory) Finish(_ context.Context, infos []nix.PathInfo) error {
	for _, info := range infos {
		m.valid[info.Path] = m.added[info.Path]
	}
	return nil
}

func (m *memory) Close() error { return nil }

func newMemory() *memory { return &memory{added: map[string]string{}, valid: map[string]string{}} }

// There are no substituters.
func (m *memory) Valid(_ context.Context, paths ...string) (map[string]bool, error) {
	valid := map[string]bool{}
	for _, path := range paths {
		if _, ok := m.valid[path]; ok {
			valid[path] = true
		}
	}
	return valid, nil
}
func (m *memory) AddTempRoots(context.Context, ...string) (nix.Roots, error) {
	return memoryRoots{m}, nil
}

type memoryRoots struct{ *memory }

func (r memoryRoots) Valid(paths ...string) (map[string]bool, error) {
	return r.memory.Valid(context.Background(), paths...)
}

func (m *memory) Substitute(context.Context, func(nix.Traffic), ...string) error {
	return errors.New("there is none")
}
func (m *memory) restore(t *testing.T, c cache.Cache, ix *Index) (Restored, error) {
	t.Helper()
	r := &Restorer{Nix: m, Engine: m.engine(), Cache: c, Index: ix}
	return r.Restore(t.Context(), pathsOf(t, ix)...)
}

// changed is a cache whose blobs have one bit flipped, or are cut.
type changed struct {
	cache.Cache
	key string
	bit int64
}

func (c changed) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	blob, err := c.Cache.Open(ctx, key, prefixes...)
	if err != nil || blob.Key() != c.key {
		return blob, err
	}
	return changedBlob{blob, c.bit}, nil
}

type changedBlob struct {
	cache.Blob
	bit int64
}

func (b changedBlob) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	r, err := b.Blob.Range(ctx, offset, length)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if at := b.bit/8 - offset; at >= 0 && at < int64(len(data)) {
		data[at] ^= 1 << (b.bit % 8)
	}
	return io.NopCloser(bytes.NewReader(data)), err
}

// hesitant is a cache that opens more than atOnce blobs only when one of the first was read.
type hesitant struct {
	cache.Cache
	opened atomic.Int32
	read   chan struct{}
	once   sync.Once
}

func (h *hesitant) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	if h.opened.Add(1) > atOnce {
		select {
		case <-h.read:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	blob, err := h.Cache.Open(ctx, key, prefixes...)
	return hesitantBlob{blob, h}, err
}

type hesitantBlob struct {
	cache.Blob
	of *hesitant
}

func (b hesitantBlob) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	b.of.once.Do(func() { close(b.of.read) })
	return b.Blob.Range(ctx, offset, length)
}

// Paths in many packs are read before all packs are looked up.
func TestManyPacks(t *testing.T) {
	c := &hesitant{Cache: open(t), read: make(chan struct{})}
	var packs []*Pack
	for i := range 3 * atOnce {
		p, data := packOf(t, fmt.Sprintf("pack%02d", i), nil, fmt.Sprintf("path%d", i))
		must(t, c.Save(t.Context(), p.Key, bytes.NewReader(data), p.Size))
		packs = append(packs, p)
	}
	if got, err := newMemory().restore(t, c, NewIndex(packs...)); err != nil || got.Paths != len(packs) {
		t.Errorf("%+v, %v", got, err)
	}
}

// With any bit of a pack or an index flipped, only paths with the saved content become valid, and
// only paths in the changed part and their referrers are lost.
func TestFlippedBits(t *testing.T) {
	seal, err := pack.NewKey("a secret for the tests")
	must(t, err)
	for _, key := range []*pack.Key{nil, seal} {
		c := open(t)
		k := IndexKey{ID: "test", System: "x86_64-linux", Seal: key}
		var packs []*Pack
		var bits int64
		for i, files := range [][]string{{"low", "left:low", "right:low"}, {"top:left right top", "alone"}} {
			p, data := packOf(t, fmt.Sprint("pack", i), key, files...)
			must(t, c.Save(t.Context(), p.Key, bytes.NewReader(data), p.Size))
			packs = append(packs, p)
			bits += 8 * p.Size
		}
		must(t, NewIndex(packs...).Save(t.Context(), c, k, "main", "", 0))
		index, err := c.Open(t.Context(), "none", k.start(indexVersion, "main"))
		must(t, err)
		load := func(c cache.Cache) (*Index, error) { return Load(t.Context(), c, k, "main") }
		ix, err := load(c)
		must(t, err)
		want := newMemory()
		if got, err := want.restore(t, c, ix); err != nil || got.Paths != 5 || len(want.valid) != 5 {
			t.Fatalf("%+v, %v", got, err)
		}
		random := rand.New(rand.NewPCG(1, 2))
		harmless, harmful := 0, 0
		for range 1000 {
			broken := changed{Cache: c, key: index.Key(), bit: random.Int64N(8*index.Size() + bits)}
			if broken.bit >= 8*index.Size() {
				broken.bit -= 8 * index.Size()
				for _, p := range packs {
					if broken.key = p.Key; broken.bit < 8*p.Size {
						break
					}
					broken.bit -= 8 * p.Size
				}
			}
			m := newMemory()
			ix, err := load(broken)
			if broken.key == index.Key() {
				if !errors.Is(err, pack.ErrCorrupt) && !errors.Is(err, pack.ErrKey) && !errors.Is(err, pack.ErrSeal) {
					t.Fatalf("bit %d of the index: %v", broken.bit, err)
				}
			} else {
				must(t, err)
			}
			got, err := m.restore(t, broken, ix)
			if err != nil && !errors.Is(err, ErrSource) {
				t.Fatalf("bit %d of %s: %v", broken.bit, broken.key, err)
			}
			if got.Paths != len(m.valid) {
				t.Errorf("bit %d of %s: %+v of %d", broken.bit, broken.key, got, len(m.valid))
			}
			for path, what := range m.valid {
				if want.valid[path] != what {
					t.Fatalf("bit %d of %s: %s is %q", broken.bit, broken.key, path, what)
				}
			}
			if len(m.valid) == len(want.valid) {
				harmless++ // in the pack's own index, which is not read
			} else {
				harmful++
			}
		}
		if harmless == 0 || harmful == 0 {
			t.Errorf("%d changes did harm, %d none", harmful, harmless)
		}
	}
}
