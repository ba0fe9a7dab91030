package actions_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/actions"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
)

// calls counts the calls of the service by method, and lets meddle answer some
// of them: n counts the method's calls from 1, and true means answered.
type calls struct {
	meddle func(w http.ResponseWriter, r *http.Request, method string, n int) bool
	mu     sync.Mutex
	count  map[string]int
}

func (c *calls) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := path.Base(r.URL.Path)
		c.mu.Lock()
		if c.count == nil {
			c.count = map[string]int{}
		}
		c.count[method]++
		n := c.count[method]
		c.mu.Unlock()
		if c.meddle == nil || !c.meddle(w, r, method, n) {
			next.ServeHTTP(w, r)
		}
	})
}

func (c *calls) of(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[method]
}

// fail is a meddler that answers the first n calls of method with status.
func fail(method string, n, status int, header http.Header, body string) func(http.ResponseWriter, *http.Request, string, int) bool {
	return func(w http.ResponseWriter, _ *http.Request, called string, count int) bool {
		if called != method || count > n {
			return false
		}
		for name, values := range header {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
		return true
	}
}

const (
	create   = "CreateCacheEntry"
	finalize = "FinalizeCacheEntryUpload"
	find     = "GetCacheEntryDownloadURL"
	rateBody = `{"code":"resource_exhausted","msg":"rate limit exceeded"}`
)

func TestCallsAreRepeated(t *testing.T) {
	for _, test := range []struct {
		name   string
		header http.Header
		status int
		body   string
	}{
		{"429", nil, http.StatusTooManyRequests, rateBody},
		{"429 Retry-After", http.Header{"Retry-After": {"0"}}, http.StatusTooManyRequests, rateBody},
		{"429 Retry-After date", http.Header{"Retry-After": {"Mon, 02 Jan 2006 15:04:05 GMT"}}, http.StatusTooManyRequests, rateBody},
		{"500", nil, http.StatusInternalServerError, "no JSON"},
		{"502", nil, http.StatusBadGateway, "<html>"},
		{"502 Retry-After", http.Header{"Retry-After": {"0"}}, http.StatusBadGateway, ""},
		{"503", nil, http.StatusServiceUnavailable, ""},
		{"broken off", http.Header{"Content-Length": {"1000"}}, http.StatusOK, `{"ok":`},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, method := range []string{create, finalize, find} {
				calls := &calls{meddle: fail(method, 2, test.status, test.header, test.body)}
				config := fast(t, actionstest.Start(t, actionstest.Options{Wrap: calls.wrap}).Getenv)
				if test.header.Get("Retry-After") != "" {
					config.Wait = time.Hour // which Retry-After must override
				}
				c := actions.New(config)
				if err := c.Save(t.Context(), "key", strings.NewReader("text"), 4); err != nil {
					t.Errorf("%s: save: %v", method, err)
				}
				if got := read(t, c, "key"); got != "text" {
					t.Errorf("%s: got %q", method, got)
				}
				if got := calls.of(method); got != 3 {
					t.Errorf("%d calls of %s, want 3", got, method)
				}
			}
		})
	}
}

func TestCallsAreGivenUp(t *testing.T) {
	for _, test := range []struct {
		name   string
		header http.Header
		status int
		body   string
		calls  int
		says   string
	}{
		{"always 500", nil, 500, "", 6, "500"},
		{"always 429", nil, 429, rateBody, 6, "429 resource_exhausted: rate limit exceeded"},
		{"429 for an hour", http.Header{"Retry-After": {"3600"}}, 429, rateBody, 1, "(try again in 1h0m0s)"},
		{"400", nil, 400, `{"code":"invalid_argument","msg":"bad\nkey"}`, 1, "400 invalid_argument: bad key"},
		{"401", nil, 401, `{"code":"unauthenticated","msg":"no"}`, 1, "401 unauthenticated"},
		{"quota", nil, 403, `{"code":"failed_precondition","msg":"insufficient usage to create"}`, 1, "insufficient usage"},
		{"no JSON", nil, 200, "<html>", 1, "other than the expected JSON"},
		{"endless", nil, 400, `{"code":"x","msg":"` + strings.Repeat("€", 1000) + `"}`, 1, "€…"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, method := range []string{create, find} {
				calls := &calls{meddle: fail(method, 100, test.status, test.header, test.body)}
				c := actions.New(fast(t, actionstest.Start(t, actionstest.Options{Wrap: calls.wrap}).Getenv))
				var err error
				if method == create {
					err = c.Save(t.Context(), "key", strings.NewReader("text"), 4)
				} else {
					_, err = c.Open(t.Context(), "key")
				}
				if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), method) || len(err.Error()) > 500 {
					t.Errorf("error: %v, want one of %s with %q", err, method, test.says)
				}
				for _, meaning := range []error{cache.ErrMiss, cache.ErrExists, cache.ErrReadOnly} {
					if errors.Is(err, meaning) {
						t.Errorf("error: %v is %v", err, meaning)
					}
				}
				if got := calls.of(method); got != test.calls {
					t.Errorf("%d calls of %s, want %d", got, method, test.calls)
				}
			}
		})
	}
}

func TestNoRetries(t *testing.T) {
	calls := &calls{meddle: fail(find, 100, 500, nil, "")}
	config := fast(t, actionstest.Start(t, actionstest.Options{Wrap: calls.wrap}).Getenv)
	config.Retries = -1
	save(t, actions.New(config), "other", "text")
	config.Wait = time.Hour
	config.Transport = storage(func(int, *http.Request, func() *http.Response) (*http.Response, error) {
		return status(http.StatusServiceUnavailable), nil
	})
	if _, err := actions.New(config).Open(t.Context(), "key"); err == nil || calls.of(find) != 1 {
		t.Errorf("error: %v after %d calls", err, calls.of(find))
	}
	if err := actions.New(config).Save(t.Context(), "key", strings.NewReader("text"), 4); err == nil {
		t.Error("saved")
	}
}

// TestBrokenBodyIsNoReasonToRetry would wait for an hour otherwise.
func TestBrokenBodyIsNoReasonToRetry(t *testing.T) {
	for _, size := range []int64{100, 3 << 20} {
		config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
		config.Wait = time.Hour
		body := readerAt(func([]byte, int64) (int, error) { return 0, errAny })
		if err := actions.New(config).Save(t.Context(), "key", body, size); !errors.Is(err, errAny) {
			t.Errorf("error: %v", err)
		}
	}
}

func TestTimeout(t *testing.T) {
	c := actions.New(actions.Config{
		Protocol: actions.V2,
		URL:      "http://service.example",
		Timeout:  10 * time.Millisecond,
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}),
	})
	_, err := c.Open(t.Context(), "key")
	if err == nil || !strings.Contains(err.Error(), "no answer within 10ms") || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error: %v", err)
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := &calls{meddle: func(w http.ResponseWriter, _ *http.Request, _ string, _ int) bool {
		cancel()
		w.WriteHeader(500)
		return true
	}}
	config := fast(t, actionstest.Start(t, actionstest.Options{Wrap: calls.wrap}).Getenv)
	config.Wait = time.Hour
	if _, err := actions.New(config).Open(ctx, "key"); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v, want Canceled", err)
	}
}

func TestAbandonedReservation(t *testing.T) {
	server := actionstest.Start(t, actionstest.Options{})
	c := actions.New(fast(t, server.Getenv))
	ctx, cancel := context.WithCancel(t.Context())
	body := readerAt(func(p []byte, _ int64) (int, error) { cancel(); return len(p), nil })
	if err := c.Save(ctx, "key", body, 4); !errors.Is(err, context.Canceled) {
		t.Fatalf("save: %v, want Canceled", err)
	}
	if entries := server.Entries(); len(entries) != 1 || entries[0].Size != 0 {
		t.Fatalf("entries: %v, want one reservation", entries)
	}
	if err := c.Save(t.Context(), "key", strings.NewReader("text"), 4); !errors.Is(err, cache.ErrExists) {
		t.Errorf("save: %v, want ErrExists", err)
	}
}

func TestReadOnlyToken(t *testing.T) {
	server := actionstest.Start(t, actionstest.Options{ReadOnly: true, Unreadable: true})
	config := fast(t, server.Getenv)
	if !config.DenyRead || !config.DenyWrite {
		t.Error("the token's claim is not seen")
	}
	for range 2 {
		c := actions.New(config)
		if err := c.Save(t.Context(), "key", strings.NewReader("text"), 4); !errors.Is(err, cache.ErrReadOnly) {
			t.Errorf("save: %v, want ErrReadOnly", err)
		}
		if _, err := c.Open(t.Context(), "key"); !errors.Is(err, cache.ErrReadOnly) {
			t.Errorf("open: %v, want ErrReadOnly", err)
		}
		// Without the claim the service says it.
		config.DenyRead, config.DenyWrite = false, false
	}
}

func TestLagIsAMiss(t *testing.T) {
	c := actions.New(fast(t, actionstest.Start(t, actionstest.Options{Lag: 2}).Getenv))
	save(t, c, "key", "text")
	for range 2 {
		if _, err := c.Open(t.Context(), "key"); !errors.Is(err, cache.ErrMiss) {
			t.Errorf("open: %v, want ErrMiss", err)
		}
	}
	if got := read(t, c, "key"); got != "text" {
		t.Errorf("got %q", got)
	}
}

// TestStrangeAnswer has the service find another key than the one asked for.
func TestStrangeAnswer(t *testing.T) {
	calls := &calls{meddle: fail(find, 100, http.StatusOK, nil,
		`{"ok":true,"signed_download_url":"http://x.example/","matched_key":"q-1"}`)}
	c := actions.New(fast(t, actionstest.Start(t, actionstest.Options{Wrap: calls.wrap}).Getenv))
	for _, prefixes := range [][]string{nil, {"p-", "q-12"}} {
		if _, err := c.Open(t.Context(), "key", prefixes...); !errors.Is(err, cache.ErrMiss) {
			t.Errorf("open with %v: %v, want ErrMiss", prefixes, err)
		}
	}
}

func TestFinalizeNotFound(t *testing.T) {
	calls := &calls{}
	c := actions.New(fast(t, actionstest.Start(t, actionstest.Options{NotFound: 3, Wrap: calls.wrap}).Getenv))
	save(t, c, "key", "text")
	if got := read(t, c, "key"); got != "text" || calls.of(finalize) != 4 {
		t.Errorf("got %q after %d calls", got, calls.of(finalize))
	}
}

func TestFinalizeNeverFound(t *testing.T) {
	calls := &calls{}
	c := actions.New(fast(t, actionstest.Start(t, actionstest.Options{NotFound: 100, Wrap: calls.wrap}).Getenv))
	err := c.Save(t.Context(), "key", strings.NewReader("text"), 4)
	if err == nil || !strings.Contains(err.Error(), "404 not_found") || calls.of(finalize) != 6 {
		t.Errorf("error: %v after %d calls", err, calls.of(finalize))
	}
	if _, err := c.Open(t.Context(), "key"); !errors.Is(err, cache.ErrMiss) {
		t.Errorf("open: %v, want ErrMiss", err)
	}
}

// TestCreateAnswerLost has the answer with the address for the upload of a reserved key lost:
// the caller takes another key.
func TestCreateAnswerLost(t *testing.T) {
	for _, lose := range []func(w http.ResponseWriter){
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) },
		func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, // the connection is reset
	} {
		var server *actionstest.Running
		calls := &calls{meddle: func(w http.ResponseWriter, r *http.Request, method string, n int) bool {
			if method != create || n > 1 {
				return false
			}
			server.ServeHTTP(httptest.NewRecorder(), r)
			lose(w)
			return true
		}}
		server = actionstest.Start(t, actionstest.Options{Wrap: calls.wrap})
		c := actions.New(fast(t, server.Getenv))
		if err := c.Save(t.Context(), "key", strings.NewReader("text"), 4); !errors.Is(err, cache.ErrExists) {
			t.Errorf("save: %v, want ErrExists", err)
		}
		if _, err := c.Open(t.Context(), "key"); !errors.Is(err, cache.ErrMiss) {
			t.Errorf("open: %v, want ErrMiss", err)
		}
		save(t, c, "key.2", "text")
		if got := read(t, c, "key.2"); got != "text" {
			t.Errorf("got %q", got)
		}
	}
}

// TestQuota has no room left, which the service words in one of two ways.
func TestQuota(t *testing.T) {
	for _, test := range []struct {
		status int
		body   string
	}{
		{http.StatusForbidden, `{"code":"failed_precondition","msg":"insufficient usage to create"}`},
		{http.StatusOK, `{"ok":false,"signed_upload_url":"","message":"insufficient usage to create"}`},
	} {
		calls := &calls{meddle: fail(create, 100, test.status, nil, test.body)}
		c := actions.New(fast(t, actionstest.Start(t, actionstest.Options{Wrap: calls.wrap}).Getenv))
		err := c.Save(t.Context(), "key", strings.NewReader("text"), 4)
		if err == nil || !strings.Contains(err.Error(), "insufficient usage") || errors.Is(err, cache.ErrExists) || errors.Is(err, cache.ErrReadOnly) {
			t.Errorf("save: %v, want the service's words", err)
		}
		if calls.of(create) != 1 {
			t.Errorf("%d creations, want 1", calls.of(create))
		}
	}
}

func TestFinalizeAnswerLost(t *testing.T) {
	var server *actionstest.Running
	calls := &calls{meddle: func(w http.ResponseWriter, r *http.Request, method string, n int) bool {
		if method != finalize || n > 1 {
			return false
		}
		server.ServeHTTP(httptest.NewRecorder(), r)
		w.WriteHeader(502)
		return true
	}}
	server = actionstest.Start(t, actionstest.Options{Wrap: calls.wrap})
	c := actions.New(fast(t, server.Getenv))
	save(t, c, "key", "text")
	if got := read(t, c, "key"); got != "text" {
		t.Errorf("got %q", got)
	}
}

// storage is a transport whose requests to the blob storage, counted from 1 for
// each method, are passed to meddle.
func storage(meddle func(n int, r *http.Request, send func() *http.Response) (*http.Response, error)) http.RoundTripper {
	var mu sync.Mutex
	count := map[string]int{}
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if strings.HasPrefix(r.URL.Path, "/twirp/") {
			return http.DefaultTransport.RoundTrip(r)
		}
		mu.Lock()
		count[r.Method]++
		n := count[r.Method]
		mu.Unlock()
		var failure error
		resp, err := meddle(n, r, func() (resp *http.Response) {
			resp, failure = http.DefaultTransport.RoundTrip(r)
			return resp
		})
		return resp, errors.Join(err, failure)
	})
}

func status(status int, header ...string) *http.Response {
	w := httptest.NewRecorder()
	for i := 0; i < len(header); i += 2 {
		w.Header().Set(header[i], header[i+1])
	}
	w.WriteHeader(status)
	return w.Result()
}

const digits = "0123456789abcdef"

// TestDownloadFaults has the second download from the storage meet a fault. The
// first one has measured the blob.
func TestDownloadFaults(t *testing.T) {
	type send = func() *http.Response
	for _, test := range []struct {
		name  string
		fault func(r *http.Request, send send) (*http.Response, error)
		lasts int   // how many downloads meet it
		want  error // or nil
		tries int   // downloads in all
	}{
		{"connection refused", func(*http.Request, send) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
		}, 2, nil, 4},
		{"truncated", func(_ *http.Request, send send) (*http.Response, error) {
			resp := send()
			resp.Body = struct {
				io.Reader
				io.Closer
			}{io.LimitReader(resp.Body, 3), resp.Body}
			return resp, nil
		}, 2, nil, 4},
		{"always truncated", func(_ *http.Request, send send) (*http.Response, error) {
			resp := send()
			resp.Body = http.NoBody
			return resp, nil
		}, 100, io.ErrUnexpectedEOF, 7},
		{"range ignored", func(r *http.Request, send send) (*http.Response, error) {
			r.Header.Del("Range")
			return send(), nil
		}, 100, nil, 2},
		{"429", func(*http.Request, send) (*http.Response, error) { return status(429), nil }, 2, nil, 4},
		{"503", func(*http.Request, send) (*http.Response, error) { return status(503, "Retry-After", "0"), nil }, 2, nil, 4},
		{"503 for an hour", func(*http.Request, send) (*http.Response, error) { return status(503, "Retry-After", "3600"), nil }, 1, errAny, 2},
		{"always 500", func(*http.Request, send) (*http.Response, error) { return status(500), nil }, 100, errAny, 7},
		{"400", func(*http.Request, send) (*http.Response, error) { return status(400), nil }, 100, errAny, 2},
		{"expired", func(*http.Request, send) (*http.Response, error) { return status(403), nil }, 2, nil, 4},
		{"always expired", func(*http.Request, send) (*http.Response, error) { return status(403), nil }, 100, errAny, 7},
		{"evicted", func(*http.Request, send) (*http.Response, error) { return status(404), nil }, 100, cache.ErrMiss, 2},
		{"shorter", func(*http.Request, send) (*http.Response, error) { return status(416), nil }, 100, io.ErrUnexpectedEOF, 2},
		{"another size", func(_ *http.Request, send send) (*http.Response, error) {
			resp := send()
			resp.Header.Set("Content-Range", "bytes 4-11/99")
			return resp, nil
		}, 100, cache.ErrMiss, 2},
		{"another tag", func(_ *http.Request, send send) (*http.Response, error) {
			resp := send()
			resp.Header.Set("ETag", `"other"`)
			return resp, nil
		}, 100, cache.ErrMiss, 2},
		{"another range", func(_ *http.Request, send send) (*http.Response, error) {
			resp := send()
			resp.Header.Set("Content-Range", "bytes 5-12/16")
			return resp, nil
		}, 100, errAny, 2},
		{"no range", func(_ *http.Request, send send) (*http.Response, error) {
			resp := send()
			resp.Header.Del("Content-Range")
			return resp, nil
		}, 100, errAny, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			var tries atomic.Int64
			config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
			config.Transport = storage(func(n int, r *http.Request, send send) (*http.Response, error) {
				if r.Method != http.MethodGet {
					return send(), nil
				}
				tries.Add(1)
				if n < 2 || n > 1+test.lasts {
					return send(), nil
				}
				return test.fault(r, send)
			})
			c := actions.New(config)
			save(t, c, "key", digits)
			blob, err := c.Open(t.Context(), "key")
			if err != nil {
				t.Fatal(err)
			}
			got, err := readRange(t.Context(), blob, 4, 8)
			switch {
			case test.want == nil && (err != nil || got != digits[4:12]):
				t.Errorf("got %q, %v", got, err)
			case test.want == errAny && (err == nil || errors.Is(err, cache.ErrMiss)):
				t.Errorf("got %q, %v, want an error", got, err)
			case test.want != nil && test.want != errAny && !errors.Is(err, test.want):
				t.Errorf("got %q, %v, want %v", got, err, test.want)
			}
			if got := int(tries.Load()); got != test.tries {
				t.Errorf("%d downloads, want %d", got, test.tries)
			}
		})
	}
}

var errAny = errors.New("any")

// TestOpenFaults has the measuring download meet a fault.
func TestOpenFaults(t *testing.T) {
	for _, test := range []struct {
		name string
		resp func(whole *http.Response) *http.Response
		want error
	}{
		{"range ignored", func(whole *http.Response) *http.Response { return whole }, nil},
		{"no length", func(whole *http.Response) *http.Response { whole.ContentLength = -1; return whole }, errAny},
		{"evicted", func(*http.Response) *http.Response { return status(404) }, cache.ErrMiss},
		{"empty", func(*http.Response) *http.Response { return status(416) }, errAny},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
			config.Transport = storage(func(n int, r *http.Request, send func() *http.Response) (*http.Response, error) {
				if r.Method == http.MethodGet && n == 1 {
					r.Header.Del("Range")
					return test.resp(send()), nil
				}
				return send(), nil
			})
			c := actions.New(config)
			save(t, c, "key", digits)
			blob, err := c.Open(t.Context(), "key")
			if test.want == nil {
				if err != nil || blob.Size() != int64(len(digits)) {
					t.Errorf("got %v, %v", blob, err)
				}
			} else if err == nil || errors.Is(err, cache.ErrMiss) != (test.want == cache.ErrMiss) {
				t.Errorf("error: %v, want %v", err, test.want)
			}
		})
	}
}

// TestSmallBlobFaults has the download of a small blob, which opens it, break off.
func TestSmallBlobFaults(t *testing.T) {
	for _, test := range []struct{ lasts, tries int }{{2, 3}, {100, 6}} {
		config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
		config.Small = 0
		tries := 0
		config.Transport = storage(func(n int, r *http.Request, send func() *http.Response) (*http.Response, error) {
			resp := send()
			if r.Method == http.MethodGet {
				tries++
				if n <= test.lasts {
					resp.Body = &breaking{io.LimitReader(resp.Body, 1), resp.Body, io.ErrUnexpectedEOF}
				}
			}
			return resp, nil
		})
		c := actions.New(config)
		save(t, c, "key", digits)
		_, err := c.Open(t.Context(), "key")
		if (err == nil) != (test.lasts < 6) || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || tries != test.tries {
			t.Errorf("%v after %d downloads, want %d", err, tries, test.tries)
		}
	}
}

// TestExpiredAddress has the storage itself refuse the addresses.
func TestExpiredAddress(t *testing.T) {
	calls := &calls{}
	c := actions.New(fast(t, actionstest.Start(t, actionstest.Options{Expired: 2, Wrap: calls.wrap}).Getenv))
	save(t, c, "key", "text")
	if got := read(t, c, "key"); got != "text" || calls.of(find) != 3 {
		t.Errorf("got %q after %d lookups", got, calls.of(find))
	}
}

// TestExpiredAndEvicted has the entry gone when its address is asked for again.
func TestExpiredAndEvicted(t *testing.T) {
	calls := &calls{meddle: func(w http.ResponseWriter, r *http.Request, method string, n int) bool {
		if method == find && n > 1 {
			io.WriteString(w, `{"ok":false}`)
			return true
		}
		return false
	}}
	c := actions.New(fast(t, actionstest.Start(t, actionstest.Options{Expired: 1, Wrap: calls.wrap}).Getenv))
	save(t, c, "key", "text")
	if _, err := c.Open(t.Context(), "key"); !errors.Is(err, cache.ErrMiss) {
		t.Errorf("open: %v, want ErrMiss", err)
	}
}

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

func TestUploadFaults(t *testing.T) {
	for _, test := range []struct {
		name  string
		size  int64
		fault func() (*http.Response, error)
		lasts int
		want  string // of the error
		puts  int
	}{
		{"503", 100, func() (*http.Response, error) { return status(503), nil }, 2, "", 3},
		{"503 of blocks", 3 << 20, func() (*http.Response, error) { return status(503), nil }, 2, "", 6},
		{"reset of blocks", 3 << 20, func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, 2, "", 6},
		{"always 500", 100, func() (*http.Response, error) { return status(500), nil }, 100, "the blob storage answers 500", 6},
		{"expired", 100, func() (*http.Response, error) { return status(403, "x-ms-error-code", "AuthenticationFailed"), nil }, 100, "the blob storage answers 403 AuthenticationFailed", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			var puts atomic.Int64
			config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
			config.Transport = storage(func(n int, r *http.Request, send func() *http.Response) (*http.Response, error) {
				if r.Method == http.MethodPut {
					puts.Add(1)
					if n <= test.lasts {
						return test.fault()
					}
				}
				return send(), nil
			})
			c := actions.New(config)
			data := bytes.Repeat([]byte("x"), int(test.size))
			err := c.Save(t.Context(), "key", bytes.NewReader(data), test.size)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				} else if got := read(t, c, "key"); got != string(data) {
					t.Error("the bytes differ")
				}
			} else if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error: %v, want %q", err, test.want)
			}
			if got := int(puts.Load()); got != test.puts {
				t.Errorf("%d requests, want %d", got, test.puts)
			}
		})
	}
}

// TestUploadAddressExpires has the storage itself refuse the address from the second
// block on.
func TestUploadAddressExpires(t *testing.T) {
	const size = 20 << 20
	calls := &calls{}
	config := fast(t, actionstest.Start(t, actionstest.Options{Wrap: calls.wrap}).Getenv)
	config.Parallel = 2
	var puts atomic.Int64
	config.Transport = storage(func(n int, r *http.Request, send func() *http.Response) (*http.Response, error) {
		if r.Method == http.MethodPut {
			puts.Add(1)
			if n > 1 {
				query := r.URL.Query()
				query.Set("se", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
				r.URL.RawQuery = query.Encode()
			}
		}
		return send(), nil
	})
	err := actions.New(config).Save(t.Context(), "key", bytes.NewReader(make([]byte, size)), size)
	if err == nil || !strings.Contains(err.Error(), "403") || !strings.Contains(err.Error(), "valid for about an hour") {
		t.Errorf("error: %v", err)
	}
	// The others that were on their way, and none of the twenty after that.
	if got := puts.Load(); got > 4 || calls.of(create) != 1 || calls.of(finalize) != 0 {
		t.Errorf("%d requests to the storage, %d creations and %d finalizations, want few, 1 and 0", got, calls.of(create), calls.of(finalize))
	}
}

// TestUploadStalls has a block stop in the middle, with its connection open, and
// another one get no answer.
func TestUploadStalls(t *testing.T) {
	const size = 3 << 20
	for _, taken := range []int64{1 << 19, 1 << 20} {
		config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
		var stalls actions.Stalls
		stalls.In(&config)
		config.Retries = 10
		var stalled atomic.Bool
		config.Transport = storage(func(n int, r *http.Request, send func() *http.Response) (*http.Response, error) {
			if r.Method != http.MethodPut || n != 2 {
				return send(), nil
			}
			io.CopyN(io.Discard, r.Body, taken)
			stalls.Now()
			<-r.Context().Done()
			stalled.Store(true)
			return nil, r.Context().Err()
		})
		c := actions.New(config)
		data := bytes.Repeat([]byte(digits), size/len(digits))
		if err := c.Save(t.Context(), "key", bytes.NewReader(data), size); err != nil {
			t.Error(err)
		} else if got := read(t, c, "key"); got != string(data) || !stalled.Load() {
			t.Errorf("%d bytes, stalled: %v", len(got), stalled.Load())
		}
	}
}

func TestSlowUploadIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &clocked{}
		puts := 0
		c := actions.New(actions.Config{Protocol: actions.V2, URL: "http://service.example", Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPut {
				puts++
				for {
					if _, err := io.ReadFull(r.Body, make([]byte, 1)); err != nil {
						break
					}
					time.Sleep(50 * time.Second)
				}
			}
			if err := r.Context().Err(); err != nil {
				return nil, err
			}
			return service.RoundTrip(r)
		})})
		save(t, c, "key", "text")
		if puts != 1 {
			t.Errorf("%d tries, want 1", puts)
		}
	})
}

func TestUploadStallsForGood(t *testing.T) {
	config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
	config.Stall = time.Millisecond
	config.Transport = storage(func(_ int, r *http.Request, send func() *http.Response) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
	err := actions.New(config).Save(t.Context(), "key", strings.NewReader("text"), 4)
	if err == nil || !strings.Contains(err.Error(), "no progress within") || errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
}

// TestResetWhileUploading has connections die in the middle of a block.
func TestResetWhileUploading(t *testing.T) {
	const size = 4 << 20
	config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
	config.Parallel = 1
	var died atomic.Int64
	config.Transport = &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &dyingUpload{Conn: conn, left: 3 << 19, died: &died}, nil
	}}
	c := actions.New(config)
	carry(t, c, size)
	if died.Load() < 2 {
		t.Errorf("%d connections died, the test does not test", died.Load())
	}
}

// dyingUpload is reset after so many bytes were written to it.
type dyingUpload struct {
	net.Conn
	left int
	died *atomic.Int64
}

func (c *dyingUpload) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.Conn.Write(p)
	}
	n, _ := c.Conn.Write(p[:c.left])
	c.left = 0
	c.died.Add(1)
	c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	return n, syscall.ECONNRESET
}

// TestErrorsHideSecrets looks for the token and for signatures in what goes
// wrong everywhere.
func TestErrorsHideSecrets(t *testing.T) {
	echo := func(method string) func(http.ResponseWriter, *http.Request, string, int) bool {
		return func(w http.ResponseWriter, r *http.Request, called string, _ int) bool {
			if called != method {
				return false
			}
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"code":"%[1]s","msg":"%[1]s"}`, r.Header.Get("Authorization"))
			return true
		}
	}
	dead := storage(func(_ int, r *http.Request, _ func() *http.Response) (*http.Response, error) {
		return nil, errors.New("dead")
	})
	deadGet := storage(func(_ int, r *http.Request, send func() *http.Response) (*http.Response, error) {
		if r.Method == http.MethodGet {
			return nil, errors.New("dead")
		}
		return send(), nil
	})
	for _, test := range []struct {
		name      string
		meddle    func(http.ResponseWriter, *http.Request, string, int) bool
		transport http.RoundTripper
	}{
		{"create echoes", echo(create), nil},
		{"finalize echoes", echo(finalize), nil},
		{"find echoes", echo(find), nil},
		{"dead storage", nil, dead},
		{"dead download", nil, deadGet},
		{"dead service", nil, roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("dead") })},
		{"strange address", func(w http.ResponseWriter, r *http.Request, called string, _ int) bool {
			io.WriteString(w, `{"ok":true,"signed_upload_url":"http://x y/?sig=s3cret","signed_download_url":"http://x y/?sig=s3cret","matched_key":"key"}`)
			return true
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			calls := &calls{meddle: test.meddle}
			server := actionstest.Start(t, actionstest.Options{Wrap: calls.wrap})
			config := fast(t, server.Getenv)
			config.Transport = test.transport
			var log strings.Builder
			config.Log = slog.New(slog.NewTextHandler(&log, nil))
			c := actions.New(config)
			saved := c.Save(t.Context(), "key", strings.NewReader("text"), 4)
			_, opened := c.Open(t.Context(), "key")
			if saved == nil && opened == nil {
				t.Error("nothing failed")
			}
			for _, err := range []error{saved, opened} {
				for _, secret := range []string{server.Token(), "sig=", "s3cret"} {
					if text := fmt.Sprint(err, log.String()); strings.Contains(text, secret) {
						t.Errorf("a secret is in: %s", text)
					}
				}
			}
		})
	}
}

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
