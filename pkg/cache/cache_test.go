package cache_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
)

func TestCheckKey(t *testing.T) {
	for _, key := range []string{"a", "0", "plan-1", "nix.index_2+refs=2fheads=2fmain", strings.Repeat("k", 512)} {
		if err := cache.CheckKey(key); err != nil {
			t.Errorf("CheckKey(%q) = %v", key, err)
		}
	}
	for _, key := range []string{"", strings.Repeat("k", 513), "a,b", "A", "aB", "a/b", `a\b`, "..", ".a", "-a", "a b", "a\x00", "a\n", "ä", "a:b", "a~"} {
		if err := cache.CheckKey(key); err == nil {
			t.Errorf("CheckKey(%q) accepts it", key)
		}
	}
}

func TestCheckOpen(t *testing.T) {
	prefixes := strings.Split("abcdefgh", "")
	if err := cache.CheckOpen("k", prefixes); err != nil {
		t.Error(err)
	}
	if err := cache.CheckOpen("k", append(prefixes, "i")); err == nil {
		t.Error("nine prefixes pass")
	}
	if err := cache.CheckOpen("k", []string{""}); err == nil {
		t.Error("an empty prefix passes")
	}
	if err := cache.CheckOpen("K", nil); err == nil {
		t.Error("an upper case key passes")
	}
}

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"main":            "main",
		"refs/heads/Main": "refs=2fheads=2f=4dain",
		"a=2fb":           "a=3d2fb",
		"a+b,ä":           "a=2bb=2c=c3=a4",
		"a\nb":            "a=0ab",
		"v1.2_3-x":        "v1.2_3-x",
	} {
		got := cache.Escape(text)
		if got != want {
			t.Errorf("Escape(%q) = %q, want %q", text, got, want)
		}
		if err := cache.CheckKey("k" + got); err != nil {
			t.Error(err)
		}
	}
}

func TestCheckRange(t *testing.T) {
	const maxInt = 1<<63 - 1
	for _, ok := range [][2]int64{{0, 10}, {0, 0}, {10, 0}, {9, 1}} {
		if err := cache.CheckRange(ok[0], ok[1], 10); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range [][2]int64{{0, 11}, {10, 1}, {11, 0}, {1, maxInt}, {maxInt, maxInt}} {
		if err := cache.CheckRange(bad[0], bad[1], 10); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("CheckRange(%d, %d, 10) = %v", bad[0], bad[1], err)
		}
	}
	for _, bad := range [][2]int64{{-1, 1}, {1, -1}} {
		if err := cache.CheckRange(bad[0], bad[1], 10); err == nil {
			t.Errorf("CheckRange(%d, %d, 10) passes", bad[0], bad[1])
		}
	}
}

// text is a Blob that has its string, but tells and promises size bytes.
type text struct {
	string
	size int64
}

func (b text) Key() string { return "text" }
func (b text) Size() int64 { return b.size }
func (b text) Range(_ context.Context, offset, length int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(b.string)), nil
}

func TestReadAll(t *testing.T) {
	got, err := cache.ReadAll(t.Context(), text{"abc", 3}, 3)
	if err != nil || string(got) != "abc" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := cache.ReadAll(t.Context(), text{"abcd", 4}, 3); err == nil {
		t.Error("four bytes pass a limit of three")
	}
	if _, err := cache.ReadAll(t.Context(), text{"abc", 4}, 9); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("three bytes of four: %v", err)
	}
}
