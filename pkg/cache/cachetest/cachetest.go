// Package cachetest is the contract of package cache as a test suite, which
// every implementation must pass.
package cachetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
)

// BigBlob is the size in bytes of the largest blob that the suite saves. An
// implementation that uploads in blocks should be given smaller ones, so that
// there are several.
const BigBlob = 5<<20 + 17

// Option adapts the suite to what a server can't do.
type Option func(*suite)

// Tick has the suite call wait between two saves whose order matters, for a
// server whose clock is too coarse to tell them apart.
func Tick(wait func()) Option { return func(s *suite) { s.tick = wait } }

// LastWins is for a server that does not reserve keys: of concurrent saves
// under one key several may succeed.
func LastWins() Option { return func(s *suite) { s.lastWins = true } }

// Grows is for a cache that sends blobs while they are written.
func Grows() Option { return func(s *suite) { s.grows = true } }

type suite struct {
	open     func(t *testing.T) cache.Cache
	tick     func()
	lastWins bool
	grows    bool
}

// Run tests the caches that open returns, an empty one at each call.
func Run(t *testing.T, open func(t *testing.T) cache.Cache, options ...Option) {
	s := &suite{open: open, tick: func() {}}
	for _, option := range options {
		option(s)
	}
	for _, test := range []struct {
		name string
		run  func(t *testing.T, c cache.Cache)
	}{
		{"round trip", s.roundTrip},
		{"long key", s.longKey},
		{"refused", s.refused},
		{"miss", s.miss},
		{"immutable", s.immutable},
		{"prefixes", s.prefixes},
		{"ranges", s.ranges},
		{"tail", s.tail},
		{"big blob", s.bigBlob},
		{"concurrent saves", s.concurrentSaves},
		{"interrupted save", s.interruptedSave},
		{"short body", s.shortBody},
		{"long body", s.longBody},
		{"cancelled", s.cancelled},
		{"cancelled save", s.cancelledSave},
		{"cancelled range", s.cancelledRange},
		{"growing", s.growing},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s.open(t)) })
	}
}

func (s *suite) roundTrip(t *testing.T, c cache.Cache) {
	Save(t, c, "one", "x")
	Save(t, c, "two.2_z+y=-", "hello\x00world\n")
	expect(t, c, "one", "x", "one")
	expect(t, c, "two.2_z+y=-", "hello\x00world\n", "two.2_z+y=-")
}

func (s *suite) longKey(t *testing.T, c cache.Cache) {
	k := strings.Repeat("k", cache.MaxKey-1)
	for _, key := range []string{k + "k", k + "j", "j" + k} {
		Save(t, c, key, key[:1]+key[cache.MaxKey-1:])
	}
	expect(t, c, k+"k", "kk", k+"k")
	expect(t, c, k+"j", "kj", k+"j")
	expect(t, c, k+"j", "kj", "absent", k+"j")
	expect(t, c, "j"+k, "jk", "absent", "j"+k[:300])
	expect(t, c, "j"+k, "jk", "absent", "j")
}

func (s *suite) refused(t *testing.T, c cache.Cache) {
	for _, key := range []string{"", "..", "../a", "a/b", "/a", "a,b", "Upper", "a\x00b", strings.Repeat("k", cache.MaxKey+1)} {
		if err := c.Save(t.Context(), key, bytes.NewReader([]byte("x")), 1); err == nil {
			t.Errorf("Save accepts the key %.20q", key)
		}
		if _, err := c.Open(t.Context(), key); err == nil || errors.Is(err, cache.ErrMiss) {
			t.Errorf("Open of the key %.20q: %v", key, err)
		}
		if _, err := c.Open(t.Context(), "absent", key); err == nil || errors.Is(err, cache.ErrMiss) {
			t.Errorf("Open of the prefix %.20q: %v", key, err)
		}
	}
	for _, size := range []int64{0, -1} {
		if err := c.Save(t.Context(), "empty", bytes.NewReader(nil), size); err == nil {
			t.Errorf("Save accepts %d bytes", size)
		}
	}
	expectMiss(t, c, "empty")
}

func (s *suite) miss(t *testing.T, c cache.Cache) {
	expectMiss(t, c, "key")
	expectMiss(t, c, "key", "prefix", "k")
	Save(t, c, "key-longer", "x")
	expectMiss(t, c, "key")
	expectMiss(t, c, "key-longer-still")
	expectMiss(t, c, "key", "other", "key-longer-still")
}

func (s *suite) immutable(t *testing.T, c cache.Cache) {
	Save(t, c, "key", "first")
	err := c.Save(t.Context(), "key", bytes.NewReader([]byte("second")), 6)
	if !errors.Is(err, cache.ErrExists) {
		t.Errorf("second Save: %v, want ErrExists", err)
	}
	expect(t, c, "key", "first", "key")
}

func (s *suite) prefixes(t *testing.T, c cache.Cache) {
	Save(t, c, "q-9", "at q-9")
	Save(t, c, "p-2", "at p-2")
	s.tick()
	Save(t, c, "p-1", "at p-1")
	expect(t, c, "p-1", "at p-1", "absent", "p-")
	expect(t, c, "p-2", "at p-2", "p-2", "p-")
	expect(t, c, "p-2", "at p-2", "absent", "none-", "p-2", "p-")
	expect(t, c, "q-9", "at q-9", "absent", "q-", "p-")
	expect(t, c, "p-1", "at p-1", "absent", "p-", "q-")
	// The key itself is no prefix.
	expect(t, c, "q-9", "at q-9", "p-", "q-")
	expectMiss(t, c, "p-", "none-")
}

func (s *suite) ranges(t *testing.T, c cache.Cache) {
	const text = "0123456789"
	Save(t, c, "digits", text)
	blob, err := c.Open(t.Context(), "digits")
	if err != nil {
		t.Fatal(err)
	}
	for offset := range int64(len(text)) + 1 {
		for length := range int64(len(text)) + 1 - offset {
			got, err := readRange(t.Context(), blob, offset, length)
			if want := text[offset : offset+length]; err != nil || string(got) != want {
				t.Errorf("%d bytes at %d: %q, %v", length, offset, got, err)
			}
		}
	}
	for _, past := range [][2]int64{{0, 11}, {9, 2}, {10, 1}, {11, 0}, {100, 1}, {1, 1<<63 - 1}} {
		got, err := readRange(t.Context(), blob, past[0], past[1])
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes at %d: %q, %v, want ErrUnexpectedEOF", past[1], past[0], got, err)
		}
	}
	for _, negative := range [][2]int64{{-1, 1}, {0, -1}} {
		if _, err := blob.Range(t.Context(), negative[0], negative[1]); err == nil {
			t.Errorf("Range accepts %d bytes at %d", negative[1], negative[0])
		}
	}
	// A reader that is closed early does not disturb the others.
	body, err := blob.Range(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	expect(t, c, "digits", text, "digits")
}

func (s *suite) tail(t *testing.T, c cache.Cache) {
	const text = "0123456789"
	Save(t, c, "digits", text)
	for _, tail := range []int64{0, 1, 5, 10, 11, 1 << 40} {
		blob, err := cache.OpenTail(t.Context(), c, "digits", 10, tail)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range [][2]int64{{9, 1}, {5, 5}, {0, 10}, {2, 4}, {10, 0}} {
			if got, err := readRange(t.Context(), blob, at[0], at[1]); err != nil || string(got) != text[at[0]:at[0]+at[1]] {
				t.Errorf("%d bytes at %d: %q, %v", at[1], at[0], got, err)
			}
		}
		if blob.Key() != "digits" || blob.Size() != 10 {
			t.Errorf("%q, %d bytes", blob.Key(), blob.Size())
		}
	}
	for _, size := range []int64{1, 9, 11, BigBlob} {
		if blob, err := cache.OpenTail(t.Context(), c, "digits", size, 1); !errors.Is(err, cache.ErrMiss) {
			t.Errorf("it has %d bytes: %v, %v", size, blob, err)
		}
	}
	if _, err := cache.OpenTail(t.Context(), c, "digit", 10, 1); !errors.Is(err, cache.ErrMiss) {
		t.Errorf("another key: %v", err)
	}
}

func (s *suite) bigBlob(t *testing.T, c cache.Cache) {
	data := make([]byte, BigBlob)
	rand.NewChaCha8([32]byte{}).Read(data)
	if err := c.Save(t.Context(), "big", bytes.NewReader(data), BigBlob); err != nil {
		t.Fatal(err)
	}
	blob, err := c.Open(t.Context(), "big")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := cache.ReadAll(t.Context(), blob, BigBlob); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the bytes differ, %v", err)
	}
	const parts = 8
	var wg sync.WaitGroup
	for i := range int64(parts) {
		wg.Go(func() {
			from, to := i*BigBlob/parts, (i+1)*BigBlob/parts
			if got, err := readRange(t.Context(), blob, from, to-from); err != nil || !bytes.Equal(got, data[from:to]) {
				t.Errorf("the bytes from %d to %d differ, %v", from, to, err)
			}
		})
	}
	wg.Wait()
}

func (s *suite) concurrentSaves(t *testing.T, c cache.Cache) {
	const savers = 4
	var errs [savers]error
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range savers {
		wg.Go(func() {
			<-start
			text := fmt.Sprintf("saver %d", i)
			errs[i] = c.Save(t.Context(), "key", bytes.NewReader([]byte(text)), int64(len(text)))
		})
	}
	close(start)
	wg.Wait()
	won := map[string]bool{}
	for i, err := range errs {
		switch {
		case err == nil:
			won[fmt.Sprintf("saver %d", i)] = true
		case !errors.Is(err, cache.ErrExists):
			t.Errorf("saver %d: %v, want ErrExists", i, err)
		}
	}
	if len(won) == 0 || len(won) > 1 && !s.lastWins {
		t.Errorf("%d of %d succeeded, want 1", len(won), savers)
	}
	blob, err := c.Open(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	got, err := cache.ReadAll(t.Context(), blob, 100)
	if err != nil || !won[string(got)] {
		t.Errorf("stored is %q, %v, but %v succeeded", got, err, won)
	}
}

func (s *suite) interruptedSave(t *testing.T, c cache.Cache) {
	broken := errors.New("broken body")
	body := &faultyBody{from: BigBlob / 2, fail: func() error { return broken }}
	if err := c.Save(t.Context(), "key", body, BigBlob); !errors.Is(err, broken) {
		t.Errorf("Save: %v, want the body's error", err)
	}
	s.afterFailure(t, c)
}

func (s *suite) shortBody(t *testing.T, c cache.Cache) {
	err := c.Save(t.Context(), "key", bytes.NewReader([]byte("three")), 6)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Save of five bytes as six: %v, want ErrUnexpectedEOF", err)
	}
	s.afterFailure(t, c)
}

func (s *suite) longBody(t *testing.T, c cache.Cache) {
	if err := c.Save(t.Context(), "key", bytes.NewReader([]byte("longer")), 4); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "key", "long", "key")
}

func (s *suite) cancelled(t *testing.T, c cache.Cache) {
	Save(t, c, "key", "text")
	blob, err := c.Open(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Open(ctx, "key", "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("Open: %v, want Canceled", err)
	}
	if _, err := readRange(ctx, blob, 0, 4); !errors.Is(err, context.Canceled) {
		t.Errorf("Range: %v, want Canceled", err)
	}
	if err := c.Save(ctx, "other", bytes.NewReader([]byte("x")), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Save: %v, want Canceled", err)
	}
	expectMiss(t, c, "other")
}

func (s *suite) cancelledSave(t *testing.T, c cache.Cache) {
	ctx, cancel := context.WithCancel(t.Context())
	body := &faultyBody{from: 0, fail: func() error { cancel(); return nil }}
	if err := c.Save(ctx, "key", body, BigBlob); !errors.Is(err, context.Canceled) {
		t.Errorf("Save: %v, want Canceled", err)
	}
	s.afterFailure(t, c)
}

func (s *suite) cancelledRange(t *testing.T, c cache.Cache) {
	if err := c.Save(t.Context(), "key", &faultyBody{from: BigBlob}, BigBlob); err != nil {
		t.Fatal(err)
	}
	blob, err := c.Open(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	body, err := blob.Range(ctx, 0, BigBlob)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, body); !errors.Is(err, context.Canceled) {
		t.Errorf("reading on: %v, want Canceled", err)
	}
}

// afterFailure expects that nothing is stored under "key", which may be taken.
func (s *suite) afterFailure(t *testing.T, c cache.Cache) {
	t.Helper()
	expectMiss(t, c, "key", "k")
	switch err := c.Save(t.Context(), "key", bytes.NewReader([]byte("again")), 5); {
	case err == nil:
		expect(t, c, "key", "again", "key")
	case errors.Is(err, cache.ErrExists):
		expectMiss(t, c, "key", "k")
	default:
		t.Errorf("Save after a failed one: %v", err)
	}
}

// faultyBody reads as zeros, and calls fail at reads that go beyond from.
type faultyBody struct {
	from int64
	fail func() error
}

func (b *faultyBody) ReadAt(p []byte, offset int64) (int, error) {
	if offset+int64(len(p)) > b.from && b.fail != nil {
		if err := b.fail(); err != nil {
			return 0, err
		}
	}
	clear(p)
	return len(p), nil
}

// Save saves a text under a key, or ends the test.
func Save(t *testing.T, c cache.Cache, key, text string) {
	t.Helper()
	if err := c.Save(t.Context(), key, bytes.NewReader([]byte(text)), int64(len(text))); err != nil {
		t.Fatalf("Save %.20s: %v", key, err)
	}
}

// expect opens key with prefixes, and wants wantText under wantKey.
func expect(t *testing.T, c cache.Cache, wantKey, wantText, key string, prefixes ...string) {
	t.Helper()
	blob, err := c.Open(t.Context(), key, prefixes...)
	if err != nil {
		t.Errorf("Open %.20s: %v", key, err)
		return
	}
	if blob.Key() != wantKey {
		t.Errorf("Open %.20s finds %.20s, want %.20s", key, blob.Key(), wantKey)
	}
	if blob.Size() != int64(len(wantText)) {
		t.Errorf("size of %.20s is %d, want %d", blob.Key(), blob.Size(), len(wantText))
	}
	got, err := cache.ReadAll(t.Context(), blob, BigBlob)
	if err != nil || string(got) != wantText {
		t.Errorf("text of %.20s is %q, %v, want %q", blob.Key(), got, err, wantText)
	}
}

func expectMiss(t *testing.T, c cache.Cache, key string, prefixes ...string) {
	t.Helper()
	if blob, err := c.Open(t.Context(), key, prefixes...); !errors.Is(err, cache.ErrMiss) {
		t.Errorf("Open %.20s: %v, %v, want ErrMiss", key, blob, err)
	}
}

func readRange(ctx context.Context, blob cache.Blob, offset, length int64) ([]byte, error) {
	body, err := blob.Range(ctx, offset, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(body)
	return data, errors.Join(err, body.Close())
}
