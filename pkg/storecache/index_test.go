package storecache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/pack"
)

func pathOf(name string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return fmt.Sprintf("/nix/store/%032d-%s", h.Sum64(), name)
}

// exportOf returns an export stream of files, given as NAME:REFERENCE…, whose content is their name.
func exportOf(t testing.TB, files ...string) (_ *bytes.Buffer, records []pack.Record) {
	t.Helper()
	var export bytes.Buffer
	dir := t.TempDir()
	for _, file := range files {
		name, refs, _ := strings.Cut(file, ":")
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
		var references []string
		for _, ref := range strings.Fields(refs) {
			references = append(references, pathOf(ref))
		}
		rec := pack.Record{Path: pathOf(name), References: references}
		must(t, nar.WriteRecord(&export, rec.Path, references, "", func(w io.Writer) error {
			var b bytes.Buffer
			err := nar.Dump(&b, filepath.Join(dir, name))
			rec.NarHash, rec.NarSize = sha256.Sum256(b.Bytes()), int64(b.Len())
			_, werr := w.Write(b.Bytes())
			return errors.Join(err, werr)
		}))
		records = append(records, rec)
	}
	must(t, nar.WriteEnd(&export))
	return &export, records
}

// packOf returns a pack of chunks of files.
func packOf(t testing.TB, key string, seal *pack.Key, files ...string) (*Pack, []byte) {
	t.Helper()
	var packed bytes.Buffer
	export, records := exportOf(t, files...)
	packer := pack.NewPacker(pack.FromExport(export), records, func(string) bool { return false }, pack.NewKnown(), seal)
	defer packer.Close()
	summary, err := packer.Next(&packed, 1<<40)
	must(t, err)
	return newPack(key, summary.Size, summary.Index), packed.Bytes()
}

// oldPackOf returns a pack of records of files.
func oldPackOf(t testing.TB, key string, seal *pack.Key, files ...string) (*Pack, []byte) {
	t.Helper()
	var packed bytes.Buffer
	export, _ := exportOf(t, files...)
	summary, err := pack.Write(&packed, export, nil, seal)
	must(t, err)
	return newPack(key, summary.Size, summary.Index), packed.Bytes()
}

// pathsOf returns the paths of an index.
func pathsOf(t testing.TB, ix *Index) []string {
	t.Helper()
	paths, err := ix.Paths(t.Context())
	must(t, err)
	return paths
}

func closureOf(t testing.TB, ix *Index, paths ...string) (packed, outside []string) {
	t.Helper()
	packed, outside, err := ix.Closure(t.Context(), paths...)
	must(t, err)
	return packed, outside
}

func keysOf(ix *Index) []string {
	var keys []string
	for _, p := range ix.Packs {
		keys = append(keys, p.Key)
	}
	return keys
}

func TestIndex(t *testing.T) {
	seal, err := pack.NewKey("a secret for the tests")
	must(t, err)
	other, err := pack.NewKey("another secret for the tests")
	must(t, err)
	for _, key := range []*pack.Key{nil, seal} {
		c := open(t)
		one, data := packOf(t, "one", key, "low", "left:low")
		must(t, c.Save(t.Context(), "one", bytes.NewReader(data), one.Size))
		two, data := packOf(t, "two", key, "right:low away", "top:left right")
		must(t, c.Save(t.Context(), "two", bytes.NewReader(data), two.Size))
		old, _ := oldPackOf(t, "old", key, "records")
		ix := NewIndex(one, two, old)
		data, err = ix.Marshal(key)
		must(t, err)
		read, err := ParseIndex(data, c, key)
		must(t, err)
		if diff := cmp.Diff(keysOf(ix), keysOf(read)); diff != "" || !read.Has(pathOf("top")) || !read.Has(pathOf("records")) || read.Has(pathOf("away")) {
			t.Errorf("it outcomes %+v %s", read, diff)
		}
		there, outside := closureOf(t, read, pathOf("top"), pathOf("nowhere"))
		if slices.Sort(there); len(there) != 4 {
			t.Errorf("the closure has %v", there)
		}
		if slices.Sort(outside); !slices.Equal(outside, []string{pathOf("away"), pathOf("nowhere")}) {
			t.Errorf("outside are %v", outside)
		}
		for _, wrong := range []*pack.Key{nil, seal, other} {
			if _, err := ParseIndex(data, c, wrong); (err == nil) != (wrong == key) {
				t.Errorf("with another key: %v", err)
			}
		}
		for bit := range 8 * len(data) { // each
			data[bit/8] ^= 1 << (bit % 8)
			if ix, err := ParseIndex(data, c, key); err == nil {
				t.Fatalf("with bit %d turned around it is %+v", bit, ix)
			}
			data[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// If two packs have the same key, one counts, with the later time of use.
func TestIndexOfTheSame(t *testing.T) {
	older, _ := packOf(t, "one", nil, "low")
	newer, _ := packOf(t, "one", nil, "low")
	older.Used = newer.Used.Add(-time.Hour)
	used := newer.Used
	ix := NewIndex(older, newer)
	if len(ix.Packs) != 1 || ix.Packs[0].Used != used {
		t.Errorf("%+v", ix.Packs)
	}
}

func TestWithin(t *testing.T) {
	now := time.Now()
	var packs []*Pack
	for i, name := range []string{"old", "newest", "new"} {
		p, _ := packOf(t, name, nil, name)
		p.Size, p.Used = 100, now.Add([]time.Duration{0, 2 * time.Hour, time.Hour}[i])
		packs = append(packs, p)
	}
	ix := NewIndex(packs...)
	for limit, want := range map[int64][]string{
		0: {"newest", "new", "old"}, 1000: {"newest", "new", "old"}, 299: {"newest", "new"}, 100: {"newest"}, 99: nil,
	} {
		within := ix.Within(limit, 0)
		if !slices.Equal(keysOf(within), want) || within.Has(pathOf("old")) != slices.Contains(want, "old") {
			t.Errorf("within %d: %v", limit, keysOf(within))
		}
	}
	ix.packs["newest"].Size = 1000
	if within := ix.Within(200, 0); !slices.Equal(keysOf(within), []string{"new", "old"}) {
		t.Errorf("beside one that is too large: %v", keysOf(within))
	}
	without, err := ix.Without(t.Context(), "new", "unknown")
	must(t, err)
	if !slices.Equal(keysOf(without), []string{"old", "newest"}) || without.Has(pathOf("new")) {
		t.Errorf("without new: %v", keysOf(without))
	}
}

func TestUpdate(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	of := func(name string, age time.Duration) *Pack {
		p, _ := packOf(t, name, nil, name)
		p.Size, p.Used = 100, now.Add(-age)
		return p
	}
	for name, test := range map[string]struct {
		update  Update
		want    string // keys, those used now with a *
		changed bool
	}{
		"nothing":           {Update{}, "day week", false},
		"used":              {Update{Used: []string{"week"}}, "week* day", true},
		"used not long ago": {Update{Used: []string{"day"}}, "day* week", false},
		"used, not ours":    {Update{Used: []string{"other"}}, "day week", false},
		"lost":              {Update{Lost: []string{"day", "other"}}, "week", true},
		"lost, not ours":    {Update{Lost: []string{"other"}}, "day week", false},
		"saved":             {Update{Saved: []*Pack{of("new", 0)}}, "new* day week", true},
		"saved again":       {Update{Saved: []*Pack{of("week", 0)}}, "week* day", true},
		"forgotten":         {Update{Forget: 48 * time.Hour}, "day", false},
		"used in time":      {Update{Forget: 48 * time.Hour, Used: []string{"week"}}, "week* day", true},
		"no room":           {Update{Limit: 200, Saved: []*Pack{of("new", 0)}}, "new* day", true},
	} {
		t.Run(name, func(t *testing.T) {
			ix := NewIndex(of("week", 7*24*time.Hour), of("day", 24*time.Hour))
			before, err := ix.Marshal(nil)
			must(t, err)
			test.update.Now = now
			updated, changed, err := ix.Update(t.Context(), test.update)
			must(t, err)
			var got []string
			for _, p := range updated.Within(0, 0).Packs {
				key := p.Key
				if p.Used.Equal(now) {
					key += "*"
				}
				got = append(got, key)
			}
			if strings.Join(got, " ") != test.want || changed != test.changed {
				t.Errorf("got %q, %v", got, changed)
			}
			after, err := ix.Marshal(nil)
			must(t, err)
			if !bytes.Equal(before, after) {
				t.Error("the index that is updated has changed")
			}
		})
	}
}

// Load reads the newest index of each ref, but none of another system, id or encryption key.
func TestLoad(t *testing.T) {
	c := open(t)
	keep := func(key IndexKey, ref, run string, names ...string) {
		t.Helper()
		var packs []*Pack
		for _, name := range names {
			p, _ := packOf(t, name, key.Seal, name)
			packs = append(packs, p)
		}
		must(t, NewIndex(packs...).Save(t.Context(), c, key, ref, run, 0))
	}
	key := IndexKey{ID: "test", System: "x86_64-linux"}
	keep(key, "refs/heads/main", "1+1", "older")
	keep(key, "refs/heads/main", "2+1", "main", "both")
	keep(key, "refs/heads/main2", "3+1", "main2")
	keep(key, "refs/pull/7/merge", "4+1", "pull", "both")
	keep(IndexKey{ID: "test", System: "aarch64-linux"}, "refs/heads/main", "5+1", "arm")
	keep(IndexKey{ID: "test2", System: "x86_64-linux"}, "refs/heads/main", "6+1", "test2")
	seal, err := pack.NewKey("a secret for the tests")
	must(t, err)
	keep(IndexKey{ID: "test", System: "x86_64-linux", Seal: seal}, "refs/heads/main", "7+1", "sealed")

	ix, err := Load(t.Context(), c, key, "refs/pull/7/merge", "refs/heads/main", "refs/heads/none")
	must(t, err)
	if got := keysOf(ix); !slices.Equal(got, []string{"pull", "both", "main"}) {
		t.Errorf("the packs are %v", got)
	}
	long := "refs/heads/" + strings.Repeat("Ä", 120) // longer when escaped
	keep(key, long, "8+1", "long")
	if ix, err = Load(t.Context(), c, key, long); err != nil || len(ix.Packs) != 1 {
		t.Errorf("of a long name: %v, %v", ix, err)
	}

	// A broken index does not hide another one.
	must(t, c.Save(t.Context(), key.start(indexVersion, "refs/heads/main")+"9", strings.NewReader("broken"), 6))
	ix, err = Load(t.Context(), c, key, "refs/pull/7/merge", "refs/heads/main")
	if !errors.Is(err, pack.ErrCorrupt) || len(ix.Packs) != 2 {
		t.Errorf("%v, %v", keysOf(ix), err)
	}
}

// FindPack finds a pack that is in no index.
func TestFindPack(t *testing.T) {
	c := open(t)
	p, data := packOf(t, "one", nil, "low", "top:low")
	must(t, c.Save(t.Context(), "one", bytes.NewReader(data), int64(len(data))))
	found, err := FindPack(t.Context(), c, "one", nil)
	must(t, err)
	if found.Size != p.Size || len(found.Index.Records) != 2 {
		t.Errorf("%+v", found)
	}
	if _, err := FindPack(t.Context(), c, "two", nil); !errors.Is(err, cache.ErrMiss) {
		t.Errorf("%v", err)
	}
}

// FuzzStoreIndex parses hostile JSON of an index.
func FuzzStoreIndex(f *testing.F) {
	p, _ := packOf(f, "one", nil, "low", "top:low")
	old, _ := oldPackOf(f, "old", nil, "low", "top:low")
	data, err := json.Marshal(indexJSON{indexVersion, []packJSON{p.document(nil), old.document(nil)}})
	must(f, err)
	enc, err := zstd.NewWriter(nil)
	must(f, err)
	f.Add(data)
	f.Add([]byte(`{"version":1,"packs":[null,{"key":"a","size":1,"index":null}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ix, err := ParseIndex(wrap(enc.EncodeAll(data, nil)), nowhere{}, nil)
		if err != nil {
			return
		}
		paths := pathsOf(t, ix)
		packed, _ := closureOf(t, ix, paths...)
		wanted := map[string]location{}
		for _, path := range packed {
			wanted[path], _ = ix.find(path)
		}
		segments(wanted)
		ix.Within(1<<20, 0)
		ix.Supports()
		if _, err := ix.Marshal(nil); err != nil {
			t.Error(err)
		}
	})
}

// nowhere is a cache without blobs.
type nowhere struct{ cache.Cache }

func (nowhere) Open(context.Context, string, ...string) (cache.Blob, error) {
	return nil, cache.ErrMiss
}
