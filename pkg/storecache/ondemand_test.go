package storecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/dir"
	"github.com/org/nix-matrix/pkg/pack"
)

// onDemand returns an OnDemand until the end of the test, and the keys of the packs that it finds lost.
func onDemand(t *testing.T, c cache.Cache, ix *Index, change ...func(*OnDemandOptions)) (*OnDemand, func() []string) {
	t.Helper()
	var mu sync.Mutex
	var lost []string
	o := OnDemandOptions{Cache: c, Index: ix, Lost: func(keys ...string) {
		mu.Lock()
		defer mu.Unlock()
		lost = append(lost, keys...)
	}}
	for _, f := range change {
		f(&o)
	}
	d, err := NewOnDemand(t.Context(), o)
	must(t, err)
	t.Cleanup(d.Close)
	return d, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(lost)
	}
}

// hashOf returns the hash part of the path of a name.
func hashOf(path string) string { return path[len("/nix/store/"):][:32] }

// readNAR reads a NAR.
func readNAR(ctx context.Context, d *OnDemand, path string) ([]byte, error) {
	info, r, err := d.Open(ctx, hashOf(path))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if info.Path != path {
		return nil, fmt.Errorf("%s is another path", info.Path)
	}
	return io.ReadAll(r)
}

// many is a shop with packs, of which the second leans on the first.
func many(t *testing.T, c cache.Cache) (*shop, []*Pack) {
	t.Helper()
	s := &shop{}
	var names []string
	for n := range 40 {
		names = append(names, fmt.Sprint("path", n))
		s.put(t, names[n], big(n)+big(n/2)+big(n%3))
	}
	packs := s.save(t, c, nil, names[:20]...)
	return s, append(packs, s.save(t, c, NewIndex(packs...), names[20:]...)...)
}

// Readers that ask at the same time, in whatever order and with however little memory, get the right NARs.
func TestOnDemand(t *testing.T) {
	c := open(t)
	s, packs := many(t, c)
	old, data := oldPackOf(t, "old-pack", nil, "low", "left:low", "alone")
	must(t, c.Save(t.Context(), old.Key, bytes.NewReader(data), old.Size))
	want := newMemory()
	_, err := want.restore(t, c, NewIndex(old))
	must(t, err)
	for _, limit := range []struct{ kept, room int64 }{{1, 1}, {1, maxSpill}, {5 << 20, 5 << 20}, {plainBudget, maxSpill}} {
		d, lost := onDemand(t, c, stored(t, c, NewIndex(append(packs, old)...)))
		d.frames.kept = limit.kept
		d.frames.room = min(d.frames.room, limit.room)
		if _, err := d.Find(t.Context(), hashOf(pathOf("nothing"))); !errors.Is(err, ErrAbsent) {
			t.Error(err)
		}
		paths := pathsOf(t, NewIndex(append(packs, old)...))
		var g errgroup.Group
		g.SetLimit(16)
		for n := range 3 * len(paths) {
			path := paths[n*7%len(paths)]
			g.Go(func() error {
				info, err := d.Find(t.Context(), hashOf(path))
				if err != nil {
					return err
				}
				d.Prefetch(hashOf(path))
				got, err := readNAR(t.Context(), d, path)
				if err != nil {
					return err
				}
				if right, ok := s.nars[path]; ok && !bytes.Equal(got, right) || !ok && want.valid[path] != fmt.Sprint(info, string(got)) {
					return fmt.Errorf("%s has another NAR", path)
				}
				return nil
			})
		}
		must(t, g.Wait())
		d.frames.mu.Lock()
		if n := d.frames.plain.Len(); d.frames.plain.bytes > limit.kept && n > 1 {
			t.Errorf("%d bytes of %d frames are kept", d.frames.plain.bytes, n)
		}
		d.frames.mu.Unlock()
		if l := lost(); len(l) > 0 {
			t.Errorf("lost %q", l)
		}
	}
}

// A pack that is gone before Nix asks is a miss, and so are the paths that lean on it. Others are there, and a path in
// another pack, too.
func TestEvictedBefore(t *testing.T) {
	at := t.TempDir()
	c, err := dir.New(at)
	must(t, err)
	s, packs := many(t, c)
	copied := s.save(t, c, nil, "path0")
	s.put(t, "single", big(99))
	single := s.save(t, c, nil, "single")
	ix := stored(t, c, NewIndex(slices.Concat(packs, copied, single)...))
	must(t, c.Remove(t.Context(), packs[0].Key))
	d, lost := onDemand(t, c, ix)
	for name, there := range map[string]bool{"path0": true, "path1": false, "path20": false, "single": true} {
		got, err := readNAR(t.Context(), d, pathOf(name))
		if there && (err != nil || !bytes.Equal(got, s.nars[pathOf(name)])) || !there && !errors.Is(err, ErrAbsent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l := lost(); !slices.Equal(l, []string{packs[0].Key}) {
		t.Errorf("lost %q", l)
	}
}

// A pack that goes between the narinfo and the NAR is an error of the NAR, and then a miss; or another pack has
// the path.
func TestEvictedBetween(t *testing.T) {
	c := open(t)
	s, packs := many(t, c)
	copied := s.save(t, c, nil, "path0")
	d, lost := onDemand(t, c, stored(t, c, NewIndex(append(packs, copied...)...)))
	for _, name := range []string{"path0", "path1"} {
		_, err := d.Find(t.Context(), hashOf(pathOf(name)))
		must(t, err)
	}
	must(t, c.(cache.Collectable).Remove(t.Context(), packs[0].Key))
	if _, err := readNAR(t.Context(), d, pathOf("path1")); !errors.Is(err, cache.ErrMiss) {
		t.Error(err)
	}
	if _, err := d.Find(t.Context(), hashOf(pathOf("path1"))); !errors.Is(err, ErrAbsent) {
		t.Error(err)
	}
	if got, err := readNAR(t.Context(), d, pathOf("path0")); err != nil || !bytes.Equal(got, s.nars[pathOf("path0")]) {
		t.Error(err)
	}
	if l := lost(); !slices.Equal(l, []string{packs[0].Key}) {
		t.Errorf("lost %q", l)
	}
}

// counted is a cache that counts the ranges that are read, and fails while it is told to.
type counted struct {
	cache.Cache
	ranges atomic.Int64
	fail   atomic.Bool
}

type countedBlob struct {
	cache.Blob
	of *counted
}

func (c *counted) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	blob, err := c.Cache.Open(ctx, key, prefixes...)
	return countedBlob{blob, c}, err
}

var errPassing = errors.New("a passing error")

func (b countedBlob) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	if b.of.ranges.Add(1); b.of.fail.Load() {
		return nil, errPassing
	}
	return b.Blob.Range(ctx, offset, length)
}

// Frames that were prefetched are not requested again, and paths in the store are not prefetched.
func TestPrefetch(t *testing.T) {
	c := &counted{Cache: open(t)}
	s, packs := many(t, c)
	top := s.list[30].Path
	d, _ := onDemand(t, c, stored(t, c, NewIndex(packs...)), func(o *OnDemandOptions) {
		o.Present = func(path string) bool { return path == s.list[0].Path }
	})
	prefetch := func(path string) {
		d.Prefetch(hashOf(path))
		d.Prefetch("") // whose turn comes when the frames of the one before are on their way
		for len(d.waiting) > 0 {
			runtime.Gosched()
		}
		for loading := true; loading; runtime.Gosched() {
			d.frames.mu.Lock()
			loading = d.frames.loading > 0
			d.frames.mu.Unlock()
		}
	}
	prefetch(top)
	before := c.ranges.Load()
	got, err := readNAR(t.Context(), d, top)
	if err != nil || !bytes.Equal(got, s.nars[top]) {
		t.Fatal(err)
	}
	if after := c.ranges.Load(); after != before {
		t.Errorf("%d ranges more", after-before)
	}
	d.frames.mu.Lock()
	frames := len(d.frames.spilled)
	d.frames.mu.Unlock()
	prefetch(s.list[0].Path)
	d.frames.mu.Lock()
	defer d.frames.mu.Unlock()
	if n := len(d.frames.spilled); n != frames {
		t.Errorf("%d frames of a path that is in the store", n-frames)
	}
}

// Each frame is requested once, however often it is read and however little memory there is.
func TestFramesRequestedOnce(t *testing.T) {
	c := &counted{Cache: open(t)}
	s, packs := many(t, c)
	d, _ := onDemand(t, c, stored(t, c, NewIndex(packs...)))
	d.frames.kept = 5 << 20
	read := func() {
		for n := range s.list {
			path := s.list[n*7%len(s.list)].Path
			if got, err := readNAR(t.Context(), d, path); err != nil || !bytes.Equal(got, s.nars[path]) {
				t.Fatal(err)
			}
		}
	}
	read()
	before := c.ranges.Load()
	read()
	if after := c.ranges.Load(); after != before {
		t.Errorf("%d ranges more", after-before)
	}
	d.frames.mu.Lock()
	d.frames.spilled = map[frameKey]span{}
	d.frames.mu.Unlock()
	must(t, d.frames.file.Close()) // which is a disk that fails
	read()
}

// A frame that several prefetched paths need is decoded once, though there is no room for it in memory: then it is in the
// file as it was decoded. Others are not.
func TestSharedFramesInFile(t *testing.T) {
	c := open(t)
	s, packs := many(t, c)
	s.put(t, "alone", big(100))
	packs = append(packs, s.save(t, c, nil, "alone")...)
	d, _ := onDemand(t, c, stored(t, c, NewIndex(packs...)))
	d.frames.kept = 1
	needs := [][]frameID{}
	for _, info := range s.list {
		needs = append(needs, d.closure(hashOf(info.Path))...)
	}
	d.frames.prefetch(needs)
	for n := range s.list {
		path := s.list[n*7%len(s.list)].Path
		if got, err := readNAR(t.Context(), d, path); err != nil || !bytes.Equal(got, s.nars[path]) {
			t.Fatal(err)
		}
	}
	d.frames.running.Wait()
	shared := map[bool]int{}
	for key, at := range d.frames.spilled {
		users := d.frames.users[key]
		if at.plain != (users > 1) && d.frames.all[key] == nil {
			t.Errorf("frame %d, which %d paths need, is in the file decoded: %t", key.number, users, at.plain)
		}
		shared[users > 1]++
	}
	if shared[true] == 0 || shared[false] == 0 {
		t.Errorf("frames by whether they are shared: %v", shared)
	}
}

// A passing error of the cache is a miss for a while, and costs no pack.
func TestPassingError(t *testing.T) {
	c := &counted{Cache: open(t)}
	s, packs := many(t, c)
	d, lost := onDemand(t, c, stored(t, c, NewIndex(packs...)))
	c.fail.Store(true)
	if _, err := d.Find(t.Context(), hashOf(s.list[0].Path)); !errors.Is(err, ErrAbsent) {
		t.Error(err)
	}
	c.fail.Store(false)
	before := c.ranges.Load()
	if _, err := d.Find(t.Context(), hashOf(s.list[0].Path)); !errors.Is(err, ErrAbsent) || c.ranges.Load() != before {
		t.Errorf("%v, %d ranges", err, c.ranges.Load()-before)
	}
	clear(d.pauses)
	if got, err := readNAR(t.Context(), d, s.list[0].Path); err != nil || !bytes.Equal(got, s.nars[s.list[0].Path]) {
		t.Error(err)
	}
	if l := lost(); len(l) > 0 {
		t.Errorf("lost %q", l)
	}
}

// With any bit of a pack flipped, a NAR is right or an error.
func TestFlippedBitsOnDemand(t *testing.T) {
	c := open(t)
	var packs []*Pack
	for i, of := range []func(testing.TB, string, *pack.Key, ...string) (*Pack, []byte){packOf, oldPackOf} {
		p, data := of(t, fmt.Sprint("pack", i), nil, fmt.Sprint("low", i), fmt.Sprintf("left%d:low%d", i, i))
		must(t, c.Save(t.Context(), p.Key, bytes.NewReader(data), p.Size))
		packs = append(packs, p)
	}
	right := map[string]string{}
	read := func(c cache.Cache, check func(path string, got []byte, err error)) {
		d, err := NewOnDemand(t.Context(), OnDemandOptions{Cache: c, Index: stored(t, c, NewIndex(packs...))})
		must(t, err)
		defer d.Close()
		for _, p := range packs {
			for n := range p.Index.Records {
				got, err := readNAR(t.Context(), d, p.Index.Records[n].Path)
				check(p.Index.Records[n].Path, got, err)
			}
		}
	}
	read(c, func(path string, got []byte, err error) {
		must(t, err)
		right[path] = string(got)
	})
	random := rand.New(rand.NewPCG(3, 4))
	wrong := 0
	for range 300 {
		p := packs[random.IntN(len(packs))]
		bad := changed{Cache: c, key: p.Key, bit: random.Int64N(8 * p.Size)}
		read(bad, func(path string, got []byte, err error) {
			if err != nil {
				wrong++
			} else if string(got) != right[path] {
				t.Fatalf("bit %d of %s: %s has another NAR", bad.bit, bad.key, path)
			}
		})
	}
	if wrong == 0 {
		t.Error("no change was noticed")
	}
}
