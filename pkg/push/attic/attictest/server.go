package attictest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
)

// Options are what a server does. The zero value is a private cache called
// "test" that works.
type Options struct {
	Cache  string
	Prefix string // of all its addresses, such as "/attic"
	// Public caches can be read without a token.
	Public bool
	// Upstream are the names of keys whose paths are not wanted.
	Upstream []string
	// Dir is where NARs are kept. Without it they are only hashed, and can't be
	// substituted.
	Dir string
	// Delay is how long each answer of the API takes.
	Delay time.Duration
	// TrustHash makes the server answer before it has read a NAR that it knows.
	TrustHash bool
	// API and Substituter are the addresses that the server gives for itself;
	// "none" stands for none, and by default they follow from the request.
	API, Substituter string
	// Fault says what is to go wrong with the n-th upload, counted from 1.
	Fault func(n int) Fault
	// Before may answer any request; true means that it has.
	Before func(w http.ResponseWriter, r *http.Request) bool
}

// A Fault is what goes wrong with an upload. The zero value is nothing.
type Fault struct {
	Status int         // the answer, in place of taking the upload
	Header http.Header // of the answer
	Body   string      // of the answer; Attic's JSON by default

	Drop  bool  // the connection is dropped
	Stall bool  // nothing is read or answered any more
	At    int64 // after so many bytes of the body
	Taken bool  // after the upload was taken

	Late   time.Duration // after which it is answered, if it was taken
	Expire bool          // the tokens have expired
}

// An Upload is one that the server has taken.
type Upload struct {
	StorePath    string
	Info         NarInfo
	Preamble     bool
	Deduplicated bool
	Length       int64 // the header Content-Length
}

// NarInfo is what a client says of an upload.
type NarInfo struct {
	Cache      *string   `json:"cache"`
	Hash       *string   `json:"store_path_hash"`
	StorePath  *string   `json:"store_path"`
	References *[]string `json:"references"`
	System     *string   `json:"system"`
	Deriver    *string   `json:"deriver"`
	Signatures *[]string `json:"sigs"`
	CA         *string   `json:"ca"`
	NarHash    *string   `json:"nar_hash"`
	NarSize    *int64    `json:"nar_size"`
}

// Server is an Attic server. It is an http.Handler.
type Server struct {
	options Options
	secret  signature.SecretKey
	public  signature.PublicKey
	routes  *http.ServeMux
	stop    chan struct{}

	mu      sync.Mutex
	tokens  map[string]permission
	objects map[string]NarInfo // by store path hash
	nars    map[string]bool    // by NAR hash
	uploads []Upload
	calls   map[string]int
}

type permission struct{ pull, push bool }

// New makes a server. Close ends requests that stall.
func New(options Options) (*Server, error) {
	if options.Cache == "" {
		options.Cache = "test"
	}
	s := &Server{
		options: options,
		stop:    make(chan struct{}),
		tokens:  map[string]permission{},
		objects: map[string]NarInfo{},
		nars:    map[string]bool{},
		calls:   map[string]int{},
	}
	var err error
	if s.secret, s.public, err = signature.GenerateKeypair(options.Cache, rand.Reader); err != nil {
		return nil, err
	}
	s.routes = http.NewServeMux()
	handle := func(name, pattern string, handler func(w http.ResponseWriter, r *http.Request, n int) error) {
		s.routes.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			n := s.count(name)
			if options.Before != nil && options.Before(w, r) {
				return
			}
			if err := handler(w, r, n); err != nil {
				writeError(w, err)
			}
		})
	}
	handle("cache-config", "GET /_api/v1/cache-config/{cache}", s.cacheConfig)
	handle("get-missing-paths", "POST /_api/v1/get-missing-paths", s.getMissingPaths)
	handle("upload-path", "PUT /_api/v1/upload-path", s.uploadPath)
	handle("nix-cache-info", "GET /{cache}/nix-cache-info", s.nixCacheInfo)
	handle("narinfo", "GET /{cache}/{narinfo}", s.narInfo)
	handle("nar", "GET /{cache}/nar/{nar}", s.nar)
	return s, nil
}

// Close ends requests that stall.
func (s *Server) Close() { close(s.stop) }

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	http.StripPrefix(s.options.Prefix, s.routes).ServeHTTP(w, r)
}

// Token makes a token with permissions for the cache. It looks like a JWT.
func (s *Server) Token(pull, push bool) string {
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	token := part(`{"alg":"HS256"}`) + "." + part(`{"sub":"test"}`) + "." + part(rand.Text())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = permission{pull, push}
	return token
}

// Expire makes all tokens invalid.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// PublicKey is the one that the server's signatures are of, as Nix writes it.
func (s *Server) PublicKey() string { return s.public.String() }

// Uploads are those that the server has taken so far.
func (s *Server) Uploads() []Upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.uploads)
}

// Has reports whether the cache has a store path.
func (s *Server) Has(storePath string) bool {
	hash, _, _ := strings.Cut(path.Base(storePath), "-")
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.objects[hash]
	return ok
}

// Forget makes the cache lose a store path, but not its NAR.
func (s *Server) Forget(storePath string) {
	hash, _, _ := strings.Cut(path.Base(storePath), "-")
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, hash)
}

// Calls counts the requests so far for "cache-config", "get-missing-paths",
// "upload-path", "nix-cache-info", "narinfo" or "nar".
func (s *Server) Calls(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[name]
}

func (s *Server) count(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[name]++
	return s.calls[name]
}

// apiError is an error as Attic answers it, from server/src/error.rs.
type apiError struct {
	Code    int    `json:"code"`
	Kind    string `json:"error"`
	Message string `json:"message"`
}

func (e *apiError) Error() string { return e.Message }

var (
	errUnauthorized = &apiError{http.StatusUnauthorized, "Unauthorized", "Unauthorized."}
	errForbidden    = &apiError{http.StatusForbidden, "AccessError", "Access error: User does not have permission to complete this action."}
	errNoCache      = &apiError{http.StatusNotFound, "NoSuchCache", "The requested cache does not exist."}
	errNoObject     = &apiError{http.StatusNotFound, "NoSuchObject", "The requested object does not exist."}
)

func badRequest(format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, "RequestError", "General request error: " + fmt.Sprintf(format, args...)}
}

func writeError(w http.ResponseWriter, err error) {
	var known *apiError
	if !errors.As(err, &known) {
		known = &apiError{http.StatusInternalServerError, "InternalServerError", "The server encountered an internal error or misconfiguration."}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(known.Code)
	_ = json.NewEncoder(w).Encode(known) // the client may be gone
}

func (s *Server) answer(w http.ResponseWriter, value any) error {
	time.Sleep(s.options.Delay)
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(value)
}

// permission is what the request may do with the cache. A token that is not
// valid counts as none; who may do nothing does not learn whether a cache exists.
func (s *Server) permission(r *http.Request, cache string) (permission, error) {
	token := ""
	if scheme, rest, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "bearer") {
		token = rest
	}
	if _, password, ok := r.BasicAuth(); ok {
		token = password
	}
	s.mu.Lock()
	p := s.tokens[token]
	s.mu.Unlock()
	exists := cache == s.options.Cache
	known := p.pull || p.push
	p.pull = p.pull || s.options.Public && exists
	switch {
	case !exists && known:
		return p, errNoCache
	case !p.pull && !p.push:
		return p, errUnauthorized
	}
	return p, nil
}

func (s *Server) mayPull(r *http.Request, cache string) error {
	p, err := s.permission(r, cache)
	if err == nil && !p.pull {
		err = errForbidden
	}
	return err
}

func (s *Server) mayPush(r *http.Request, cache string) error {
	p, err := s.permission(r, cache)
	if err == nil && !p.push {
		err = errForbidden
	}
	return err
}

func (s *Server) cacheConfig(w http.ResponseWriter, r *http.Request, _ int) error {
	if err := s.mayPull(r, r.PathValue("cache")); err != nil {
		return err
	}
	base := "http://" + r.Host + s.options.Prefix + "/"
	config := map[string]any{
		"api_endpoint":             base,
		"substituter_endpoint":     base + s.options.Cache,
		"public_key":               s.PublicKey(),
		"is_public":                s.options.Public,
		"store_dir":                "/nix/store",
		"priority":                 41,
		"upstream_cache_key_names": append([]string{}, s.options.Upstream...),
		"retention_period":         "Global",
	}
	for name, address := range map[string]string{"api_endpoint": s.options.API, "substituter_endpoint": s.options.Substituter} {
		switch address {
		case "":
		case "none":
			delete(config, name)
		default:
			config[name] = address
		}
	}
	return s.answer(w, config)
}

func (s *Server) getMissingPaths(w http.ResponseWriter, r *http.Request, _ int) error {
	var question struct {
		Cache  *string   `json:"cache"`
		Hashes *[]string `json:"store_path_hashes"`
	}
	if r.Header.Get("Content-Type") != "application/json" {
		return &apiError{http.StatusUnsupportedMediaType, "RequestError", "Expected request with `Content-Type: application/json`"}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return &apiError{http.StatusRequestEntityTooLarge, "RequestError", "length limit exceeded"}
	}
	if err := decode(data, &question); err != nil {
		return err
	}
	if question.Cache == nil || question.Hashes == nil {
		return badRequest("missing field")
	}
	if err := s.mayPush(r, *question.Cache); err != nil {
		return err
	}
	missing := []string{}
	s.mu.Lock()
	for _, hash := range *question.Hashes {
		if !storeHash.MatchString(hash) {
			err = badRequest("%q is not a store path hash", hash)
		}
		if _, ok := s.objects[hash]; !ok {
			missing = append(missing, hash)
		}
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.answer(w, map[string]any{"missing_paths": missing})
}

func decode(data []byte, value any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(value); err != nil {
		return badRequest("%v", err)
	}
	if d.More() {
		return badRequest("trailing characters")
	}
	return nil
}

var (
	storeHash = regexp.MustCompile(`^[0-9a-df-np-sv-z]{32}$`)
	baseName  = regexp.MustCompile(`^[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+._?=-]+$`)
	narHash   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)
