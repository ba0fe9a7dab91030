package actions_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type readerAt func(p []byte, offset int64) (int, error)

func (f readerAt) ReadAt(p []byte, offset int64) (int, error) { return f(p, offset) }

func save(t *testing.T, c cache.Cache, key, text string) {
	t.Helper()
	if err := c.Save(t.Context(), key, strings.NewReader(text), int64(len(text))); err != nil {
		t.Fatal(err)
	}
}

// carry saves so many bytes and reads them again.
func carry(t *testing.T, c cache.Cache, size int) {
	t.Helper()
	data := bytes.Repeat([]byte(digits), size/len(digits))
	if err := c.Save(t.Context(), "key", bytes.NewReader(data), int64(size)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, "key"); got != string(data) {
		t.Error("the bytes differ")
	}
}

func read(t *testing.T, c cache.Cache, key string) string {
	t.Helper()
	blob, err := c.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	data, err := cache.ReadAll(t.Context(), blob, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func readRange(ctx context.Context, blob cache.Blob, offset, length int64) (string, error) {
	body, err := blob.Range(ctx, offset, length)
	if err != nil {
		return "", err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	return string(data), err
}
