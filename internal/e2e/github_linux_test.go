package e2e_test

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
)

// secret is what the binary cache wants to see. No log may have it.
const secret = "hunter2-but-longer"

// token is a runtime token: a JWT whose claims tell the artifacts' client which run this is, and the cache's
// what it may do.
var token = func() string {
	part := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"scp":"Actions.Results:1:1","ac":%q}`, `[{"Scope":"refs/heads/main","Permission":3}]`)
	return part([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + part([]byte(claims)) + "." + part([]byte(rand.Text()))
}()

// artifactPort is where act serves artifacts, on an address of the loopback network that is this run's
// alone. It can't be asked for a free one.
const artifactPort = "34567"

// loopback returns an address of 127.0.0.0/8 that no other test has.
func loopback() string {
	b := make([]byte, 3)
	rand.Read(b)
	return net.IPv4(127, b[0]|1, b[1], b[2]&0x7f|1).String()
}

// results serves what GitHub has at ACTIONS_RESULTS_URL, where artifacts and cache share an address:
// artifacts from act's server, the cache from cacheService, which may be nil.
func results(artifacts, token string, cacheService http.Handler) http.Handler {
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: net.JoinHostPort(artifacts, artifactPort)})
		r.Out.Host = r.In.Host // which act makes the addresses of uploads and downloads from
		// Azure's client takes the = off the end of a signature, and act's server wants it.
		r.Out.URL.RawQuery = signed.ReplaceAllString(r.In.URL.RawQuery, "$0%3D")
	}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token && strings.HasPrefix(r.URL.Path, "/twirp/") && r.URL.Query().Get("sig") == "":
			http.Error(w, "this is not the token", http.StatusUnauthorized)
		case cacheService != nil && strings.Contains(r.URL.Path, ".CacheService/"):
			cacheService.ServeHTTP(w, r)
		default:
			proxy.ServeHTTP(w, r)
		}
	})
}

var signed = regexp.MustCompile(`\bsig=[\w-]{43}\b`)

// cacheV2 starts the cache service in version 2, and gives the runtime variables.
func cacheV2(t *testing.T, artifacts string) map[string]string {
	service := actionstest.Start(t, actionstest.Options{})
	return runtimeV2(t, artifacts, service.Token(), service)
}

// forgetful is a cache service of which every lookup misses.
func forgetful(service http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/GetCacheEntryDownloadURL") {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"ok":false,"signed_download_url":"","matched_key":""}`)
			return
		}
		service.ServeHTTP(w, r)
	})
}

// runtimeV2 returns the runtime variables of a run that has that token of a cache service.
func runtimeV2(t *testing.T, artifacts, token string, service http.Handler) map[string]string {
	server := httptest.NewServer(results(artifacts, token, service))
	t.Cleanup(server.Close)
	return map[string]string{
		"ACTIONS_RUNTIME_TOKEN":    token,
		"ACTIONS_RESULTS_URL":      server.URL + "/",
		"ACTIONS_CACHE_SERVICE_V2": "True",
	}
}

// cacheV1 starts act's cache service, in version 1, and gives the runtime variables.
func cacheV1(t *testing.T, artifacts string) map[string]string {
	server := httptest.NewServer(results(artifacts, token, nil))
	t.Cleanup(server.Close)
	cmd := exec.CommandContext(t.Context(), testbench.GoProgram(t, "act-cache"), t.TempDir())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close() // which ends it
		cmd.Wait()
	})
	var address string
	if _, err := fmt.Fscanln(stdout, &address); err != nil {
		t.Fatalf("start act's cache service: %v", err)
	}
	return map[string]string{
		"ACTIONS_RUNTIME_TOKEN": token,
		"ACTIONS_RESULTS_URL":   server.URL + "/",
		"ACTIONS_CACHE_URL":     address,
	}
}

// A cachix is the binary cache my-fleet: https://cachix.org and https://my-fleet.cachix.org at an address of its own,
// and a directory for what the program cachix pushes.
type cachix struct {
	dir         string // has a directory for each job
	served      string // directory of the binary cache
	key         string // file with the key that signs it
	public      string // the key that checks signatures
	address     string
	certificate string // file
}

func newCachix(t *testing.T) *cachix {
	c := &cachix{dir: t.TempDir(), served: t.TempDir(), key: filepath.Join(t.TempDir(), "key"), address: loopback()}
	signing, public, err := signature.GenerateKeypair("my-fleet.cachix.org-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.key, signing.String())
	c.public = public.String()
	service := testbench.Cachix{Name: "my-fleet", Token: secret, Public: true, Dir: c.served, Key: c.public}
	certificate, file := testbench.SelfSigned(t, service.Hosts()...)
	c.certificate = file
	server := httptest.NewUnstartedServer(service)
	server.Listener.Close()
	if server.Listener, err = net.Listen("tcp", net.JoinHostPort(c.address, "443")); err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return c
}

// pushed returns how many jobs have pushed, and the files that they have pushed by name, without hashes.
func (c *cachix) pushed(t *testing.T) (jobs int, files map[string]string) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(c.dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for _, path := range paths {
		_, name, _ := strings.Cut(filepath.Base(path), "-")
		files[name] = path
	}
	return len(entries), files
}

// writeJSON writes the runtime variables for runner.js.
func writeJSON(t *testing.T, file string, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(data))
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}
