package actions_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/actions"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
)

const block = 1 << 20 // bytes, what the configs of these tests have

// openBig saves that many bytes under "big" and opens them. Downloads pass
// through get, which may be changed at any time, the measuring one excepted.
func openBig(t *testing.T, options actionstest.Options, size int, change func(*actions.Config)) (blob cache.Blob, data []byte, get *atomic.Pointer[download]) {
	t.Helper()
	get = &atomic.Pointer[download]{}
	config := fast(t, actionstest.Start(t, options).Getenv)
	config.Parallel, config.Prefetch = 4, 4
	config.Transport = storage(func(_ int, r *http.Request, send func() *http.Response) (*http.Response, error) {
		if meddle := get.Load(); r.Method == http.MethodGet && meddle != nil {
			return (*meddle)(r, send)
		}
		return send(), nil
	})
	if change != nil {
		change(&config)
	}
	data = make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data)
	c := actions.New(config)
	if err := c.Save(t.Context(), "big", bytes.NewReader(data), int64(size)); err != nil {
		t.Fatal(err)
	}
	blob, err := c.Open(t.Context(), "big")
	if err != nil {
		t.Fatal(err)
	}
	return blob, data, get
}

type download = func(r *http.Request, send func() *http.Response) (*http.Response, error)

// TestBlocksTravelTogether lets no download begin before as many are under way as may be.
func TestBlocksTravelTogether(t *testing.T) {
	blob, data, get := openBig(t, actionstest.Options{}, 9*block+10, nil)
	for range 2 {
		var asked atomic.Int64
		all := make(chan struct{})
		get.Store(new(func(_ *http.Request, send func() *http.Response) (*http.Response, error) {
			if asked.Add(1) == 4 {
				close(all)
			}
			<-all
			return send(), nil
		}))
		body, err := blob.Range(t.Context(), 5, blob.Size()-7)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 1)
		if _, err := io.ReadFull(body, first); err != nil || asked.Load() != 4 {
			t.Errorf("after the first byte %d blocks are asked for, %v, want 4", asked.Load(), err)
		}
		rest, err := io.ReadAll(body)
		if got := append(first, rest...); err != nil || !bytes.Equal(got, data[5:len(data)-2]) {
			t.Errorf("%d bytes, %v, want %d others", len(got), err, len(data)-7)
		}
		if asked.Load() != 10 {
			t.Errorf("%d downloads, want 10", asked.Load())
		}
		// A block that is closed without being read frees its part of the budget, too.
		if body, err = blob.Range(t.Context(), 0, blob.Size()); err == nil {
			_, err = io.ReadFull(body, first)
		}
		if err := errors.Join(err, body.Close(), body.Close()); err != nil {
			t.Error(err)
		}
		if _, err := body.Read(first); err == nil {
			t.Error("a closed one can be read")
		}
	}
}

func TestOneBlockIsOneDownload(t *testing.T) {
	blob, data, get := openBig(t, actionstest.Options{}, 2*block, nil)
	var ranges []string
	get.Store(new(func(r *http.Request, send func() *http.Response) (*http.Response, error) {
		ranges = append(ranges, r.Header.Get("Range"))
		return send(), nil
	}))
	if got, err := readRange(t.Context(), blob, 7, block); err != nil || got != string(data[7:7+block]) {
		t.Errorf("the bytes differ, %v", err)
	}
	if want := fmt.Sprintf("[bytes=7-%d]", block+6); fmt.Sprint(ranges) != want {
		t.Errorf("downloads: %v, want %s", ranges, want)
	}
}

// TestSmallBlobIsOneDownload opens blobs that have a byte less than, as many as, and
// a byte more than what is read then, with a storage that knows ranges and one that
// does not.
func TestSmallBlobIsOneDownload(t *testing.T) {
	const small = 100
	for _, test := range []struct {
		size    int
		ignores bool
		ranges  int // that are downloaded
	}{{small - 1, false, 0}, {small, false, 0}, {small, true, 0}, {small + 1, false, 2}, {small + 1, true, 2}} {
		var opening atomic.Int64
		blob, data, get := openBig(t, actionstest.Options{}, test.size, func(c *actions.Config) {
			c.Small = small
			transport := c.Transport
			c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodGet {
					opening.Add(1)
					if test.ignores {
						r.Header.Del("Range")
					}
				}
				return transport.RoundTrip(r)
			})
		})
		if opening.Load() != 1 || blob.Size() != int64(test.size) {
			t.Errorf("%d bytes are opened with %d downloads, as %d bytes", test.size, opening.Load(), blob.Size())
		}
		ranges := 0
		get.Store(new(func(_ *http.Request, send func() *http.Response) (*http.Response, error) {
			ranges++
			return send(), nil
		}))
		for _, offset := range []int64{0, 7} {
			if got, err := readRange(t.Context(), blob, offset, blob.Size()-offset); err != nil || got != string(data[offset:]) {
				t.Errorf("of %d bytes those at %d differ, %v", test.size, offset, err)
			}
		}
		if ranges != test.ranges {
			t.Errorf("%d bytes are read with %d downloads, want %d", test.size, ranges, test.ranges)
		}
	}
}

// TestUnreadRange has a range that nobody reads take all of the budget.
func TestUnreadRange(t *testing.T) {
	blob, data, get := openBig(t, actionstest.Options{}, 6*block, nil)
	var asked atomic.Int64
	get.Store(new(func(_ *http.Request, send func() *http.Response) (*http.Response, error) {
		asked.Add(1)
		return send(), nil
	}))
	unread, err := blob.Range(t.Context(), 0, blob.Size())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(unread, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := readRange(t.Context(), blob, 0, blob.Size()); err != nil || got != string(data) {
			t.Errorf("the bytes differ, %v", err)
		}
	}
	if rest, err := io.ReadAll(unread); err != nil || !bytes.Equal(rest, data[1:]) {
		t.Errorf("the rest differs, %v", err)
	}
	if err := unread.Close(); err != nil || asked.Load() != 18 {
		t.Errorf("%d downloads, %v, want 18", asked.Load(), err)
	}
}

// TestBlockFaults has the block in the middle meet a fault, twice.
func TestBlockFaults(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault func(r *http.Request, resp *http.Response) *http.Response
		lasts int
		want  error
	}{
		{"truncated", func(_ *http.Request, resp *http.Response) *http.Response {
			resp.Body = &breaking{io.LimitReader(resp.Body, block/3), resp.Body, io.EOF}
			return resp
		}, 2, nil},
		{"reset", func(_ *http.Request, resp *http.Response) *http.Response {
			resp.Body = &breaking{io.LimitReader(resp.Body, block/3), resp.Body, errors.New("connection reset by peer")}
			return resp
		}, 2, nil},
		{"429", func(*http.Request, *http.Response) *http.Response { return status(429) }, 2, nil},
		{"429 Retry-After", func(*http.Request, *http.Response) *http.Response { return status(429, "Retry-After", "0") }, 2, nil},
		{"500", func(*http.Request, *http.Response) *http.Response { return status(500) }, 2, nil},
		{"502", func(*http.Request, *http.Response) *http.Response { return status(502) }, 2, nil},
		{"expired", func(*http.Request, *http.Response) *http.Response {
			return status(403, "x-ms-error-code", "AuthenticationFailed")
		}, 2, nil},
		{"always truncated", func(_ *http.Request, resp *http.Response) *http.Response {
			resp.Body = http.NoBody
			return resp
		}, 6, io.ErrUnexpectedEOF},
		{"evicted", func(*http.Request, *http.Response) *http.Response { return status(404) }, 1, cache.ErrMiss},
	} {
		t.Run(test.name, func(t *testing.T) {
			blob, data, get := openBig(t, actionstest.Options{}, 5*block, nil)
			var met atomic.Int64
			get.Store(new(func(r *http.Request, send func() *http.Response) (*http.Response, error) {
				resp := send()
				if strings.HasSuffix(r.Header.Get("Range"), fmt.Sprintf("-%d", 3*block-1)) && resp != nil && met.Add(1) <= int64(test.lasts) {
					resp = test.fault(r, resp)
				}
				return resp, nil
			}))
			got, err := readRange(t.Context(), blob, 0, blob.Size())
			switch {
			case test.want == nil && (err != nil || got != string(data)):
				t.Errorf("the bytes differ, %v", err)
			case test.want == nil && met.Load() != int64(test.lasts)+1, test.want != nil && met.Load() != int64(test.lasts):
				t.Errorf("%d downloads of the block", met.Load())
			case test.want != nil && (!errors.Is(err, test.want) || got != string(data[:2*block])):
				t.Errorf("%d bytes, %v, want 2 blocks and %v", len(got), err, test.want)
			}
		})
	}
}

// TestBlockWithoutAnswer has the connections for the block in the middle closed
// before an answer, which net/http calls EOF: not the end of the block.
func TestBlockWithoutAnswer(t *testing.T) {
	blob, data, get := openBig(t, actionstest.Options{}, 5*block, nil)
	get.Store(new(func(r *http.Request, send func() *http.Response) (*http.Response, error) {
		if strings.HasSuffix(r.Header.Get("Range"), fmt.Sprintf("-%d", 3*block-1)) {
			return nil, io.EOF
		}
		return send(), nil
	}))
	got, err := readRange(t.Context(), blob, 0, blob.Size())
	if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || got != string(data[:2*block]) {
		t.Errorf("%d bytes, %v, want 2 blocks and ErrUnexpectedEOF", len(got), err)
	}
}

// TestBlockStalls has the block in the middle stop, with its connection open.
// The others may be slow, too, as far as the test knows.
func TestBlockStalls(t *testing.T) {
	var stalls actions.Stalls
	blob, data, get := openBig(t, actionstest.Options{}, 5*block, func(c *actions.Config) {
		stalls.In(c)
		c.Retries = 100
	})
	var froms []string
	get.Store(new(func(r *http.Request, send func() *http.Response) (*http.Response, error) {
		resp := send()
		from, ok := strings.CutSuffix(r.Header.Get("Range"), fmt.Sprintf("-%d", 3*block-1))
		if ok && resp != nil {
			if froms = append(froms, from); len(froms) == 1 {
				resp.Body = &stalling{r.Context(), &stalls, io.LimitReader(resp.Body, block/4), resp.Body}
			}
		}
		return resp, nil
	}))
	if got, err := readRange(t.Context(), blob, 0, blob.Size()); err != nil || got != string(data) {
		t.Errorf("the bytes differ, %v", err)
	}
	if len(froms) < 2 || froms[1] != fmt.Sprintf("bytes=%d", 2*block+block/4) {
		t.Errorf("the block was asked for from %v on, want it continued", froms)
	}
}

// breaking ends with a failure where its reader ends.
type breaking struct {
	io.Reader
	io.Closer
	failure error
}

func (b *breaking) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = b.failure
	}
	return n, err
}

// TestAddressExpiresForAllBlocks has all blocks on their way find out that the
// address has expired, at which one of them asks for another.
func TestAddressExpiresForAllBlocks(t *testing.T) {
	calls := &calls{}
	blob, data, get := openBig(t, actionstest.Options{Wrap: calls.wrap}, 6*block, nil)
	var together sync.WaitGroup
	together.Add(4)
	var refused atomic.Int64
	get.Store(new(func(_ *http.Request, send func() *http.Response) (*http.Response, error) {
		if refused.Add(1) > 4 {
			return send(), nil
		}
		together.Done()
		together.Wait()
		return status(403), nil
	}))
	got, err := readRange(t.Context(), blob, 0, blob.Size())
	if err != nil || got != string(data) || refused.Load() != 10 || calls.of(find) != 2 {
		t.Errorf("%d bytes, %v, after %d downloads and %d lookups, want 10 and 2", len(got), err, refused.Load(), calls.of(find))
	}
}

// TestCancelWhileAnotherRenews has a range wait for a new address that another
// range is asking for, and end with its own context.
func TestCancelWhileAnotherRenews(t *testing.T) {
	asking, release := make(chan struct{}), make(chan struct{})
	calls := &calls{meddle: func(_ http.ResponseWriter, _ *http.Request, method string, n int) bool {
		if method == find && n == 2 {
			close(asking)
			<-release
		}
		return false
	}}
	ctx, cancel := context.WithCancel(t.Context())
	var failed, n atomic.Int64
	blob, data, get := openBig(t, actionstest.Options{Wrap: calls.wrap}, 100, func(c *actions.Config) {
		c.Log = slog.New(slog.NewTextHandler(writer(func() {
			if failed.Add(1) == 2 {
				cancel()
			}
		}), nil))
	})
	get.Store(new(func(_ *http.Request, send func() *http.Response) (*http.Response, error) {
		if n.Add(1) <= 2 {
			return status(403), nil
		}
		return send(), nil
	}))
	var first sync.WaitGroup
	first.Go(func() {
		if got, err := readRange(t.Context(), blob, 0, 100); err != nil || got != string(data) {
			t.Errorf("got %q, %v", got, err)
		}
	})
	<-asking
	if _, err := readRange(ctx, blob, 0, 100); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v, want Canceled", err)
	}
	close(release)
	first.Wait()
}

// writer calls itself whenever something is written.
type writer func()

func (w writer) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

// TestWholeBlobWhateverIsAsked has a storage that knows no ranges.
func TestWholeBlobWhateverIsAsked(t *testing.T) {
	var downloads atomic.Int64
	blob, data, _ := openBig(t, actionstest.Options{}, 5*block, func(c *actions.Config) {
		c.Transport = storage(func(_ int, r *http.Request, send func() *http.Response) (*http.Response, error) {
			if r.Method == http.MethodGet {
				downloads.Add(1)
				r.Header.Del("Range")
			}
			return send(), nil
		})
	})
	if got, err := readRange(t.Context(), blob, 10, 4*block); err != nil || got != string(data[10:10+4*block]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if downloads.Load() != 2 {
		t.Errorf("%d downloads, want one to measure and one to read", downloads.Load())
	}
}
