package reuse

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/cachetest"
	"github.com/org/nix-matrix/pkg/cache/dir"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/gc"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
	"github.com/org/nix-matrix/pkg/storecache"
)

// savePack puts a pack with one path into a cache.
func savePack(t *testing.T, c cache.Cache, key string) job.Pack {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	var export, packed bytes.Buffer
	path := "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-" + key
	if err := nar.WriteRecord(&export, path, nil, "", func(w io.Writer) error { return nar.Dump(w, file) }); err != nil {
		t.Fatal(err)
	}
	if err := nar.WriteEnd(&export); err != nil {
		t.Fatal(err)
	}
	summary, err := pack.Write(&packed, &export, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Save(t.Context(), key, bytes.NewReader(packed.Bytes()), summary.Size); err != nil {
		t.Fatal(err)
	}
	return job.Pack{Key: key, Size: summary.Size, Paths: 1}
}

// The index of a pull request names what its own runs have saved, however large that may
// be: what the default branch has saved is for that to name, and to let go.
func TestMergeIndex(t *testing.T) {
	c, err := dir.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const system = "x86_64-linux"
	on := func(event, ref string) *Cache {
		trust := &action.Trust{Running: true, Event: event, Ref: ref, BaseRefs: []string{"refs/heads/main"}, Hosted: true}
		return &Cache{Docs: &documents.Store{Cache: c, ID: "nix-matrix", Trust: trust}, Log: quiet{}}
	}
	merge := func(from *Cache, limit int64, saved, restored, lost []string) {
		t.Helper()
		result := &job.Result{Restored: &job.Restored{Packs: restored, Lost: lost}}
		for _, key := range saved {
			result.Saved = append(result.Saved, savePack(t, c, key))
		}
		if err := from.mergeIndex(t.Context(), system, []*job.Result{result}, limit); err != nil {
			t.Fatal(err)
		}
	}
	names := func(refs ...string) string {
		t.Helper()
		ix, err := storecache.Load(t.Context(), c, on("", "").indexKey(system), refs...)
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, p := range ix.Packs {
			keys = append(keys, p.Key)
		}
		return fmt.Sprint(slices.Sorted(slices.Values(keys)))
	}
	const branch, pull = "refs/heads/main", "refs/pull/7/merge"
	merge(on("push", branch), 0, []string{"base", "also"}, nil, nil)
	for _, test := range []struct {
		limit      int64
		save, want string
	}{
		{0, "ccc", "[ccc]"},
		{1 << 20, "bbb", "[bbb ccc]"},
		{savePack(t, c, "xyz").Size, "aaa", "[aaa]"}, // there is room for one; of the same second, that is the first
	} {
		merge(on("pull_request", pull), test.limit, []string{test.save}, []string{"base"}, []string{"also"})
		if got := names(pull); got != test.want {
			t.Errorf("within %d bytes, the pull request has %s, want %s", test.limit, got, test.want)
		}
		if got := names(branch); got != "[also base]" {
			t.Errorf("within %d bytes, the default branch has %s", test.limit, got)
		}
	}
	own, _, err := on("pull_request", pull).lastIndex(t.Context(), system)
	if err != nil || len(own.Packs) != 1 {
		t.Errorf("it has %v, %v", own, err)
	}
	if all, err := on("pull_request", pull).index(t.Context(), system); err != nil || len(all.Packs) != 3 {
		t.Errorf("it reads %v, %v", all, err)
	}
	merge(on("push", branch), 0, nil, nil, []string{"also"})
	if got := names(branch); got != "[base]" {
		t.Errorf("the default branch has %s", got)
	}
}

// between calls a function once, before the first index is saved.
type between struct {
	cache.Cache
	call func()
}

func (b *between) Save(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if call := b.call; call != nil && strings.Contains(key, "-index-") {
		b.call = nil
		call()
	}
	return b.Cache.Save(ctx, key, body, size)
}

// The packs of jobs that save at the same time add up.
func TestSavedAtTheSameTime(t *testing.T) {
	c, err := dir.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const system, ref = "x86_64-linux", "refs/heads/main"
	in := func(c cache.Cache) *Cache {
		return &Cache{Docs: &documents.Store{Cache: c, ID: "nix-matrix", Trust: &action.Trust{Running: true, Event: "push", Ref: ref}}, Log: quiet{}}
	}
	save := func(from *Cache, key string) {
		t.Helper()
		savePack(t, c, key)
		p, err := storecache.FindPack(t.Context(), c, key, nil)
		if err == nil {
			err = from.updateIndex(t.Context(), system, storecache.Update{Now: now(), Saved: []*storecache.Pack{p}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	save(in(c), "before")
	slow := &between{Cache: c, call: func() { save(in(c), "fast") }}
	save(in(slow), "slow")
	slow.call = func() { save(in(c), "other") }
	save(in(slow), "most")
	ix, err := storecache.Load(t.Context(), c, in(c).indexKey(system), ref)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"before", "fast", "slow", "other", "most"} {
		if !ix.HasPack(key) {
			t.Errorf("the index lost %s", key)
		}
	}
	if stored, err := c.List(t.Context(), job.IndexPrefix("nix-matrix")); err != nil || len(stored) != 5 {
		t.Errorf("%d indexes were stored, %v", len(stored), err)
	}
}

// A job that was ended before it had saved the index hinders no others.
func TestIndexThatWasNeverSaved(t *testing.T) {
	const system, ref = "x86_64-linux", "refs/heads/main"
	var taken []cache.Stored
	for range 2 {
		c, err := dir.New(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		burnt := cachetest.Burnt{Cache: c}
		if len(taken) > 0 {
			burnt.Key = taken[0].Key
		}
		from := &Cache{Docs: &documents.Store{Cache: burnt, ID: "nix-matrix", Trust: &action.Trust{Running: true, Event: "push", Ref: ref}}, Log: quiet{}}
		savePack(t, c, "saved")
		p, err := storecache.FindPack(t.Context(), c, "saved", nil)
		if err == nil {
			err = from.updateIndex(t.Context(), system, storecache.Update{Now: now(), Saved: []*storecache.Pack{p}})
		}
		if err != nil {
			t.Fatal(err)
		}
		if ix, err := storecache.Load(t.Context(), c, from.indexKey(system), ref); err != nil || !ix.HasPack("saved") {
			t.Errorf("the index lost the pack, %v", err)
		}
		if taken, err = c.List(t.Context(), job.IndexPrefix("nix-matrix")); err != nil || len(taken) != 1 || taken[0].Key == burnt.Key {
			t.Errorf("%v, %v", taken, err)
		}
	}
}

// quiet is a log that nobody reads.
type quiet struct{}

func (quiet) Doing(string, ...any)  {}
func (quiet) Printf(string, ...any) {}
func (quiet) Warn(string, error)    {}

// The newest index of each system and ref is one that counts.
func TestIndexes(t *testing.T) {
	c, err := dir.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"refs/heads/main", "refs/pull/7/merge"} {
		from := &Cache{Docs: &documents.Store{Cache: c, ID: "nix-matrix", Trust: &action.Trust{Running: true, Ref: ref}}, Log: quiet{}}
		for _, system := range []string{"x86_64-linux", "aarch64-linux", "x86_64-linux"} {
			_, last, err := from.lastIndex(t.Context(), system)
			if err == nil {
				err = storecache.NewIndex().Save(t.Context(), c, from.indexKey(system), ref, last, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	stored, err := c.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var entries []action.CacheEntry
	for _, s := range stored {
		entries = append(entries, action.CacheEntry{Key: s.Key, Created: s.Saved})
	}
	if got := gc.Indexes(entries, "nix-matrix"); len(entries) != 6 || len(got) != 4 {
		t.Errorf("of %v, %v count", entries, got)
	}
}
