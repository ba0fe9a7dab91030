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
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/cache/actions"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
)

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
