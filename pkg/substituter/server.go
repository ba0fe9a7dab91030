// Package substituter serves store paths to the Nix of this machine, as a binary cache over HTTP.
//
// Requests are GET and HEAD of
//
//	/NAME/nix-cache-info
//	/NAME/HASH.narinfo            HASH is the hash part of a store path
//	/NAME/nar/HASH-NARHASH.nar    NARHASH is the SHA-256 of the NAR in Nix's base 32
//
// NAME, with the slash after it, is left out if there is none. NARs are not compressed, because on loopback the
// time of a compression is longer than that of the bytes. A NAR may be read from an offset on, with which Nix
// resumes a download that broke off.
//
// A path that is not available is 404 and nothing else: Nix takes that for a cache miss, while each other status is an
// error, after which it retries and then fails. A NAR that breaks off in the middle is an aborted connection. Nix
// then asks for the rest, which is 404, because the bytes before it may be wrong.
package substituter

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/nix-matrix/pkg/nix"
)

// The limits of a server.
const (
	maxConnections = 256
	// maxNARs is the most NARs that are read at a time. Others wait.
	maxNARs = 8
	// headSize is how many bytes of a NAR are read before the answer begins, so that an error of them is a 404.
	headSize = 1 << 20
	// tries is how often a NAR is opened until its first bytes are read: each time without the pack that failed.
	tries = 4

	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 16 << 10
	pieceSize      = 64 << 10
	maxBroken      = 1 << 12
)

// StallTime is how long a client may accept nothing of an answer. Then its connection is aborted.
const StallTime = time.Minute

// A Store has store paths. Its methods are safe for concurrent use. An error means that there is no such path.
type Store interface {
	// Find returns the path with a hash part, the 32 characters after /nix/store/.
	Find(ctx context.Context, hash string) (nix.PathInfo, error)
	// Open returns the NAR of the path, which the reader checks before it returns the last bytes. After an error
	// of the reader, another call returns another copy of the path, or an error. The caller must close the reader.
	Open(ctx context.Context, hash string) (nix.PathInfo, io.ReadCloser, error)
	// Prefetch says that the closure of the path may be opened soon. It returns at once.
	Prefetch(hash string)
}

// A Server serves the paths of a store.
type Server struct {
	Store    Store
	Priority int           // among substituters; lower goes first, and that of cache.nixos.org is 40
	Name     string        // first part of the path of all URLs; may be empty
	Key      *Key          // signs paths without a content address, unless it is nil
	Idle     time.Duration // Serve ends after so long without a request; 0 is never
	Stall    time.Duration // 0 is StallTime

	nars    chan struct{} // holds one for each NAR that is read
	hosts   []string
	used    chan struct{}
	paths   atomic.Int64
	bytes   atomic.Int64
	ongoing sync.WaitGroup // requests

	mu     sync.Mutex
	broken map[string]bool // NARs of which an answer broke off, by their URLs
}

// ErrIdle is the end of a server that nobody used.
var ErrIdle = errors.New("no request for the idle time")

// Listen listens on a TCP address, which must be of this machine's loopback. A host that is not a
// number is looked up.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if at, err := netip.ParseAddrPort(l.Addr().String()); err != nil || !at.Addr().Unmap().IsLoopback() {
		return nil, errors.Join(errors.New("it is not an address of loopback, such as 127.0.0.1:0"), l.Close())
	}
	return l, nil
}

// URL returns the address of a server that serves on a listener.
func (s *Server) URL(l net.Listener) string {
	url := "http://" + l.Addr().String()
	if s.Name != "" {
		url += "/" + s.Name
	}
	return url
}

// Served returns how many NARs were read to their end, and the bytes of all NARs that were sent.
func (s *Server) Served() (paths, bytes int64) { return s.paths.Load(), s.bytes.Load() }

// Serve serves on a listener until the context ends, which is no error, or nobody uses it any more. It returns
// after the last request, of which the context of those that are being answered ends too. It may be called
// only once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	for _, host := range []string{"127.0.0.1", "localhost", "::1"} {
		s.hosts = append(s.hosts, net.JoinHostPort(host, port))
	}
	s.hosts = append(s.hosts, l.Addr().String())
	s.nars, s.used = make(chan struct{}, maxNARs), make(chan struct{}, 1)
	if s.Stall == 0 {
		s.Stall = StallTime
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	server := &http.Server{
		Handler: s, BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: log.New(io.Discard, "", 0),
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
	}
	closed := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer closed()
	go s.watch(ctx, stop)
	err = server.Serve(&limited{Listener: l, free: make(chan struct{}, maxConnections), closed: make(chan struct{})})
	s.ongoing.Wait()
	switch {
	case errors.Is(context.Cause(ctx), ErrIdle):
		return ErrIdle
	case ctx.Err() != nil:
		return nil
	}
	return err
}

// watch ends the server when nobody uses it.
func (s *Server) watch(ctx context.Context, stop context.CancelCauseFunc) {
	if s.Idle <= 0 {
		return
	}
	timer := time.NewTimer(s.Idle)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.used:
			timer.Reset(s.Idle)
		case <-timer.C:
			stop(ErrIdle)
			return
		}
	}
}

// use says that the server is used.
func (s *Server) use() {
	select {
	case s.used <- struct{}{}:
	default:
	}
}

// A limited listener accepts a connection only if there are fewer than the most allowed.
type limited struct {
	net.Listener
	free   chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: conn, free: l.free}, nil
}

// Close implements net.Listener.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	once sync.Once
	free chan struct{}
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.once.Do(func() { <-c.free })
	return c.Conn.Close()
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.ongoing.Add(1)
	defer s.ongoing.Done()
	s.use()
	defer s.use()
	if !s.allowed(r) {
		http.Error(w, "only programs of this machine may ask", http.StatusForbidden)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), "/")
	if s.Name != "" && ok {
		path, ok = strings.CutPrefix(path, s.Name+"/")
	}
	if !ok || r.URL.RawQuery != "" {
		http.NotFound(w, r)
		return
	}
	if path == "nix-cache-info" {
		s.answer(w, r, "text/x-nix-cache-info", "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: "+strconv.Itoa(s.Priority)+"\n")
	} else if hash, ok := strings.CutSuffix(path, ".narinfo"); ok && isHash(hash, hashSize) {
		s.narinfo(w, r, hash)
	} else if hash, narHash, ok := parseNAR(path); ok {
		s.nar(w, r, hash, narHash)
	} else {
		http.NotFound(w, r)
	}
}

// allowed reports whether a request comes from this machine and is for this server. A web page whose name was made
// to lead here has another Host.
func (s *Server) allowed(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		return false
	}
	for _, host := range s.hosts {
		if strings.EqualFold(r.Host, host) {
			return true
		}
	}
	return false
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, kind, text string) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	s.extend(w)
	if r.Method == http.MethodGet {
		_, _ = io.WriteString(w, text) //nolint:gosec // no browser shows it; an error means that the client is gone
	}
}

// extend grants the client time for the next bytes.
func (s *Server) extend(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.Stall)) // all connections have one
}

func (s *Server) narinfo(w http.ResponseWriter, r *http.Request, hash string) {
	info, err := s.Store.Find(r.Context(), hash)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	text, err := narInfo(&info, s.Key)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	if r.Method == http.MethodGet {
		s.Store.Prefetch(hash)
	}
	s.answer(w, r, "text/x-nix-narinfo", text)
}
