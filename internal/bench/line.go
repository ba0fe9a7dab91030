package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
)

// A line is what all connections of a server share. In both directions together
// it carries no more than rate bytes a second, and each connection no more than each, if
// these are not 0. An answer comes delay late.
type line struct {
	rate    atomic.Int64
	each    atomic.Int64
	delay   atomic.Int64 // a time.Duration
	carried atomic.Int64 // bytes

	all pace
}

// A pace is when all is carried that was given to it.
type pace struct {
	mu   sync.Mutex
	free time.Time
}

// burst is for how long a line may have been idle and catch up.
const burst = 5 * time.Millisecond

func (p *pace) carry(n int, rate int64) {
	if rate == 0 {
		return
	}
	p.mu.Lock()
	if least := time.Now().Add(-burst); p.free.Before(least) {
		p.free = least
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	wait := time.Until(p.free)
	p.mu.Unlock()
	time.Sleep(wait)
}

// piece is how many bytes a connection gives to the line at once.
const piece = 32 << 10

// connection is one that goes through a line.
type connection struct {
	*net.TCPConn
	line *line
	own  pace
}

func (c *connection) carry(n int) {
	c.line.carried.Add(int64(n))
	c.line.all.carry(n, c.line.rate.Load())
	c.own.carry(n, c.line.each.Load())
}

func (c *connection) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.carry(n)
	return n, err
}

func (c *connection) Write(p []byte) (written int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), piece)]
		p = p[len(part):]
		c.carry(len(part))
		var n int
		n, err = c.TCPConn.Write(part)
		written += n
	}
	return written, err
}

// ReadFrom has the kernel copy a file, where nothing slows it down.
func (c *connection) ReadFrom(r io.Reader) (int64, error) {
	if c.line.rate.Load() > 0 || c.line.each.Load() > 0 {
		return io.CopyBuffer(struct{ io.Writer }{c}, r, make([]byte, piece))
	}
	n, err := c.TCPConn.ReadFrom(r)
	c.line.carried.Add(n)
	return n, err
}

type listener struct {
	net.Listener
	line *line
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &connection{TCPConn: c.(*net.TCPConn), line: l.line}, nil
}

// A service is a cache service with its blobs, and below /files/ the files in dir,
// all behind one line.
type service struct {
	*actionstest.Server
	*line
	dir  string
	url  string
	http *http.Server
	runs int // that used it, see [bench.farm]

	requests atomic.Int64

	mu      sync.Mutex
	created []time.Time // when keys were reserved, or refused
}

// creations returns the times at which keys were reserved, or refused.
func (s *service) creations() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.created)
}

// blobHost is where the blobs are. The official client deals with those of a host
// of such a name as it does at GitHub.
const blobHost = "bench.blob.core.windows.net"

// serve starts a service that has nothing yet. Its files are in a directory of that name.
func (b *bench) serve(ctx context.Context, name string) (*service, error) {
	s := &service{line: &line{}, dir: filepath.Join(b.dir, name)}
	blobs := filepath.Join(s.dir, "blobs")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return nil, err
	}
	var config net.ListenConfig
	listening, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(listening.Addr().String())
	if err != nil {
		return nil, err
	}
	s.url = "http://127.0.0.1:" + port
	disk := &actionstest.Disk{Dir: blobs, Address: "http://" + blobHost + ":" + port + "/blobs"}
	s.Server = actionstest.NewOn(disk, actionstest.Options{})
	mux := http.NewServeMux()
	mux.Handle("/", s.Server)
	mux.Handle("/blobs/", disk)
	mux.Handle("/files/", http.StripPrefix("/files/", http.FileServer(http.Dir(s.dir))))
	late := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		time.Sleep(time.Duration(s.delay.Load()))
		if strings.HasSuffix(r.URL.Path, "/CreateCacheEntry") {
			s.mu.Lock()
			s.created = append(s.created, time.Now())
			s.mu.Unlock()
		}
		mux.ServeHTTP(w, r)
	})
	s.http = &http.Server{Handler: late, ReadHeaderTimeout: time.Minute}
	go s.http.Serve(&listener{listening, s.line}) //nolint:errcheck // ends with Close
	return s, nil
}

// close ends the service and removes what it has.
func (s *service) close() {
	_ = s.http.Close()
	_ = os.RemoveAll(s.dir)
}

// environ is that of an action that uses the service.
func (s *service) environ() []string {
	env := []string{"GITHUB_ACTIONS=true"}
	for name, value := range s.Env(s.url) {
		env = append(env, name+"="+value)
	}
	return env
}
