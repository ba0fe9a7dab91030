package substituter

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo"
	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/nix"
)

const (
	someHash = "00000000000000000000000000000000"
	noHash   = "11111111111111111111111111111111"
	narSum   = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// memory has one path, whose NAR is not one.
type memory struct {
	nar []byte
	ca  string

	mu       sync.Mutex
	fetched  []string
	finished chan struct{} // gets one for each NAR that is closed, if it is not nil
}

func (m *memory) Find(_ context.Context, hash string) (nix.PathInfo, error) {
	if hash != someHash {
		return nix.PathInfo{}, errFault
	}
	return nix.PathInfo{
		Path: storeDir + someHash + "-some", NarHash: narSum, NarSize: int64(len(m.nar)), CA: m.ca,
		References: []string{storeDir + someHash + "-some", storeDir + noHash + "-other"}, Signatures: []string{"a:" + strings.Repeat("A", 86) + "=="}, Deriver: storeDir + noHash + "-some.drv",
	}, nil
}

func (m *memory) Open(ctx context.Context, hash string) (nix.PathInfo, io.ReadCloser, error) {
	info, err := m.Find(ctx, hash)
	return info, &closing{bytes.NewReader(m.nar), m.finished}, err
}

func (m *memory) Prefetch(hash string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fetched = append(m.fetched, hash)
}

type closing struct {
	io.Reader
	closed chan struct{}
}

func (c *closing) Close() error {
	if c.closed != nil {
		c.closed <- struct{}{}
	}
	return nil
}

func get(t *testing.T, method, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// narURL is where the NAR of memory is.
func narURL(t *testing.T) string {
	t.Helper()
	hash, err := base32(narSum)
	if err != nil {
		t.Fatal(err)
	}
	return "/nar/" + someHash + "-" + hash + ".nar"
}

func TestRequests(t *testing.T) {
	store := &memory{nar: []byte("0123456789")}
	s := &Server{Store: store, Priority: 50, Name: "name"}
	l, _ := start(t, s)
	url, nar := s.URL(l), narURL(t)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, tt := range []struct {
		method, path string
		header       []string
		status       int
		body         string
	}{
		{"GET", "/nix-cache-info", nil, 200, "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 50\n"},
		{"HEAD", "/nix-cache-info", nil, 200, ""},
		{"GET", "/nix-cache-info", []string{"Host", "localhost:" + port}, 200, "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 50\n"},
		{"GET", "/nix-cache-info", []string{"Host", "[::1]:" + port}, 200, "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 50\n"},
		{"GET", "/nix-cache-info", []string{"Host", "rebound.example.com:" + port}, 403, "only programs of this machine may ask\n"},
		{"GET", "/nix-cache-info", []string{"Host", "127.0.0.1"}, 403, "only programs of this machine may ask\n"},
		{"POST", "/nix-cache-info", nil, 405, "GET or HEAD\n"},
		{"PUT", nar, nil, 405, "GET or HEAD\n"},
		{"GET", "", nil, 404, "404 page not found\n"},
		{"GET", "/nix-cache-info?a", nil, 404, "404 page not found\n"},
		{"GET", "/nix%2dcache-info", nil, 404, "404 page not found\n"},
		{"GET", "/../name/nix-cache-info", nil, 404, "404 page not found\n"},
		{"GET", "/" + noHash + ".narinfo", nil, 404, "404 page not found\n"},
		{"GET", "/" + someHash[1:] + ".narinfo", nil, 404, "404 page not found\n"},
		{"GET", "/" + strings.Repeat("e", 32) + ".narinfo", nil, 404, "404 page not found\n"}, // Nix's base 32 has no e
		{"HEAD", "/" + someHash + ".narinfo", nil, 200, ""},
		{"GET", nar, nil, 200, "0123456789"},
		{"HEAD", nar, nil, 200, ""},
		{"GET", nar, []string{"Range", "bytes=3-"}, 206, "3456789"},
		{"GET", nar, []string{"Range", "bytes=3-5"}, 206, "345"},
		{"GET", nar, []string{"Range", "bytes=-2"}, 206, "89"},
		{"GET", nar, []string{"Range", "bytes=0-99"}, 200, "0123456789"},
		{"GET", nar, []string{"Range", "bytes=0-1,3-4"}, 200, "0123456789"},
		{"GET", nar, []string{"Range", "lines=3-"}, 200, "0123456789"},
		{"GET", nar, []string{"Range", "bytes=10-"}, 416, "no such range\n"},
		{"GET", nar, []string{"Range", "bytes=5-3"}, 416, "no such range\n"},
		{"GET", strings.Replace(nar, "-", "-0", 1), nil, 404, "404 page not found\n"},
		{"GET", strings.ReplaceAll(nar, ".nar", ".nar.zst"), nil, 404, "404 page not found\n"},
		{"GET", "/nar/" + someHash + "-" + strings.Repeat("0", narHashSize) + ".nar", nil, 404, "404 page not found\n"},
	} {
		t.Run(strings.Join(append([]string{tt.method, tt.path}, tt.header...), " "), func(t *testing.T) {
			status, body := get(t, tt.method, url+tt.path, tt.header...)
			if status != tt.status || body != tt.body {
				t.Errorf("%d %q", status, body)
			}
		})
	}
	if status, _ := get(t, "GET", "http://"+l.Addr().String()+"/nix-cache-info"); status != 404 {
		t.Errorf("without its name: %d", status)
	}
	if !slices.Contains(store.fetched, someHash) || slices.Contains(store.fetched, noHash) {
		t.Errorf("prefetched %q", store.fetched)
	}
}

// A request from another machine is refused, whatever it says.
func TestRemote(t *testing.T) {
	t.Parallel()
	s := &Server{Store: &memory{}, hosts: []string{"127.0.0.1:80"}}
	for from, status := range map[string]int{"127.0.0.1:9": 200, "[::1]:9": 200, "[::ffff:127.0.0.1]:9": 200, "192.0.2.1:9": 403, "nobody": 403} {
		req := httptest.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1:80/nix-cache-info", nil)
		req.RemoteAddr = from
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, req); w.Code != status {
			t.Errorf("%s: %d", from, w.Code)
		}
	}
	for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0"} {
		if l, err := Listen(t.Context(), address); err == nil {
			t.Errorf("listens on %s", l.Addr())
		}
	}
}

// The document has all that is known, and a signature by the key.
func TestNarInfo(t *testing.T) {
	t.Parallel()
	secret, public, err := signature.GenerateKeypair("test-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, ca := range []string{"", "text:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s"} {
		store := &memory{nar: make([]byte, 7), ca: ca}
		info, _ := store.Find(t.Context(), someHash)
		text, err := narInfo(&info, &secret)
		if err != nil {
			t.Fatal(err)
		}
		read, err := narinfo.Parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err, text)
		}
		if read.StorePath != info.Path || "/"+read.URL != narURL(t) || read.NarSize != 7 || read.FileSize != 7 || len(read.References) != 2 || read.Deriver != noHash+"-some.drv" || read.CA != ca || read.Compression != "none" {
			t.Errorf("%s", text)
		}
		if signed := signature.VerifyFirst(read.Fingerprint(), read.Signatures, []signature.PublicKey{public}); signed != (ca == "") {
			t.Errorf("signed: %t: %s", signed, text)
		}
	}
}

// A client that stops reading loses its connection, and others get what they want.
func TestClientStopsReading(t *testing.T) {
	store := &memory{nar: make([]byte, 64<<20), finished: make(chan struct{}, 2*maxNARs)}
	s := &Server{Store: store, Stall: time.Millisecond}
	l, _ := start(t, s)
	var conns []net.Conn
	for range maxNARs + 1 { // more than are read at a time
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", narURL(t), l.Addr())
		conns = append(conns, conn)
	}
	for range conns {
		<-store.finished
	}
	if paths, _ := s.Served(); paths != 0 {
		t.Errorf("%d paths were read", paths)
	}
	if n, err := io.Copy(io.Discard, conns[0]); err == nil && n >= 64<<20 {
		t.Error("the client got all of it")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.broken) > 0 {
		t.Error("the client's fault counts as the store's")
	}
}

// Many requests at once need few connections, goroutines and files.
func TestManyNarInfos(t *testing.T) {
	before := runtime.NumGoroutine()
	s := &Server{Store: &memory{nar: []byte("nar")}}
	l, stop := start(t, s)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 2 * maxConnections, MaxIdleConnsPerHost: 25}}
	var g errgroup.Group
	g.SetLimit(2 * maxConnections)
	for i := range 10_000 {
		g.Go(func() error {
			hash, want := someHash, 200
			if i%2 == 0 {
				hash, want = noHash, 404
			}
			req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL(l)+"/"+hash+".narinfo", nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != want {
				return fmt.Errorf("%d, %w", resp.StatusCode, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	stop()
	client.CloseIdleConnections()
	for runtime.NumGoroutine() > before+2 { // that of Serve's caller, and of its end
		runtime.Gosched()
	}
}

// A server that nobody uses ends, and one that is used does not.
func TestIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Idle: time.Hour, used: make(chan struct{}, 1)}
		ctx, stop := context.WithCancelCause(t.Context())
		go s.watch(ctx, stop)
		time.Sleep(50 * time.Minute)
		s.use()
		time.Sleep(50 * time.Minute)
		if synctest.Wait(); ctx.Err() != nil {
			t.Error("ended in use")
		}
		time.Sleep(11 * time.Minute)
		if synctest.Wait(); context.Cause(ctx) != ErrIdle {
			t.Error(context.Cause(ctx))
		}
	})
}

// A request of a stranger reaches the store only as a hash.
func FuzzPath(f *testing.F) {
	f.Add("nar/" + someHash + "-" + strings.Repeat("0", narHashSize) + ".nar")
	f.Add(someHash + ".narinfo")
	f.Fuzz(func(t *testing.T, path string) {
		hash, narHash, ok := parseNAR(path)
		if ok && path != "nar/"+hash+"-"+narHash+".nar" || ok && len(hash)+len(narHash) != hashSize+narHashSize {
			t.Errorf("%q: %q, %q", path, hash, narHash)
		}
	})
}

func FuzzRange(f *testing.F) {
	f.Add("bytes=3-5", int64(10))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size <= 0 {
			return
		}
		if first, length, ok := part(header, size); ok && (first < 0 || length <= 0 || length > size-first) {
			t.Errorf("%q of %d: %d from %d", header, size, length, first)
		}
	})
}
