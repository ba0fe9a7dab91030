package niks3test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
)

// Options are what a server does.
type Options struct {
	// Dir is where the objects are kept.
	Dir string
	// Accepts returns 0 for the token of a job that may write, or else the status of the answer.
	Accepts func(token string) int
	// Issuer is the one whose tokens are accepted, and Audience for whom they must be, by default the
	// server's address.
	Issuer, Audience string
	// Private caches are read by nobody without a token.
	Private bool
	// Keys are public keys that the server names in place of its own.
	Keys []string
	// Parts is how many addresses an upload of several parts has at first, by default 2.
	Parts int
	// Fault may answer any request; true means that it has. The name is "cache-config", "create",
	// "request-parts", "complete-multipart", "exists", "sign", "complete", "put" or "read", and n
	// counts its requests from 1.
	Fault func(w http.ResponseWriter, r *http.Request, name string, n int) bool
}

// Server is a niks3 server. It is an http.Handler.
type Server struct {
	options Options
	secret  signature.SecretKey
	public  signature.PublicKey
	routes  *http.ServeMux

	mu       sync.Mutex
	objects  map[string][]string       // references, by key
	closures map[string]*closure       // that are being pushed, by id
	uploads  map[string]*upload        // by the secret of their address
	parts    map[string]map[int]string // ETags of an upload of several parts, by its id
	roots    []string
	calls    map[string]int
	seen     []string // tokens
}

type closure struct {
	root    string
	objects map[string]object
	pending map[string]bool // whether it has been uploaded
	signed  map[string]string
}

type object struct {
	Key     string   `json:"key"`
	Type    string   `json:"type"`
	Refs    []string `json:"refs"`
	NarSize *int64   `json:"nar_size"`
}

// An upload is what a presigned address is for.
type upload struct {
	closure *closure
	key     string
	id      string // of several parts, or empty
	number  int
}

// Running is a Server that listens.
type Running struct {
	*Server
	URL string // without a slash at the end
}

// Start starts a server on a free port of this machine, for as long as the test runs.
func Start(t interface {
	Helper()
	Fatal(...any)
	Cleanup(func())
}, options Options) *Running {
	t.Helper()
	server, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewServer(server)
	t.Cleanup(func() {
		listening.CloseClientConnections()
		listening.Close()
	})
	return &Running{server, listening.URL}
}

// New makes a server.
func New(options Options) (*Server, error) {
	if options.Parts == 0 {
		options.Parts = 2
	}
	s := &Server{
		options: options, objects: map[string][]string{}, closures: map[string]*closure{}, uploads: map[string]*upload{},
		parts: map[string]map[int]string{}, calls: map[string]int{},
	}
	var err error
	if s.secret, s.public, err = signature.GenerateKeypair("niks3-test-1", rand.Reader); err != nil {
		return nil, err
	}
	s.routes = http.NewServeMux()
	handle := func(name, pattern string, open bool, handler func(w http.ResponseWriter, r *http.Request) error) {
		s.routes.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			n := s.count(name)
			if options.Fault != nil && options.Fault(w, r, name, n) {
				return
			}
			err := s.permitted(r, open)
			if err == nil {
				err = handler(w, r)
			}
			if err != nil {
				s.refuse(w, err)
			}
		})
	}
	const token, open = false, true
	handle("cache-config", "GET /api/cache-config", open, s.cacheConfig)
	handle("create", "POST /api/pending_closures", token, s.create)
	handle("request-parts", "POST /api/multipart/request-parts", token, s.requestParts)
	handle("complete-multipart", "POST /api/multipart/complete", token, s.completeMultipart)
	handle("exists", "HEAD /api/objects/{key...}", token, s.exists)
	handle("sign", "POST /api/pending_closures/{id}/sign", token, s.sign)
	handle("complete", "POST /api/pending_closures/{id}/complete", token, s.complete)
	handle("put", "PUT /bucket/{key...}", open, s.put)
	handle("read", "GET /cache/{key...}", open, s.read)
	return s, nil
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.routes.ServeHTTP(w, r) }

// PublicKey is the one that the server's signatures are of, as Nix writes it.
func (s *Server) PublicKey() string { return s.public.String() }

// Has reports whether the cache has a store path.
func (s *Server) Has(storePath string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.objects[narinfoKey(storePath)]
	return ok
}

// Roots are the narinfos of the paths that the cache keeps, in the order in which they were pushed.
func (s *Server) Roots() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.roots)
}

// Calls counts the requests of a name so far.
func (s *Server) Calls(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[name]
}

// Tokens are the different tokens that requests had, in the order in which they came first.
func (s *Server) Tokens() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

func (s *Server) count(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[name]++
	return s.calls[name]
}

// A refusal is an answer, whose text is a line.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

func bad(format string, args ...any) error {
	return &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func (s *Server) refuse(w http.ResponseWriter, err error) {
	if r, ok := err.(*refusal); ok {
		http.Error(w, r.text, r.status)
		return
	}
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// permitted returns an error if a request has no token that may write, or has one where it must not.
func (s *Server) permitted(r *http.Request, open bool) error {
	header := r.Header.Get("Authorization")
	if open {
		if header != "" {
			return bad("a token was sent to where none belongs")
		}
		return nil
	}
	token, ok := strings.CutPrefix(header, "Bearer ")
	if !ok || token == "" {
		return &refusal{http.StatusUnauthorized, "Unauthorized"}
	}
	s.mu.Lock()
	if !slices.Contains(s.seen, token) {
		s.seen = append(s.seen, token)
	}
	s.mu.Unlock()
	switch status := s.options.Accepts(token); status {
	case 0:
		return nil
	case http.StatusForbidden:
		return &refusal{status, "Forbidden: token lacks scope write"}
	default:
		return &refusal{status, http.StatusText(status)}
	}
}

// decode reads the JSON of a request.
func decode(r *http.Request, value any) error {
	if r.Header.Get("Content-Type") != "application/json" {
		return bad("the content type is not application/json")
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, 128<<20))
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(value); err != nil {
		return bad("failed to decode request: %v", err)
	}
	return nil
}

func answer(w http.ResponseWriter, value any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(value)
}

func address(r *http.Request) string { return "http://" + r.Host }

func (s *Server) cacheConfig(w http.ResponseWriter, r *http.Request) error {
	config := map[string]any{"substituter_url": address(r) + "/cache", "public_keys": []string{s.PublicKey()}}
	if s.options.Keys != nil {
		config["public_keys"] = s.options.Keys
	}
	if issuer := r.URL.Query().Get("issuer"); issuer != "" && issuer == s.options.Issuer {
		config["oidc_audience"] = address(r)
		if s.options.Audience != "" {
			config["oidc_audience"] = s.options.Audience
		}
	}
	return answer(w, config)
}

// read serves the bucket as a binary cache.
func (s *Server) read(w http.ResponseWriter, r *http.Request) error {
	key := r.PathValue("key")
	switch {
	case s.options.Private:
		return &refusal{http.StatusUnauthorized, "Unauthorized"}
	case key == "nix-cache-info":
		_, err := io.WriteString(w, "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n")
		return err
	case !narinfoPattern.MatchString(key) && !narPattern.MatchString(key):
		return &refusal{http.StatusNotFound, "not found"}
	}
	data, err := os.ReadFile(filepath.Join(s.options.Dir, filepath.FromSlash(key)))
	if err != nil {
		return &refusal{http.StatusNotFound, "not found"}
	}
	if narinfoPattern.MatchString(key) {
		w.Header().Set("Content-Type", "text/x-nix-narinfo")
		w.Header().Set("Content-Encoding", "zstd")
	}
	_, err = w.Write(data)
	return err
}

const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

var (
	narinfoPattern = regexp.MustCompile(`^[` + alphabet + `]{32}\.narinfo$`)
	narPattern     = regexp.MustCompile(`^nar/[` + alphabet + `]{52}\.nar\.zst$`)
)

func narinfoKey(storePath string) string {
	hash, _, _ := strings.Cut(path.Base(storePath), "-")
	return hash + ".narinfo"
}
