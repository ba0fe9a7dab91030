package storecache

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/cachetest"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

// A shop is a store in memory with paths that are one file each, and no references.
type shop struct {
	nars    map[string][]byte
	list    []nix.PathInfo
	exports bool // and can't be walked, like one on another machine
}

// put adds a path with a content.
func (s *shop) put(t *testing.T, name, content string) {
	t.Helper()
	if s.nars == nil {
		s.nars = map[string][]byte{}
	}
	c := nar.NewComposer()
	b, err := c.Append(nil, nar.Node{Kind: nar.File, Size: int64(len(content))})
	must(t, err)
	b, err = c.Finish(append(b, content...))
	must(t, err)
	path := pathOf(name)
	s.nars[path] = b
	s.list = append(s.list, nix.PathInfo{Path: path, NarHash: fmt.Sprintf("%x", sha256.Sum256(b)), NarSize: int64(len(b))})
}

// infos returns the infos of paths by their names.
func (s *shop) infos(names ...string) (infos []nix.PathInfo) {
	for _, info := range s.list {
		if slices.Contains(names, nameOf(info.Path)) {
			infos = append(infos, info)
		}
	}
	return infos
}

func (s *shop) Export(_ context.Context, dst io.Writer, infos []nix.PathInfo) error {
	for _, info := range infos {
		err := nar.WriteRecord(dst, info.Path, info.References, "", func(w io.Writer) error {
			_, err := w.Write(s.nars[info.Path])
			return err
		})
		if err != nil {
			return err
		}
	}
	return nar.WriteEnd(dst)
}

func (s *shop) Walks() bool { return !s.exports }

func (s *shop) Walk(_ context.Context, path string, to nar.Visitor) error {
	return nar.Visit(bufio.NewReaderSize(bytes.NewReader(s.nars[path]), nar.MinBuffer), to)
}

func (s *shop) Requisites(_ context.Context, paths ...string) ([]string, error) { return paths, nil }

func (s *shop) FullInfo(context.Context, ...string) ([]nix.PathInfo, error) { return s.list, nil }

func (s *shop) Valid(context.Context, ...string) (map[string]bool, error) {
	return map[string]bool{}, nil
}

// save saves paths, leaning on the packs of an index.
func (s *shop) save(t *testing.T, c cache.Cache, base *Index, names ...string) []*Pack {
	t.Helper()
	saver := &Saver{Nix: s, Cache: c, ID: "test", Base: base}
	packs, err := saver.Save(t.Context(), s.infos(names...))
	must(t, err)
	return packs
}

// stored is an index as a later job reads it.
func stored(t *testing.T, c cache.Cache, ix *Index) *Index {
	t.Helper()
	data, err := ix.Marshal(nil)
	must(t, err)
	read, err := ParseIndex(data, c, nil)
	must(t, err)
	return read
}

// big returns a content that does not compress, of which each seed has another.
func big(seed int) string { return string(noise(seed, 300<<10)) }

// Contents of an earlier pack are not saved again, and are restored from it; a lost pack costs the paths that
// need it, and no others.
func TestLeans(t *testing.T) {
	c := open(t)
	s := &shop{}
	s.put(t, "one", big(1)+big(2))
	s.put(t, "two", big(3))
	s.put(t, "again", big(1)+big(2)+"more")
	s.put(t, "new", big(4))
	first := s.save(t, c, nil, "one", "two")
	base := stored(t, c, NewIndex(first...))
	second := s.save(t, c, base, "again", "new")
	if len(first) != 1 || len(second) != 1 || first[0].Size < 900<<10 || second[0].Size > 450<<10 {
		t.Fatalf("%+v, %+v", first[0], second[0])
	}
	third := s.save(t, c, stored(t, c, NewIndex(slices.Concat(first, second)...)), "again") // as from another job
	if third[0].Size > 4<<10 {
		t.Errorf("a path that is saved twice has %d bytes", third[0].Size)
	}
	all := stored(t, c, NewIndex(slices.Concat(second, first)...))
	m := newMemory()
	got, err := m.restore(t, c, all)
	if err != nil || got.Paths != 4 || len(got.Packs) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	for path, nar := range s.nars {
		if !strings.HasSuffix(m.valid[path], string(nar)) {
			t.Errorf("%s has another content", path)
		}
	}

	gone := cachetest.Burnt{Cache: c, Key: first[0].Key}
	lossy := stored(t, gone, NewIndex(slices.Concat(second, first)...))
	m = newMemory()
	got, err = m.restore(t, gone, lossy)
	if !errors.Is(err, ErrSource) || got.Paths != 1 || m.valid[pathOf("new")] == "" || !slices.Equal(got.Lost, []string{first[0].Key}) {
		t.Errorf("%+v, %v", got, err)
	}
	updated, changed, err := lossy.Update(t.Context(), Update{Now: time.Now(), Lost: got.Lost})
	must(t, err)
	if !changed || updated.Has(pathOf("again")) || !updated.Has(pathOf("new")) || len(updated.Packs) != 1 {
		t.Errorf("%v, %v", keysOf(updated), changed)
	}
	// So it is saved again, and complete.
	fourth := s.save(t, gone, stored(t, gone, updated), "again")
	m = newMemory()
	if got, err := m.restore(t, gone, stored(t, gone, NewIndex(slices.Concat(fourth, second)...))); err != nil || got.Paths != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Where two jobs have saved the same path at once, either copy serves.
func TestAnotherCopy(t *testing.T) {
	c := open(t)
	s := &shop{}
	s.put(t, "shared", big(1))
	s.put(t, "left", big(2))
	s.put(t, "right", big(3))
	one := s.save(t, c, nil, "shared", "left")
	two := s.save(t, c, nil, "shared", "right")
	for _, lost := range []string{one[0].Key, two[0].Key} {
		gone := cachetest.Burnt{Cache: c, Key: lost}
		m := newMemory()
		got, err := m.restore(t, gone, stored(t, gone, NewIndex(one[0], two[0])))
		if !errors.Is(err, ErrSource) || got.Paths != 2 || m.valid[pathOf("shared")] == "" {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// Paths that were not needed for long leave the index; contents that others need stay; and a pack of which
// little is needed goes, once that little was saved again.
func TestLifetime(t *testing.T) {
	c := open(t)
	s := &shop{}
	now := time.Now().UTC().Truncate(time.Second)
	s.put(t, "old", big(1)+big(2)+big(3)+big(4)+big(5)+big(6))
	s.put(t, "most", big(1)+big(2)+big(3)+big(4))
	s.put(t, "little", big(1))
	s.put(t, "later", big(1)+"x")
	const week = 7 * 24 * time.Hour
	after := func(ix *Index, days int, saved ...*Pack) *Index {
		t.Helper()
		now = now.Add(time.Duration(days) * 24 * time.Hour)
		for _, p := range saved {
			p.Used = now
		}
		ix, _, err := ix.Update(t.Context(), Update{Now: now, Saved: saved, Forget: week})
		must(t, err)
		return stored(t, c, ix)
	}
	ix := after(NewIndex().In(c, nil), 0, s.save(t, c, nil, "old")...)
	old := ix.Packs[0].Key
	ix = after(ix, 1, s.save(t, c, ix, "most")...)
	ix = after(ix, 7) // "old" was not needed, and "most" leans on it
	if ix.Has(pathOf("old")) || !ix.Has(pathOf("most")) || len(ix.Packs) != 2 || len(ix.Supports()) != 2 {
		t.Fatalf("%v", keysOf(ix))
	}
	little := s.save(t, c, ix, "little")
	if little[0].Size > 100<<10 {
		t.Errorf("a content that is there is saved again: %d bytes", little[0].Size)
	}
	ix = after(ix, 1, little...) // and "most" is forgotten
	if ix.Has(pathOf("most")) || !ix.Has(pathOf("little")) || !slices.Contains(keysOf(ix), old) {
		t.Fatalf("%v", keysOf(ix))
	}
	if got, err := newMemory().restore(t, c, ix); err != nil || got.Paths != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if supports := ix.Supports(); slices.ContainsFunc(supports, func(p *Pack) bool { return p.Key == old }) {
		t.Error("new packs lean on one of which little is needed")
	}
	later := s.save(t, c, ix, "later")
	if later[0].Size < 200<<10 {
		t.Errorf("the little is not saved again: %d bytes", later[0].Size)
	}
	ix = after(ix, 8, later...)
	if ix.Has(pathOf("little")) || slices.Contains(keysOf(ix), old) || !ix.Has(pathOf("later")) {
		t.Errorf("%v", keysOf(ix))
	}
}

// A limit counts what a pack leans on, and keeps that without its own paths.
func TestWithinLeans(t *testing.T) {
	c := open(t)
	s := &shop{}
	s.put(t, "base", big(1)+big(2))
	s.put(t, "top", big(1)+"x")
	s.put(t, "other", big(3))
	base := s.save(t, c, nil, "base")
	top := s.save(t, c, NewIndex(base...), "top")
	other := s.save(t, c, nil, "other")
	now := time.Now()
	top[0].Used, other[0].Used, base[0].Used = now, now.Add(-time.Hour), now.Add(-2*time.Hour)
	ix := NewIndex(slices.Concat(base, top, other)...)
	if got := ix.Needed(); !got[base[0].Key].Equal(now) || !got[top[0].Key].Equal(now) || !got[other[0].Key].Equal(other[0].Used) {
		t.Errorf("needed: %v", got)
	}
	if last, ok := ix.Within(other[0].Size, 0).Needed()[base[0].Key]; ok || !last.IsZero() {
		t.Errorf("a pack that is left out was needed: %v", last)
	}
	for _, test := range []struct {
		limit int64
		want  string
	}{
		{0, "base top other"},
		{top[0].Size + base[0].Size, "base top"},
		{other[0].Size, "other"},
		{top[0].Size, ""},
	} {
		within := ix.Within(test.limit, 0)
		var has []string
		for _, name := range []string{"base", "top", "other"} {
			if within.Has(pathOf(name)) {
				has = append(has, name)
			}
		}
		if got := strings.Join(has, " "); got != test.want {
			t.Errorf("within %d: %q, want %q", test.limit, got, test.want)
		}
	}
}

// The index of a pull request leans on the packs of its base, which its own index does not name.
func TestLeansOnBase(t *testing.T) {
	c := open(t)
	s := &shop{}
	s.put(t, "base", big(1))
	s.put(t, "pull", big(1)+"x")
	s.put(t, "own", "y")
	key := IndexKey{ID: "test", System: "x86_64-linux"}
	base := NewIndex(s.save(t, c, nil, "base")...)
	must(t, base.Save(t.Context(), c, key, "main", "1", 0))
	loaded, err := Load(t.Context(), c, key, "main")
	must(t, err)
	pull := NewIndex(append(s.save(t, c, loaded, "pull"), s.save(t, c, loaded, "own")...)...)
	must(t, pull.Save(t.Context(), c, key, "pull", "1", 0))
	both, err := Load(t.Context(), c, key, "pull", "main")
	must(t, err)
	if got, err := newMemory().restore(t, c, both); err != nil || got.Paths != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	// An index that is written again keeps all paths, or the next run would lose them.
	own, err := LoadAll(t.Context(), c, key, "pull")
	must(t, err)
	s.put(t, "later", "z")
	own, _, err = own.Update(t.Context(), Update{Now: time.Now(), Saved: s.save(t, c, both, "later")})
	must(t, err)
	must(t, own.Save(t.Context(), c, key, "pull", "2", 0))
	if both, err = Load(t.Context(), c, key, "pull", "main"); err != nil || !both.Has(pathOf("pull")) || !both.Has(pathOf("later")) {
		t.Errorf("a later run of the pull request has %v, %v", keysOf(both), err)
	}
	if got, err := newMemory().restore(t, c, both); err != nil || got.Paths != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	alone, err := Load(t.Context(), c, key, "pull")
	must(t, err)
	if alone.Has(pathOf("pull")) || !alone.Has(pathOf("own")) {
		t.Error("a path is offered that needs a pack of no index")
	}
}

// A pack that is there for its contents alone does not hide the same one with its paths.
func TestBareAndWhole(t *testing.T) {
	c := open(t)
	s := &shop{}
	s.put(t, "base", big(1))
	s.put(t, "top", big(1)+"x")
	base := s.save(t, c, nil, "base")
	top := s.save(t, c, NewIndex(base...), "top")
	for _, packs := range [][]*Pack{{base[0].bare(), top[0], base[0]}, {base[0], base[0].bare(), top[0]}} {
		ix := stored(t, c, NewIndex(packs...))
		if len(ix.Packs) != 2 || !ix.Has(pathOf("base")) || !ix.Has(pathOf("top")) {
			t.Errorf("%v", keysOf(ix))
		}
		if got, err := newMemory().restore(t, c, ix); err != nil || got.Paths != 2 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if ix := NewIndex(base[0].bare()); ix.Has(pathOf("base")) {
		t.Error("a bare pack has paths")
	}
	if base[0].Paths() != 1 {
		t.Error("the packs that were given have changed")
	}
}

// A pack that was saved before its index could be is lost, and nothing with it; two saves from the same index
// do no harm.
func TestSaveIsKilled(t *testing.T) {
	c := open(t)
	s := &shop{}
	s.put(t, "base", big(1))
	s.put(t, "one", big(1)+big(2))
	s.put(t, "two", big(1)+big(3))
	base := s.save(t, c, nil, "base")
	ix := stored(t, c, NewIndex(base...))
	_ = s.save(t, c, ix, "one") // and no index names it
	two, three := s.save(t, c, ix, "two"), s.save(t, c, ix, "one", "two")
	if got, err := newMemory().restore(t, c, stored(t, c, NewIndex(slices.Concat(two, base)...))); err != nil || got.Paths != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := newMemory().restore(t, c, stored(t, c, NewIndex(slices.Concat(two, three, base)...))); err != nil || got.Paths != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}

// An index of the first format is read, and its packs stay in the next one.
func TestOldIndex(t *testing.T) {
	c := open(t)
	key := IndexKey{ID: "test", System: "x86_64-linux"}
	old, data := oldPackOf(t, "old", nil, "low", "top:low")
	must(t, c.Save(t.Context(), "old", bytes.NewReader(data), old.Size))
	doc, err := pack.CompressJSON(indexJSON{Version: oldIndexVersion, Packs: []packJSON{old.document(nil)}})
	must(t, err)
	doc = wrap(doc)
	must(t, c.Save(t.Context(), key.start(oldIndexVersion, "main")+"1", bytes.NewReader(doc), int64(len(doc))))
	ix, err := Load(t.Context(), c, key, "main")
	must(t, err)
	s := &shop{}
	s.put(t, "new", big(1))
	ix, _, err = ix.Update(t.Context(), Update{Now: time.Now(), Saved: s.save(t, c, ix, "new")})
	must(t, err)
	must(t, ix.Save(t.Context(), c, key, "main", "2", 0))
	if ix, err = Load(t.Context(), c, key, "main"); err != nil || !ix.Has(pathOf("top")) || !ix.Has(pathOf("new")) {
		t.Fatalf("%v, %v", keysOf(ix), err)
	}
	if got, err := newMemory().restore(t, c, ix); err != nil || got.Paths != 3 || got.Bytes == 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Frames come in any order, from many readers at once, also when hardly any fits into memory; each is
// decoded once while others need it, if there is room.
func TestFrames(t *testing.T) {
	c := open(t)
	s, packs := many(t, c)
	for _, budget := range []int64{1, 5 << 20, 64 << 20} {
		ix := stored(t, c, NewIndex(packs...))
		_, _, err := ix.Closure(t.Context(), pathsOf(t, ix)...)
		must(t, err)
		w := newTransfer(newMemory().engine(), nil, nil)
		w.index = ix
		var needs [][]frameID
		for _, info := range s.list {
			at, _ := ix.find(info.Path)
			seg := &segment{pack: at.pack, records: []int{at.record}}
			room := maxNeeds
			must(t, w.index.findFrames(seg, &room))
			needs = append(needs, seg.frames)
		}
		fs, err := newFrames(needs)
		must(t, err)
		fs.budget = budgets{budget, budget, budget}
		ctx, stop := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error {
			fs.prefetch(ctx)
			return nil
		})
		var readers errgroup.Group
		readers.SetLimit(4)
		for n := range needs {
			readers.Go(func() error {
				defer fs.release(needs[n])
				for _, id := range slices.Backward(needs[n]) { // not in the order of the prefetch
					plain, err := fs.get(ctx, id)
					if err != nil || int64(len(plain)) != id.pack.Index.FrameLength(id.number) {
						return fmt.Errorf("frame %d: %d bytes, %w", id.number, len(plain), err)
					}
				}
				return nil
			})
		}
		must(t, readers.Wait())
		stop()
		must(t, g.Wait())
		if fs.fetched != 0 || fs.kept != 0 || len(fs.decoded) != 0 {
			t.Errorf("%d bytes are left, and %d decoded", fs.fetched, fs.kept)
		}
		if budget == 64<<20 && fs.read > packs[0].Size+packs[1].Size {
			t.Errorf("%d bytes are read", fs.read)
		}
	}
}
