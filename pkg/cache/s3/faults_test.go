package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/cachetest"
	"github.com/org/nix-matrix/pkg/cache/s3"
)

var big = bytes.Repeat([]byte("0123456789abcdef"), 400_000) // 6.4 MB, of two parts

// A server that takes If-None-Match and replaces the object all the same is found out, and said once.
// The contract holds but for saves at the same time, which its callers are told.
func TestConditionIgnored(t *testing.T) {
	server := configs(testbench.S3(t, "bucket"))
	var warnings atomic.Int64
	lying := func(t *testing.T) *s3.Bucket {
		config := server(t)
		config.Warn = func(title string, _ error) {
			if warnings.Add(1); title != "The S3 server does not create objects conditionally" {
				t.Errorf("warning %q", title)
			}
		}
		config.Transport = hook(func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
			req.Header.Del("If-None-Match")
			return next(req)
		})
		return open(t, config)
	}
	c := lying(t).Cache(s3.Scope{})
	if !cache.LastWins(c) {
		t.Error("LastWins is false before a save")
	}
	cachetest.Save(t, c, "key", "text")
	if !cache.LastWins(c) || warnings.Load() != 1 {
		t.Errorf("after a save: %v, %d warnings", cache.LastWins(c), warnings.Load())
	}
	cachetest.Run(t, func(t *testing.T) cache.Cache { return lying(t).Cache(s3.Scope{}) }, tick, cachetest.LastWins(), cachetest.Grows())
}

// A server that does not know the header, too; an honest one is asked once.
func TestConditionUnknown(t *testing.T) {
	for name, test := range map[string]struct {
		status int // of the answer to conditional creations; 0 for that of the server
		last   bool
	}{"not implemented": {http.StatusNotImplemented, true}, "honoured": {0, false}} {
		t.Run(name, func(t *testing.T) {
			config := configs(testbench.S3(t, "bucket"))(t)
			var probes atomic.Int64
			config.Transport = hook(func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
				if strings.HasSuffix(req.URL.Path, "/.conditional") {
					probes.Add(1)
				}
				if test.status != 0 && req.Header.Get("If-None-Match") != "" {
					return refuse(req, test.status, "NotImplemented"), nil
				}
				return next(req)
			})
			c := open(t, config).Cache(s3.Scope{})
			if got := cache.LastWins(c); got != test.last {
				t.Errorf("LastWins is %v", got)
			}
			asked := probes.Load()
			cachetest.Save(t, c, "key", "text")
			if err := c.Save(t.Context(), "key", strings.NewReader("other"), 5); !errors.Is(err, cache.ErrExists) {
				t.Errorf("second save: %v", err)
			}
			if err := c.Save(t.Context(), "big", bytes.NewReader(big), int64(len(big))); err != nil {
				t.Error(err)
			}
			if read(t, c, "big") != string(big) || read(t, c, "key") != "text" || probes.Load() != asked {
				t.Errorf("other contents, or %d more probes", probes.Load()-asked)
			}
		})
	}
}

// Requests that were one too many, and those that were answered halfway, are sent again.
func TestSlowDown(t *testing.T) {
	config := configs(testbench.S3(t, "bucket"))(t)
	seen := map[string]int{}
	var mu sync.Mutex
	config.Transport = hook(func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
		mu.Lock()
		try := seen[kind(req)+req.URL.String()]
		seen[kind(req)+req.URL.String()]++
		mu.Unlock()
		switch try {
		case 0:
			return refuse(req, http.StatusServiceUnavailable, "SlowDown"), nil
		case 1:
			return refuse(req, http.StatusInternalServerError, "InternalError"), nil
		case 2:
			if req.Body != nil {
				_, _ = io.CopyN(io.Discard, req.Body, 1)
			}
			return nil, io.EOF
		}
		return next(req)
	})
	c := open(t, config).Cache(s3.Scope{})
	cachetest.Save(t, c, "key-1", "text")
	if err := c.Save(t.Context(), "big", bytes.NewReader(big), int64(len(big))); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, "key-", "key-"); got != "text" {
		t.Errorf("found %s", got)
	}
	if read(t, c, "big") != string(big) {
		t.Error("the big blob is another one")
	}
	if err := c.Remove(t.Context(), "big"); err != nil {
		t.Error(err)
	}
	for _, k := range []string{"put", "start", "part", "complete", "get", "head", "list", "remove"} {
		found := false
		for request := range seen {
			found = found || strings.HasPrefix(request, k+"http")
		}
		if !found {
			t.Errorf("no request of the kind %s", k)
		}
	}
}

// A server that goes on to refuse is an error after some tries, which names its answer.
func TestSlowDownForGood(t *testing.T) {
	config := configs("127.0.0.1:1")(t)
	config.Retries = 2
	tries := 0
	config.Transport = hook(func(req *http.Request, _ func(*http.Request) (*http.Response, error)) (*http.Response, error) {
		tries++
		return refuse(req, http.StatusServiceUnavailable, "SlowDown"), nil
	})
	c := open(t, config).Cache(s3.Scope{})
	if got := read(t, c, "key"); got != "error: cannot open key: the server answers 503 SlowDown: says the server" || tries != 3 {
		t.Errorf("after %d tries: %s", tries, got)
	}
}

// A creation whose answer is lost is known again, and not taken for somebody else's: a claim would be
// nobody's.
func TestLostAnswer(t *testing.T) {
	for _, server := range []string{"gofakes3", "versitygw"} {
		for _, request := range []string{"put", "complete"} {
			for _, times := range []int{1, 100} {
				t.Run(fmt.Sprint(server, " ", request, " ", times), func(t *testing.T) {
					config := servers[server](t)(t)
					config.Retries = 2
					var lost atomic.Int64
					config.Transport = hook(func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
						mine := kind(req) == request && strings.HasSuffix(req.URL.Path, "/key")
						resp, err := next(req)
						if err == nil && mine && lost.Add(1) <= int64(times) {
							_ = resp.Body.Close()
							return nil, io.EOF
						}
						return resp, err
					})
					c := open(t, config).Cache(s3.Scope{})
					content := []byte("text")
					if request == "complete" {
						content = big
					}
					if err := c.Save(t.Context(), "key", bytes.NewReader(content), int64(len(content))); err != nil {
						t.Errorf("Save: %v", err)
					}
					if read(t, c, "key") != string(content) || lost.Load() == 0 {
						t.Errorf("other contents, or nothing was lost (%d)", lost.Load())
					}
					lost.Store(100)
					if err := c.Save(t.Context(), "key", strings.NewReader("other"), 5); !errors.Is(err, cache.ErrExists) {
						t.Errorf("the next save: %v", err)
					}
				})
			}
		}
	}
}

// cut is a body that ends, or fails, after some bytes.
type cut struct {
	io.ReadCloser
	left int
	err  error
}

func (c *cut) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, c.err
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// A download whose connection dies goes on where it was, and one that is always cut is an error.
func TestReset(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		left int
		want string
	}{
		"reset":           {errors.New("connection reset by peer"), 1 << 20, ""},
		"end":             {io.EOF, 1 << 20, ""},
		"truncated range": {io.EOF, 0, "unexpected EOF"},
		"reset at once":   {errors.New("connection reset by peer"), 0, "connection reset by peer"},
	} {
		t.Run(name, func(t *testing.T) {
			config := configs(testbench.S3(t, "bucket"))(t)
			config.Retries, config.Small = 8, 1
			gets := 0
			config.Transport = hook(func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
				resp, err := next(req)
				if err == nil && kind(req) == "get" && req.Header.Get("Range") != "bytes=0-0" {
					gets++
					resp.Body = &cut{resp.Body, test.left, test.err}
				}
				return resp, err
			})
			c := open(t, config).Cache(s3.Scope{})
			if err := c.Save(t.Context(), "key", bytes.NewReader(big), int64(len(big))); err != nil {
				t.Fatal(err)
			}
			blob, err := c.Open(t.Context(), "key")
			if err != nil {
				t.Fatal(err)
			}
			got, err := cache.ReadAll(t.Context(), blob, 64<<20)
			switch {
			case test.want == "" && (err != nil || !bytes.Equal(got, big) || gets != 7):
				t.Errorf("%d bytes, %v, after %d requests", len(got), err, gets)
			case test.want != "" && (!errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}

// A server that sends another range, or says nothing of it, gives no bytes.
func TestOtherRange(t *testing.T) {
	for _, header := range []string{"bytes 0-9/5000", "bytes 6-15/5000", "bytes 5-14/100", "bytes 9-5/5000", "bytes */5000", "nonsense", "", "bytes 5-99999999999999999999/5000"} {
		t.Run(header, func(t *testing.T) {
			config := configs(testbench.S3(t, "bucket"))(t)
			config.Retries, config.Small = -1, 1
			config.Transport = hook(func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
				resp, err := next(req)
				if err == nil && kind(req) == "get" && req.Header.Get("Range") != "bytes=0-0" {
					resp.Header.Set("Content-Range", header)
				}
				return resp, err
			})
			c := open(t, config).Cache(s3.Scope{})
			cachetest.Save(t, c, "key", string(big[:5000]))
			blob, err := c.Open(t.Context(), "key")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := blob.Range(t.Context(), 5, 10); err == nil {
				t.Error("no error")
			}
		})
	}
}

// Nothing of a failed upload stays: no parts, no reservation; and the key can be used again.
func TestAbort(t *testing.T) {
	for _, request := range []string{"start", "part", "complete"} {
		t.Run(request, func(t *testing.T) {
			config := servers["versitygw"](t)(t)
			broken, aborted := true, false
			config.Transport = hook(func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
				if kind(req) == "abort" {
					aborted = true
				}
				if broken && kind(req) == request {
					return refuse(req, http.StatusBadRequest, "InvalidRequest"), nil
				}
				return next(req)
			})
			b := open(t, config)
			c := b.Cache(s3.Scope{})
			err := c.Save(t.Context(), "key", bytes.NewReader(big), int64(len(big)))
			if err == nil || !strings.Contains(err.Error(), "the server answers 400 InvalidRequest") {
				t.Errorf("Save: %v", err)
			}
			if aborted != (request != "start") {
				t.Errorf("aborted: %v", aborted)
			}
			if left := b.Names(t, "key"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			broken = false
			if err := c.Save(t.Context(), "key", bytes.NewReader(big), int64(len(big))); err != nil {
				t.Errorf("second Save: %v", err)
			}
			if left := b.Names(t, "key"); len(left) != 1 {
				t.Errorf("objects: %v", left)
			}
		})
	}
}

// A key that a killed process has reserved is free after some time, and not before.
func TestKilledUpload(t *testing.T) {
	for _, server := range []string{"gofakes3", "versitygw"} {
		t.Run(server, func(t *testing.T) {
			config := servers[server](t)(t)
			b := open(t, config)
			b.Put(t, config.Prefix+"/.reserved/key", "1")
			err := b.Cache(s3.Scope{}).Save(t.Context(), "key", bytes.NewReader(big), int64(len(big)))
			if !errors.Is(err, cache.ErrExists) {
				t.Errorf("Save at once: %v", err)
			}
			config.Reserve = time.Nanosecond // the server's times are in whole seconds, or some milliseconds late
			b = open(t, config)
			if err := b.Cache(s3.Scope{}).Save(t.Context(), "key", bytes.NewReader(big), int64(len(big))); err != nil {
				t.Errorf("Save later: %v", err)
			}
			if left := b.Names(t, "key"); len(left) != 1 {
				t.Errorf("objects: %v", left)
			}
		})
	}
}

// Of two that save a blob of several parts at the same time one is refused, whether the server honours
// If-None-Match at the end of such an upload or not.
func TestBigConcurrent(t *testing.T) {
	for _, server := range []string{"gofakes3", "versitygw"} {
		t.Run(server, func(t *testing.T) {
			config := servers[server](t)(t)
			var first, second cache.Cache
			var nested error
			done := false
			config.Transport = hook(func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
				if kind(req) == "complete" && !done {
					done = true
					nested = second.Save(t.Context(), "key", bytes.NewReader(big[1:]), int64(len(big)-1))
				}
				return next(req)
			})
			first, second = open(t, config).Cache(s3.Scope{}), open(t, config).Cache(s3.Scope{})
			err := first.Save(t.Context(), "key", bytes.NewReader(big), int64(len(big)))
			if err != nil || !errors.Is(nested, cache.ErrExists) || !done {
				t.Errorf("first %v, second %v", err, nested)
			}
			if read(t, first, "key") != string(big) {
				t.Error("other contents")
			}
		})
	}
}
