package cachetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
)

// A grower is a blob that ends with an error, if there is one. It does not grow beyond held bytes before some of it
// were read, if held is not 0.
type grower struct {
	data []byte
	fail error
	held int64

	once sync.Once
	read chan struct{}
}

func newGrower(data []byte) *grower { return &grower{data: data, read: make(chan struct{})} }

func (g *grower) ReadAt(p []byte, offset int64) (int, error) {
	g.once.Do(func() { close(g.read) })
	return bytes.NewReader(g.data).ReadAt(p, offset)
}

func (g *grower) Grown(ctx context.Context, least int64) (int64, bool, error) {
	size := int64(len(g.data))
	if least < size {
		size = min(size, least+100) // a little more than was asked for
	}
	if g.held > 0 && least > g.held {
		select {
		case <-g.read:
		case <-ctx.Done():
			return 0, false, context.Cause(ctx)
		}
	}
	if least > size && g.fail != nil {
		return size, false, g.fail
	}
	return size, size == int64(len(g.data)) && g.fail == nil, nil
}

func (s *suite) growing(t *testing.T, c cache.Cache) {
	if !s.grows {
		if err := cache.SaveGrowing(t.Context(), c, "key", newGrower([]byte("text"))); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("SaveGrowing: %v, want ErrUnsupported", err)
		}
		Save(t, c, "key", "text")
		return
	}
	const block = 5 << 20 // of a server for tests, or less
	data := make([]byte, 2*block+1<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)
	for _, size := range []int{1, 1 << 20, 1<<20 + 1, block, block + 1, 2*block - 1, 2 * block, len(data)} {
		key := fmt.Sprint("size-", size)
		body := newGrower(data[:size])
		if size > block+1 {
			body.held = block + 1 // the end is written when the beginning was sent
		}
		if err := cache.SaveGrowing(t.Context(), c, key, body); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		blob, err := c.Open(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := cache.ReadAll(t.Context(), blob, int64(len(data))); err != nil || !bytes.Equal(got, data[:size]) {
			t.Errorf("%d bytes come back as %d, %v", size, len(got), err)
		}
		if err := cache.SaveGrowing(t.Context(), c, key, newGrower(data[:size])); !errors.Is(err, cache.ErrExists) {
			t.Errorf("SaveGrowing under a key that is taken: %v, want ErrExists", err)
		}
	}
	boom := errors.New("boom")
	for size := range int64(3) {
		bad := newGrower(data[:size*block+5])
		bad.fail = boom
		if err := cache.SaveGrowing(t.Context(), c, fmt.Sprint("bad-", size), bad); !errors.Is(err, boom) {
			t.Errorf("SaveGrowing of a blob that fails: %v", err)
		}
		expectMiss(t, c, fmt.Sprint("bad-", size))
	}
	short := &shortGrower{newGrower(data[:2*block])}
	if err := cache.SaveGrowing(t.Context(), c, "short", short); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("SaveGrowing of a blob that does not have its bytes: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := newGrower(data)
	waiting.held = 1
	cancel()
	if err := cache.SaveGrowing(ctx, c, "cancelled", waiting); !errors.Is(err, context.Canceled) {
		t.Errorf("SaveGrowing after the end: %v, want Canceled", err)
	}
	for _, key := range []string{"", "a/b"} {
		if err := cache.SaveGrowing(t.Context(), c, key, newGrower(data)); err == nil {
			t.Errorf("SaveGrowing accepts the key %q", key)
		}
	}
}

// A shortGrower has fewer bytes than it says.
type shortGrower struct{ *grower }

func (s *shortGrower) ReadAt(p []byte, offset int64) (int, error) {
	if offset+int64(len(p)) > int64(len(s.data))-10 {
		return 0, io.EOF
	}
	return s.grower.ReadAt(p, offset)
}
