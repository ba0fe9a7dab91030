package attic_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/push/attic"
	"github.com/org/nix-matrix/pkg/push/attic/attictest"
)

// listen starts a server on a port, for what takes a real network.
func listen(t *testing.T, options attictest.Options) (*attictest.Running, attic.Options) {
	t.Helper()
	server := attictest.Start(t, options)
	return server, attic.Options{Endpoint: server.URL, Cache: "test", Token: server.Token(true, true), Wait: time.Millisecond}
}

func TestThousandPaths(t *testing.T) {
	server, options := listen(t, attictest.Options{Prefix: "/attic"})
	c := dial(t, options)
	s := &shop{}
	paths := s.paths(1001)
	stats, err := c.Push(t.Context(), paths, s.nar)
	if err != nil || stats.Uploaded != 1001 || len(server.Uploads()) != 1001 {
		t.Errorf("%+v, %v", stats, err)
	}
	if s.most > 8 || s.left() != 0 {
		t.Errorf("%d were open at a time, %d are", s.most, s.left())
	}
	if got := server.Calls("get-missing-paths"); got != 2 {
		t.Errorf("asked %d times, want twice", got)
	}
	if stats, err = c.Push(t.Context(), paths, s.nar); err != nil || stats.Present != 1001 {
		t.Errorf("once more: %+v, %v", stats, err)
	}
}

// Connections of the kernel, where what one side has written the other may not
// have read when it is reset.
func TestDroppedConnections(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB
	for _, fault := range []attictest.Fault{
		{Drop: true},
		{Drop: true, At: 1 << 20},
		{Drop: true, At: 4 << 20},
		{Status: 503},
		{Status: 503, At: 1 << 20},
		{Taken: true, Drop: true},
	} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			server, options := listen(t, attictest.Options{Fault: func(n int) attictest.Fault {
				if n%2 == 0 {
					return attictest.Fault{}
				}
				return fault
			}})
			options.Jobs = 1
			c := dial(t, options)
			s := &shop{}
			stats, err := c.Push(t.Context(), []attic.Path{s.path("small", "NAR"), s.path("large", large)}, s.nar)
			if err != nil || stats.Uploaded != 2 || s.left() != 0 {
				t.Errorf("%+v, %v, %d open", stats, err, s.left())
			}
			if got, want := server.Calls("upload-path"), 4; got != want && !fault.Taken {
				t.Errorf("%d tries, want %d", got, want)
			}
		})
	}
}

// A path of a gigabyte whose connection drops near its end is sent once more.
func TestLargePathOverDroppedConnection(t *testing.T) {
	server, options := listen(t, attictest.Options{Fault: func(n int) attictest.Fault {
		return attictest.Fault{Drop: n == 1, At: 900 << 20}
	}})
	c := dial(t, options)
	s := &shop{}
	p := s.path("large", strings.Repeat("0123456789abcdef", 1<<26))
	stats, err := c.Push(t.Context(), []attic.Path{p}, s.nar)
	if err != nil || stats.Uploaded != 1 || !server.Has(p.StorePath) || s.left() != 0 {
		t.Errorf("%+v, %v, %d open", stats, err, s.left())
	}
	if got := server.Calls("upload-path"); got != 2 {
		t.Errorf("%d tries", got)
	}
}

// A server that knows a NAR answers while it is still being sent, and may hang up
// before the client has come to read that; here the client does not wait for its
// consent.
func TestEarlyAnswer(t *testing.T) {
	for _, drop := range []bool{false, true} {
		server, options := listen(t, attictest.Options{TrustHash: true, Fault: func(n int) attictest.Fault {
			return attictest.Fault{Taken: drop && n == 2, Drop: drop && n == 2}
		}})
		next := http.DefaultTransport
		options.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			r.Header.Del("Expect")
			return next.RoundTrip(r)
		})
		c := dial(t, options)
		s := &shop{}
		large := strings.Repeat("0123456789abcdef", 1<<20) // 16 MiB
		for _, p := range []attic.Path{s.path("first", large), s.path("second", large)} {
			if stats, err := c.Push(t.Context(), []attic.Path{p}, s.nar); err != nil || !server.Has(p.StorePath) {
				t.Errorf("%+v, %v", stats, err)
			}
		}
		if got := server.Calls("upload-path"); got != 2 {
			t.Errorf("%d tries", got)
		}
	}
}

// Eight streams of 32 MiB at a time leave no trace in memory.
func TestMemory(t *testing.T) {
	const streams, size = 8, 32 << 20
	_, options := listen(t, attictest.Options{})
	options.Jobs = streams
	c := dial(t, options)
	var mu sync.Mutex
	var peak uint64
	s := &shop{wrap: func(_ context.Context, storePath string, _ int, _ io.Reader) (io.Reader, error) {
		return &zeros{left: size, read: func() {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			mu.Lock()
			defer mu.Unlock()
			peak = max(peak, m.HeapAlloc)
		}}, nil
	}}
	var paths []attic.Path
	for i := range streams {
		p := s.path(fmt.Sprint("path", i), "")
		p.NarHash = "83ee47245398adee79bd9c0a8bc57b821e92aba10f5f9ade8a5d1fae4d8c4302" // of so many zeros
		p.NarSize = size
		paths = append(paths, p)
	}
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	stats, err := c.Push(t.Context(), paths, s.nar)
	if err != nil || stats.Uploaded+stats.Deduplicated != streams {
		t.Fatalf("%+v, %v", stats, err)
	}
	if grown := int64(peak) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

// zeros are so many of them, with a call for each megabyte read.
type zeros struct {
	left, since int
	read        func()
	once        sync.Once
}

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		z.once.Do(z.read)
		return 0, io.EOF
	}
	n := min(len(p), z.left)
	clear(p[:n])
	z.left -= n
	if z.since += n; z.since > 1<<20 {
		z.since = 0
		z.read()
	}
	return n, nil
}
