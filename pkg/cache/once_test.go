package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/cachetest"
	"github.com/org/nix-matrix/pkg/cache/dir"
)

// Keys that are lost or taken are passed over, and a blob that is there already counts.
func TestSaveOnce(t *testing.T) {
	content := []byte("content")
	key := func(try int) string { return fmt.Sprintf("id%d-sum", try) }
	same := func(b cache.Blob) bool {
		data, err := cache.ReadAll(context.Background(), b, 100)
		return err == nil && bytes.Equal(data, content)
	}
	save := func(c cache.Cache) (string, error) {
		return cache.SaveOnce(t.Context(), c, key, bytes.NewReader(content), int64(len(content)), same)
	}
	c, err := dir.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	put := func(key, text string) {
		t.Helper()
		if err := c.Save(t.Context(), key, strings.NewReader(text), int64(len(text))); err != nil {
			t.Fatal(err)
		}
	}

	put(key(0), "something else")
	got, err := save(cachetest.Burnt{Cache: c, Key: key(1)})
	if err != nil || got != key(2) {
		t.Errorf("saved as %s, %v, want %s", got, err, key(2))
	}
	if got, err = save(c); err != nil || got != key(1) {
		t.Errorf("without the burnt key: %s, %v", got, err)
	}
	for try := range 5 {
		if try > 2 {
			put(key(try), "something else")
		}
	}
	if got, err = save(cachetest.Burnt{Cache: c, Key: key(1)}); err != nil || got != key(2) {
		t.Errorf("what is there already: %s, %v", got, err)
	}
	content = []byte("new content")
	if _, err = save(c); !errors.Is(err, cache.ErrExists) {
		t.Errorf("all keys are taken: %v", err)
	}
}
