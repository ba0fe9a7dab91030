package attic_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"github.com/org/nix-matrix/pkg/push/attic"
	"github.com/org/nix-matrix/pkg/push/attic/attictest"
)

// pipes is a network inside of the process, so that clocks can be synctest's. Its
// servers are on all hosts.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.accepted:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.accepted <- server:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

const endpoint = "http://attic.example/prefix"

// serve starts a server on pipes. The options it returns have a token that may push to its cache.
func serve(t *testing.T, options attictest.Options) (*attictest.Server, attic.Options) {
	t.Helper()
	options.Prefix = "/prefix"
	server, err := attictest.New(options)
	if err != nil {
		t.Fatal(err)
	}
	network := &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})}
	listening := &http.Server{Handler: server, ReadHeaderTimeout: time.Hour}
	transport := &http.Transport{DialContext: network.dial, ExpectContinueTimeout: time.Second}
	var running sync.WaitGroup
	running.Go(func() { _ = listening.Serve(network) })
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
		_ = listening.Shutdown(context.WithoutCancel(t.Context()))
		running.Wait()
	})
	return server, attic.Options{
		Endpoint:  endpoint,
		Cache:     "test",
		Token:     server.Token(true, true),
		Transport: transport,
	}
}

func dial(t *testing.T, options attic.Options) *attic.Cache {
	t.Helper()
	c, err := attic.Dial(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// recordLog has a Cache log to what it gives.
func recordLog(options *attic.Options) *record {
	r := &record{}
	options.Log = slog.New(slog.NewTextHandler(r, nil))
	return r
}

type record struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// A shop has NARs of paths. They are any bytes, since only their hash counts.
type shop struct {
	// wrap, if set, replaces the NAR of a path when it is opened for the n-th
	// time, counted from 1.
	wrap func(ctx context.Context, storePath string, n int, nar io.Reader) (io.Reader, error)

	mu      sync.Mutex
	content map[string]string
	opened  map[string]int
	open    int
	most    int // open at a time
}

// path makes a path with a NAR.
func (s *shop) path(name, nar string) attic.Path {
	hash := sha256.Sum256([]byte(name))
	p := attic.Path{
		StorePath: "/nix/store/" + nixbase32.EncodeToString(hash[:20]) + "-" + name,
		NarHash:   fmt.Sprintf("%x", sha256.Sum256([]byte(nar))),
		NarSize:   int64(len(nar)),
	}
	if s.content == nil {
		s.content, s.opened = map[string]string{}, map[string]int{}
	}
	s.content[p.StorePath] = nar
	return p
}

// paths makes n paths with different small NARs.
func (s *shop) paths(n int) []attic.Path {
	paths := make([]attic.Path, n)
	for i := range paths {
		paths[i] = s.path(fmt.Sprintf("path-%d", i), fmt.Sprintf("NAR %d", i))
	}
	return paths
}

func (s *shop) nar(ctx context.Context, storePath string) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened[storePath]++
	s.open++
	s.most = max(s.most, s.open)
	nar := io.Reader(strings.NewReader(s.content[storePath]))
	if s.wrap != nil {
		var err error
		if nar, err = s.wrap(ctx, storePath, s.opened[storePath], nar); err != nil {
			s.open--
			return nil, err
		}
	}
	return &sold{Reader: nar, shop: s}, nil
}

// left is how many NARs are open.
func (s *shop) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

func (s *shop) openings(p attic.Path) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened[p.StorePath]
}

type sold struct {
	io.Reader
	shop *shop
	once sync.Once
}

func (s *sold) Close() error {
	s.once.Do(func() {
		if c, ok := s.Reader.(io.Closer); ok {
			_ = c.Close()
		}
		s.shop.mu.Lock()
		defer s.shop.mu.Unlock()
		s.shop.open--
	})
	return nil
}
