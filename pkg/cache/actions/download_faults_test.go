package actions_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/actions"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
)

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

// The end of a blob comes with the request that finds its size, and so does all of a small one.
func TestTailIsOneRequest(t *testing.T) {
	config := fast(t, actionstest.Start(t, actionstest.Options{}).Getenv)
	config.Small = 0
	requests := 0
	config.Transport = storage(func(_ int, r *http.Request, send func() *http.Response) (*http.Response, error) {
		if r.Method == http.MethodGet {
			requests++
		}
		return send(), nil
	})
	c := actions.New(config)
	for name, test := range map[string]struct {
		size, tail int64
		all        int // requests for all of it
	}{
		"small": {200 << 10, 100, 1},
		"whole": {3 << 20, 3 << 20, 1},
		"large": {5 << 20, 1 << 20, 2},
	} {
		data := bytes.Repeat([]byte(digits), int(test.size)/len(digits))
		if err := c.Save(t.Context(), name, bytes.NewReader(data), test.size); err != nil {
			t.Fatal(err)
		}
		requests = 0
		blob, err := cache.OpenTail(t.Context(), c, name, test.size, test.tail)
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range []int64{test.size - test.tail, 0} {
			body, err := blob.Range(t.Context(), from, test.tail)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(body)
			if err != nil || !bytes.Equal(got, data[from:from+test.tail]) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
		if requests != test.all {
			t.Errorf("%s: %d requests, want %d", name, requests, test.all)
		}
	}
}
