package storecache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/nix/nixtest"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/pack/packtest"
)

// putNAR adds a path with a NAR, given without its magic.
func (s *shop) putNAR(name, nar string, refs ...string) {
	if s.nars == nil {
		s.nars = map[string][]byte{}
	}
	data := []byte(narWords("nix-archive-1") + nar)
	path := pathOf(name)
	s.nars[path] = data
	s.list = append(s.list, nix.PathInfo{Path: path, References: refs, NarHash: fmt.Sprintf("%x", sha256.Sum256(data)), NarSize: int64(len(data))})
}

// forLies is a shop with the paths of [packtest.Lies] and one more, and a cache that has the one more.
func forLies(t *testing.T) (*shop, cache.Cache, *Pack) {
	t.Helper()
	s, c := &shop{}, open(t)
	s.putNAR("bystander", narDir("a", narFile(big(7)[:20<<10])))
	s.putNAR("victim", narDir("a", narFile(big(1)+big(2)), "link", narLink(pathOf("bystander")),
		"y", narFile("it needs "+pathOf("bystander")+" and "+pathOf("victim")+"."), "z", narFile("and "+pathOf("bystander"))), pathOf("bystander"))
	s.put(t, "elsewhere", big(3))
	return s, c, s.save(t, c, nil, "elsewhere")[0]
}

// tell returns the pack of the two paths with a lie, which the cache then has.
func (s *shop) tell(t *testing.T, c cache.Cache, lie func(*packtest.Pack)) *Pack {
	t.Helper()
	p := s.save(t, c, nil, "bystander", "victim")[0]
	blob, err := c.Open(t.Context(), p.Key)
	must(t, err)
	data, err := cache.ReadAll(t.Context(), blob, p.Size)
	must(t, err)
	parts, err := packtest.Parse(data)
	must(t, err)
	lie(parts)
	data, sum, err := parts.Bytes()
	must(t, err)
	must(t, c.Save(t.Context(), "lie", bytes.NewReader(data), int64(len(data))))
	q := &Pack{Key: "lie", Size: int64(len(data)), Used: time.Now(), sum: sum, restore: int64(len(data)), save: int64(len(data)), paths: p.paths}
	for i, sum := range parts.Leans {
		q.leans = append(q.leans, lean{sum, parts.Leaned[i]})
	}
	return q
}

// A path about which a pack lies is never registered, at once or on demand. It costs no other path, unless the
// tables of the pack are wrong.
func TestLies(t *testing.T) {
	names := []string{"bystander", "victim", "elsewhere"}
	check := func(t *testing.T, lie packtest.Lie, name string, ok bool) {
		t.Helper()
		if want := name == "elsewhere" || name == "bystander" && !lie.All; ok != want {
			t.Errorf("%s: %v, want %v", name, ok, want)
		}
	}
	for _, lie := range packtest.Lies() {
		t.Run(lie.Name, func(t *testing.T) {
			s, c, other := forLies(t)
			p := s.tell(t, c, lie.Tell)
			m := newMemory()
			r := &Restorer{Nix: m, Engine: m.engine(), Cache: c, Index: stored(t, c, NewIndex(other, p))}
			got, err := r.Restore(t.Context(), pathOf("victim"), pathOf("bystander"), pathOf("elsewhere"))
			if !errors.Is(err, ErrSource) || !errors.Is(err, pack.ErrCorrupt) || len(got.Lost) != 1 || got.Lost[0] != "lie" {
				t.Errorf("%+v, %v", got, err)
			}
			for _, name := range names {
				valid, ok := m.valid[pathOf(name)]
				check(t, lie, name, ok && strings.HasSuffix(valid, string(s.nars[pathOf(name)])))
			}
			d, _ := onDemand(t, c, stored(t, c, NewIndex(other, p)))
			for _, name := range names { // the pack is not read any more after its first fault
				nar, err := readNAR(t.Context(), d, pathOf(name))
				check(t, lie, name, err == nil && bytes.Equal(nar, s.nars[pathOf(name)]))
			}
		})
	}
	t.Run("direct", func(t *testing.T) {
		n := nixtest.Newest(t)
		nixtest.UseMemory(t, "")
		for _, lie := range packtest.Lies() {
			s, c, other := forLies(t)
			r := &Restorer{Nix: n, Engine: engines(t, n)["direct"], Cache: c, Index: stored(t, c, NewIndex(other, s.tell(t, c, lie.Tell)))}
			if _, err := r.Restore(t.Context(), pathOf("victim"), pathOf("elsewhere")); !errors.Is(err, ErrSource) {
				t.Errorf("%s: %v", lie.Name, err)
			}
			valid, err := n.Valid(t.Context(), pathOf("victim"))
			must(t, err)
			check(t, lie, "victim", valid[pathOf("victim")])
		}
		valid, err := n.Valid(t.Context(), pathOf("bystander"), pathOf("elsewhere"))
		must(t, err)
		if len(valid) != 2 {
			t.Errorf("valid are %v", valid)
		}
		nixtest.Verify(t)
	})
}

// A path whose contents are in no pack is a cache miss, and no other path is.
func TestContentInNoPack(t *testing.T) {
	s, c, other := forLies(t)
	p := s.tell(t, c, func(p *packtest.Pack) {
		p.Leans, p.Leaned = []string{strings.Repeat("0", sumSize)}, []int64{1}
		p.SetRuns(packtest.Victim, packtest.Files, packtest.Run{Source: 1, Count: 1})
	})
	p.leans = nil // so that the index does not say it
	m := newMemory()
	r := &Restorer{Nix: m, Engine: m.engine(), Cache: c, Index: stored(t, c, NewIndex(other, p))}
	got, err := r.Restore(t.Context(), pathOf("victim"), pathOf("bystander"), pathOf("elsewhere"))
	if err != nil || got.Paths != 2 || m.valid[pathOf("victim")] != "" {
		t.Errorf("%+v, %v", got, err)
	}
	d, lost := onDemand(t, c, stored(t, c, NewIndex(other, p)))
	if _, err := d.Find(t.Context(), hashOf(pathOf("victim"))); !errors.Is(err, ErrAbsent) || len(lost()) > 0 {
		t.Errorf("lost %q, %v", lost(), err)
	}
	if nar, err := readNAR(t.Context(), d, pathOf("bystander")); err != nil || !bytes.Equal(nar, s.nars[pathOf("bystander")]) {
		t.Error(err)
	}
}

// An index may say that packs lean on each other in a circle, or on themselves: everything that walks over packs ends,
// and paths are restored all the same, because no chunk is in a circle.
func TestLeansInACircle(t *testing.T) {
	s, c, one := forLies(t)
	two := s.save(t, c, nil, "bystander", "victim")[0]
	s.put(t, "three", big(3)+"x")
	three := s.save(t, c, NewIndex(one), "three")[0]
	one.leans = []lean{{three.sum, 1}, {one.sum, 1}}
	two.leans = []lean{{one.sum, 1}, {two.sum, 1}}
	three.leans = []lean{{two.sum, 1}, {one.sum, 1}}
	ix := stored(t, c, NewIndex(one, two, three))
	settled, err := ix.Settled(t.Context())
	must(t, err)
	m := newMemory()
	if got, err := m.restore(t, c, settled); err != nil || got.Paths != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	for path, nar := range s.nars {
		if !strings.HasSuffix(m.valid[path], string(nar)) {
			t.Errorf("%s has another content", path)
		}
	}
	d, _ := onDemand(t, c, stored(t, c, ix))
	d.Prefetch(hashOf(pathOf("three")))
	if nar, err := readNAR(t.Context(), d, pathOf("three")); err != nil || !bytes.Equal(nar, s.nars[pathOf("three")]) {
		t.Error(err)
	}
	ix.Within(one.Size, 0)
	ix.Supports()
	if _, err := ix.Holding(t.Context(), pathOf("three")); err != nil {
		t.Error(err)
	}
	if ix, _, err = ix.Update(t.Context(), Update{Now: time.Now().Add(time.Hour), Forget: time.Minute, Lost: []string{two.Key}}); err != nil || ix.Has(pathOf("victim")) {
		t.Errorf("%v, %v", keysOf(ix), err)
	}
	if without, err := settled.Without(t.Context(), one.Key); err != nil || without.Has(pathOf("three")) {
		t.Errorf("%v, %v", keysOf(without), err)
	}
}
