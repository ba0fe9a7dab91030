package actions_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/cache/actions"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
)

// TestReset has the connections of the download die one after the other.
func TestReset(t *testing.T) {
	const size = 4 << 20
	config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
	var dialed atomic.Int64
	config.Transport = &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		dialed.Add(1)
		return &dyingConn{conn.(*net.TCPConn), 3 << 19}, nil
	}}
	c := actions.New(config)
	carry(t, c, size)
	if dialed.Load() < 3 {
		t.Errorf("%d connections, the test does not test", dialed.Load())
	}
}

// dyingConn is reset after so many bytes were read from it.
type dyingConn struct {
	*net.TCPConn
	left int
}

func (c *dyingConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		c.SetLinger(0)
		c.Close()
	}
	n, err := c.TCPConn.Read(p[:min(len(p), max(c.left, 1))])
	c.left -= n
	return n, err
}

// TestStall has a download stop in the middle, with its connection open.
func TestStall(t *testing.T) {
	config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
	save(t, actions.New(config), "key", digits)
	var stalls actions.Stalls
	stalls.In(&config)
	config.Transport = storage(func(n int, r *http.Request, send func() *http.Response) (*http.Response, error) {
		resp := send()
		if r.Method == http.MethodGet && n == 2 && resp != nil {
			resp.Body = &stalling{r.Context(), &stalls, io.LimitReader(resp.Body, 3), resp.Body}
		}
		if r.Method == http.MethodGet && n == 3 {
			stalls.Now()
			<-r.Context().Done() // before the answer's header
			return nil, r.Context().Err()
		}
		return resp, nil
	})
	c := actions.New(config)
	if got := read(t, c, "key"); got != digits {
		t.Errorf("got %q", got)
	}
}

// TestFreshConnection has a download stall while another connection, as old,
// is there to be used.
func TestFreshConnection(t *testing.T) {
	config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
	var stalls actions.Stalls
	stalls.In(&config)
	transport := &downloads{Transport: &http.Transport{}, stall: 4, stalls: &stalls}
	config.Transport = transport
	c := actions.New(config)
	save(t, c, "key", digits)
	blob, err := c.Open(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	// Two at once leave two connections.
	var bodies []io.ReadCloser
	for range 2 {
		body, err := blob.Range(t.Context(), 0, blob.Size())
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, body)
	}
	for _, body := range bodies {
		if _, err := io.Copy(io.Discard, body); err != nil {
			t.Error(err)
		}
		body.Close()
	}
	if got, err := readRange(t.Context(), blob, 0, blob.Size()); err != nil || got != digits {
		t.Errorf("got %q, %v", got, err)
	}
	if r := transport.reused; len(r) < 5 || !r[3] || r[4] {
		t.Errorf("of the connections of the downloads were used before: %v, want the fourth and not the fifth", r)
	}
}

// downloads tells of each download whether its connection was used before, and
// stalls one of them.
type downloads struct {
	*http.Transport
	stall  int // counted from 1
	stalls *actions.Stalls

	mu     sync.Mutex
	reused []bool
}

func (d *downloads) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet {
		return d.Transport.RoundTrip(r)
	}
	d.mu.Lock()
	d.reused = append(d.reused, false)
	n := len(d.reused)
	d.mu.Unlock()
	resp, err := d.Transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.reused[n-1] = info.Reused
		},
	})))
	if err == nil && n == d.stall {
		resp.Body = &stalling{r.Context(), d.stalls, io.LimitReader(resp.Body, 3), resp.Body}
	}
	return resp, err
}

func TestStalledForGood(t *testing.T) {
	config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
	save(t, actions.New(config), "key", digits)
	config.Stall = time.Millisecond
	config.Transport = storage(func(n int, r *http.Request, send func() *http.Response) (*http.Response, error) {
		if r.Method == http.MethodGet {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		return send(), nil
	})
	c := actions.New(config)
	_, err := c.Open(t.Context(), "key")
	if err == nil || !strings.Contains(err.Error(), "no progress within") || errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
}

// TestTrickle has a download bring a byte every ten seconds, and the next ones all
// that is left: at once, or just not too slowly.
func TestTrickle(t *testing.T) {
	const size = 1 << 20
	for _, test := range []struct {
		name   string
		every  time.Duration // a byte of the first download
		then   time.Duration // 64 KiB of the others
		ranges int
	}{
		{"slow for good", 10 * time.Second, 0, 2},
		{"at once", 0, 0, 1},
		{"as slow as may be", 0, 19 * time.Second, 1},
		{"too slow, first and then", 10 * time.Second, 19 * time.Second, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ranges := 0
				c := actions.New(actions.Config{Protocol: actions.V2, URL: "http://service.example", Small: -1, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					resp := status(http.StatusPartialContent)
					var first, last int
					if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); n != 2 {
						resp.Body = io.NopCloser(strings.NewReader(`{"ok":true,"signed_download_url":"http://storage.example/blob","matched_key":"key"}`))
						return resp, nil
					}
					resp.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, size))
					body := &trickling{ctx: r.Context(), left: last + 1 - first, each: 64 << 10, wait: test.then}
					if last > 0 { // it does not measure
						if ranges++; ranges == 1 && test.every > 0 {
							body.each, body.wait = 1, test.every
						}
					}
					resp.Body = body
					return resp, nil
				})})
				blob, err := c.Open(t.Context(), "key")
				if err != nil {
					t.Fatal(err)
				}
				if got, err := readRange(t.Context(), blob, 0, size); err != nil || len(got) != size || ranges != test.ranges {
					t.Errorf("%d bytes, %v, after %d downloads, want %d", len(got), err, ranges, test.ranges)
				}
			})
		})
	}
}

// trickling returns a few bytes after each wait.
type trickling struct {
	ctx        context.Context
	left, each int
	wait       time.Duration
	now        int // of those that may be given without waiting
}

func (s *trickling) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	if s.now == 0 {
		time.Sleep(s.wait)
		if err := s.ctx.Err(); err != nil {
			return 0, err
		}
		s.now = s.each
	}
	n := min(len(p), s.now, s.left)
	s.now -= n
	s.left -= n
	return n, nil
}

func (s *trickling) Close() error { return nil }

func TestLog(t *testing.T) {
	calls := &calls{meddle: fail(find, 1, http.StatusTooManyRequests, nil, "")}
	config := fast(t, actionstest.Start(t, actionstest.Options{Expired: 1, Wrap: calls.wrap}).Getenv)
	var log strings.Builder
	config.Log = slog.New(slog.NewTextHandler(&log, nil))
	c := actions.New(config)
	save(t, c, "key", digits)
	blob, err := c.Open(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"call=GetCacheEntryDownloadURL error=\"the server answers 429\"", "key=key offset=0 error=\"the storage answers 403\""} {
		if lines := strings.Split(log.String(), "\n"); len(lines) != 3 || !strings.Contains(lines[i], want) {
			t.Errorf("logged %q, want %s", log.String(), want)
		}
	}
	// A cancelled read is no failure.
	log.Reset()
	ctx, cancel := context.WithCancel(t.Context())
	body, err := blob.Range(ctx, 0, blob.Size())
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	cancel()
	if _, err := io.ReadAll(body); !errors.Is(err, context.Canceled) || log.String() != "" {
		t.Errorf("error: %v, logged %q", err, log.String())
	}
}

type stalling struct {
	ctx    context.Context
	stalls *actions.Stalls
	io.Reader
	io.Closer
}

func (s *stalling) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == io.EOF {
		s.stalls.Now()
		<-s.ctx.Done()
		err = s.ctx.Err()
	}
	return n, err
}
