package actions_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
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
