package cachetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
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
	data := make([]byte, 3<<20+1)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)
	for _, size := range []int{1, 1 << 20, 1<<20 + 1, 2 << 20, 2<<20 - 1, len(data)} {
		key := strings.Repeat("k", size%7+1) + "-" + string(rune('a'+size%11))
		body := newGrower(data[:size])
		if size > 1<<20+1 {
			body.held = 1<<20 + 1 // the end is written when the beginning was sent
		}
		if err := cache.SaveGrowing(t.Context(), c, key, body); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		expect(t, c, key, string(data[:size]), key)
		if err := cache.SaveGrowing(t.Context(), c, key, newGrower(data[:size])); !errors.Is(err, cache.ErrExists) {
			t.Errorf("SaveGrowing under a key that is taken: %v, want ErrExists", err)
		}
	}
	boom := errors.New("boom")
	for size := range int64(3) {
		bad := newGrower(data[:size<<20+5])
		bad.fail = boom
		if err := cache.SaveGrowing(t.Context(), c, "bad"+string(rune('a'+size)), bad); !errors.Is(err, boom) {
			t.Errorf("SaveGrowing of a blob that fails: %v", err)
		}
		expectMiss(t, c, "bad"+string(rune('a'+size)))
	}
	short := &shortGrower{newGrower(data[:2<<20])}
	if err := cache.SaveGrowing(t.Context(), c, "short", short); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("SaveGrowing of a blob that does not have its bytes: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := newGrower(data)
	waiting.held = 1
	context.AfterFunc(t.Context(), cancel)
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
