package dir_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/cachetest"
	"github.com/org/nix-matrix/pkg/cache/dir"
)

func TestContract(t *testing.T) {
	cachetest.Run(t, func(t *testing.T) cache.Cache { return open(t, filepath.Join(t.TempDir(), "a", "b")) })
}

// TestSharedDirectory has two caches that share nothing but the directory, as
// two processes do.
func TestSharedDirectory(t *testing.T) {
	name := t.TempDir()
	writer, reader := open(t, name), open(t, name)
	cachetest.Save(t, writer, "key", "text")
	if got := read(t, reader, "key"); got != "text" {
		t.Errorf("got %q", got)
	}
	if err := reader.Save(t.Context(), "key", strings.NewReader("other"), 5); !errors.Is(err, cache.ErrExists) {
		t.Errorf("Save: %v, want ErrExists", err)
	}
}

func TestFileIsTheBlob(t *testing.T) {
	name := t.TempDir()
	cachetest.Save(t, open(t, name), "pack-1.zst", "text")
	got, err := os.ReadFile(filepath.Join(name, "pack-1.zst"))
	if err != nil || string(got) != "text" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestNewestHasStableTieBreak(t *testing.T) {
	name := t.TempDir()
	c := open(t, name)
	at := time.Unix(1_700_000_000, 0)
	for _, key := range []string{"p-2", "p-3", "p-1"} {
		cachetest.Save(t, c, key, key)
		if err := os.Chtimes(filepath.Join(name, key), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, c, "absent", "p-"); got != "p-3" {
		t.Errorf("of the same age: %s, want p-3", got)
	}
	if err := os.Chtimes(filepath.Join(name, "p-1"), at, at.Add(1)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, "absent", "p-"); got != "p-1" {
		t.Errorf("newer by a nanosecond: %s, want p-1", got)
	}
}

func TestForeignFilesAreNoBlobs(t *testing.T) {
	name := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	for file, text := range map[string]string{
		outside:                         "secret",
		filepath.Join(name, "p-Upper"):  "x",
		filepath.Join(name, ".p-hid"):   "x",
		filepath.Join(name, "p-sub/p"):  "x",
		filepath.Join(name, "p-dir~/x"): "x",
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(name, "p-link")); err != nil {
		t.Fatal(err)
	}
	c := open(t, name)
	for _, key := range []string{"p-sub", "p-dirx", "p-link"} {
		if blob, err := c.Open(t.Context(), key, "p-"); !errors.Is(err, cache.ErrMiss) {
			t.Errorf("Open %s: %v, %v, want ErrMiss", key, blob, err)
		}
	}
}

func TestNothingLeftBehind(t *testing.T) {
	name := t.TempDir()
	c := open(t, name)
	cachetest.Save(t, c, "key", "text")
	if err := c.Save(t.Context(), "short", strings.NewReader("x"), 2); err == nil {
		t.Error("a short body is saved")
	}
	if left := files(t, filepath.Join(name, ".tmp")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStaleFilesAreRemoved(t *testing.T) {
	name := t.TempDir()
	cachetest.Save(t, open(t, name), "key", "text")
	now := time.Now()
	for file, age := range map[string]time.Duration{"old": 25 * time.Hour, "young": time.Hour} {
		path := filepath.Join(name, ".tmp", file)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	open(t, name)
	if left := files(t, filepath.Join(name, ".tmp")); len(left) != 1 || left[0] != "young" {
		t.Errorf("left: %v, want young alone", left)
	}
}

func TestEvictedAndTruncated(t *testing.T) {
	name := t.TempDir()
	c := open(t, name)
	cachetest.Save(t, c, "key", "text")
	blob, err := c.Open(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(name, "key"), 2); err != nil {
		t.Fatal(err)
	}
	if got, err := cache.ReadAll(t.Context(), blob, 4); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("truncated: %q, %v, want ErrUnexpectedEOF", got, err)
	}
	if err := os.Remove(filepath.Join(name, "key")); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.Range(t.Context(), 0, 4); !errors.Is(err, cache.ErrMiss) {
		t.Errorf("removed: %v, want ErrMiss", err)
	}
}

func TestDirectoryThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.New(filepath.Join(file, "sub")); err == nil {
		t.Error("a cache below a file")
	}
}

func open(t *testing.T, name string) cache.Cache {
	t.Helper()
	c, err := dir.New(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func read(t *testing.T, c cache.Cache, key string, prefixes ...string) string {
	t.Helper()
	blob, err := c.Open(t.Context(), key, prefixes...)
	if err != nil {
		t.Fatal(err)
	}
	data, err := cache.ReadAll(t.Context(), blob, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func files(t *testing.T, name string) []string {
	t.Helper()
	entries, err := os.ReadDir(name)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// Listed blobs can be opened, and removed ones are not listed.
func TestCollectable(t *testing.T) {
	name := t.TempDir()
	c := open(t, name)
	long := "a-" + strings.Repeat("x", 400)
	for _, key := range []string{"a-1", "a-2", "b-1", long} {
		cachetest.Save(t, c, key, "text")
	}
	for _, file := range []string{".tmp/a-3", "run/a-4", "A-5", "a-6~/x"} { // no blobs
		if err := os.MkdirAll(filepath.Dir(filepath.Join(name, file)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(name, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	saved := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(filepath.Join(name, "a-1"), saved, saved); err != nil {
		t.Fatal(err)
	}
	listing := c.(cache.Collectable)
	list := func(prefix string) string {
		t.Helper()
		all, err := listing.List(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, s := range all {
			keys = append(keys, s.Key)
			if s.Size != 4 || s.Saved.IsZero() || s.Key == "a-1" && !s.Saved.Equal(saved) {
				t.Errorf("%+v", s)
			}
		}
		slices.Sort(keys)
		return strings.Join(keys, " ")
	}
	if got, want := list("a-"), "a-1 a-2 "+long; got != want {
		t.Errorf("there are %s, want %s", got, want)
	}
	for _, key := range []string{"a-2", long, "a-2"} { // the last one is not there
		if err := listing.Remove(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	if got, want := list(""), "a-1 b-1"; got != want {
		t.Errorf("left are %s, want %s", got, want)
	}
	if err := listing.Remove(t.Context(), "../outside"); err == nil {
		t.Error("what is no key can be removed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := listing.List(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("List: %v, want Canceled", err)
	}
}

// Users who share a directory read what the others have saved, as far as its mode and the
// umask allow.
func TestModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o002))
	for mode, want := range map[fs.FileMode]fs.FileMode{0o700: 0o600, 0o755: 0o644, 0o770: 0o660, 0o777: 0o664} {
		t.Run(mode.String(), func(t *testing.T) {
			name := t.TempDir()
			if err := os.Chmod(name, mode); err != nil {
				t.Fatal(err)
			}
			c, err := dir.New(name)
			if err != nil {
				t.Fatal(err)
			}
			long := strings.Repeat("k", 300)
			for _, key := range []string{"key", long} {
				if err := c.Save(t.Context(), key, strings.NewReader("text"), 4); err != nil {
					t.Fatal(err)
				}
			}
			for file, want := range map[string]fs.FileMode{"key": want, long[:200] + "~": mode &^ 0o002, ".tmp": mode &^ 0o002} {
				info, err := os.Stat(filepath.Join(name, file))
				if err != nil {
					t.Error(err)
				} else if info.Mode().Perm() != want {
					t.Errorf("%.20s: %v, want %v", file, info.Mode().Perm(), want)
				}
			}
		})
	}
}

// A directory that nobody has made is its owner's alone.
func TestNewDirectory(t *testing.T) {
	name := filepath.Join(t.TempDir(), "new")
	if _, err := dir.New(name); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
