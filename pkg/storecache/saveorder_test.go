package storecache

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
)

// firstWaits is a cache in which the upload of the first, large pack ends when that of the second has ended.
type firstWaits struct {
	cache.Cache
	second chan struct{} // closed when the second has ended
	fail   error         // of the first
}

func (f *firstWaits) Save(ctx context.Context, key string, from io.ReaderAt, size int64) error {
	if size < 1<<20 {
		defer close(f.second)
		return f.Cache.Save(ctx, key, from, size)
	}
	<-f.second
	return errors.Join(f.fail, f.Cache.Save(ctx, key, from, size))
}

// Several packs are uploaded at a time, and a pack counts only after those before it, on which it may lean.
func TestUploadsInOrder(t *testing.T) {
	s := &shop{}
	large := string(noise(1, 40<<20)) // more than a packer compresses at a time, so that it is a pack of its own
	s.put(t, "one", large)
	s.put(t, "two", large+"x")
	for _, fail := range []error{nil, errors.New("no more room")} {
		c := &firstWaits{Cache: open(t), second: make(chan struct{}), fail: fail}
		var progress []*Pack
		saver := &Saver{Nix: s, Cache: c, ID: "test", Size: 1, Progress: func(p *Pack) { progress = append(progress, p) }}
		packs, err := saver.Save(t.Context(), s.list)
		if !slices.Equal(progress, packs) {
			t.Errorf("progress %v, packs %v", keysOf(NewIndex(progress...)), keysOf(NewIndex(packs...)))
		}
		if fail != nil {
			if !errors.Is(err, fail) || len(packs) > 0 {
				t.Errorf("%v although the first failed, %v", keysOf(NewIndex(packs...)), err)
			}
			continue
		}
		must(t, err)
		if len(packs) != 2 || len(packs[0].leans) > 0 || len(packs[1].leans) != 1 || packs[1].leans[0].sum != packs[0].sum {
			t.Fatalf("%v", keysOf(NewIndex(packs...)))
		}
		if got, err := newMemory().restore(t, c, stored(t, c, NewIndex(packs...))); err != nil || got.Paths != 2 {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// changes is a shop in which a path has another content when it is read first.
type changes struct {
	*shop
	path  string
	reads int
}

func (c *changes) change() (back func()) {
	right := c.nars[c.path]
	if c.reads++; c.reads == 1 {
		wrong := slices.Clone(right)
		wrong[len(wrong)/2] ^= 1
		c.nars[c.path] = wrong
	}
	return func() { c.nars[c.path] = right }
}

func (c *changes) Export(ctx context.Context, dst io.Writer, infos []nix.PathInfo) error {
	defer c.change()()
	return c.shop.Export(ctx, dst, infos)
}

func (c *changes) Walk(ctx context.Context, path string, to nar.Visitor) error {
	if path == c.path {
		defer c.change()()
	}
	return c.shop.Walk(ctx, path, to)
}

// A path that does not come back from its recipe is stored whole by the second try, with all others.
func TestSaveWhole(t *testing.T) {
	for _, exports := range []bool{false, true} {
		s := &shop{exports: exports}
		for _, name := range []string{"before", "odd", "after"} {
			s.put(t, name, "this is "+pathOf(name)+", "+big(len(name)))
		}
		c := open(t)
		from := &changes{shop: s, path: pathOf("odd")}
		saver := &Saver{Nix: from, Cache: c, ID: "test", Lost: func(path string, why error) { t.Errorf("%s is lost: %v", path, why) }}
		packs, err := saver.Save(t.Context(), s.list)
		must(t, err)
		if from.reads != 2 || len(saver.whole) != 1 || !saver.whole[pathOf("odd")] {
			t.Errorf("read %d times, stored whole are %v", from.reads, saver.whole)
		}
		m := newMemory()
		if got, err := m.restore(t, c, stored(t, c, NewIndex(packs...))); err != nil || got.Paths != 3 {
			t.Errorf("%+v, %v", got, err)
		}
		for path, nar := range s.nars {
			if want := m.valid[path]; len(want) < len(nar) || want[len(want)-len(nar):] != string(nar) {
				t.Errorf("%s has another content", path)
			}
		}
	}
}

// A recorder is an engine that records the paths of its calls by their names.
type recorder struct {
	*memory
	added, finished []string
}

func (r *recorder) Add(ctx context.Context, info nix.PathInfo, nar io.Reader) error {
	r.added = append(r.added, nameOf(info.Path))
	return r.memory.Add(ctx, info, nar)
}

func (r *recorder) Finish(ctx context.Context, infos []nix.PathInfo) error {
	for _, info := range infos {
		r.finished = append(r.finished, nameOf(info.Path))
	}
	return r.memory.Finish(ctx, infos)
}

func nameOf(path string) string { return path[strings.LastIndexByte(path, '-')+1:] }

// An engine that takes paths in any order gets the largest ones first, because the last one occupies one processor alone,
// and the others in the order of the pack. All are finished in reference order.
func TestLargestFirst(t *testing.T) {
	s := &shop{}
	names := []string{"a", "b", "large", "c", "larger", "d"}
	for i, name := range names {
		s.put(t, name, string(noise(i, map[string]int{"large": 200 << 10, "larger": 300 << 10}[name]+1000+i)))
	}
	c := open(t)
	ix := stored(t, c, NewIndex(s.save(t, c, nil, names...)...))
	for ordered, want := range map[bool][]string{true: names, false: {"larger", "large", "a", "b", "c", "d"}} {
		sink := &recorder{memory: newMemory()}
		by := engine.Engine{Name: "recorder", Ordered: ordered, Parallel: 1, Begin: func(context.Context, []nix.PathInfo) (engine.Sink, error) { return sink, nil }}
		r := &Restorer{Nix: sink.memory, Engine: by, Cache: c, Index: ix}
		if _, err := r.Restore(t.Context(), pathsOf(t, ix)...); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(sink.added, want) || !slices.Equal(sink.finished, names) {
			t.Errorf("ordered %v: added are %q, finished %q", ordered, sink.added, sink.finished)
		}
	}
}

// Of a large path nothing becomes valid where one that it needs is lost, though the large one is added first.
func TestLargestFirstLost(t *testing.T) {
	s := &shop{}
	s.put(t, "low", big(1))
	s.put(t, "middle", "middle")
	s.put(t, "high", string(noise(2, 16<<20)))
	s.list[1].References = []string{pathOf("low")}
	s.list[2].References = []string{pathOf("middle")}
	c := open(t)
	packs := append(s.save(t, c, nil, "low"), s.save(t, c, nil, "middle", "high")...)
	bad := &changed{Cache: c, key: packs[0].Key, bit: 8000}
	ix := stored(t, bad, NewIndex(packs...))
	sink := &recorder{memory: newMemory()}
	by := engine.Engine{Name: "recorder", Parallel: 1, Begin: func(context.Context, []nix.PathInfo) (engine.Sink, error) { return sink, nil }}
	r := &Restorer{Nix: sink.memory, Engine: by, Cache: bad, Index: ix}
	got, err := r.Restore(t.Context(), pathOf("high"))
	if err == nil || got.Paths > 0 || len(sink.valid) > 0 || !slices.Equal(sink.added[:1], []string{"high"}) {
		t.Errorf("%+v, added are %q, valid %d, %v", got, sink.added, len(sink.valid), err)
	}
}
