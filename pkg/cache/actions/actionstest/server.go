package actionstest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
)

// KeyRule is what a server does with the key of a lookup, on which sources
// disagree. The restore keys are prefixes in any case.
type KeyRule int

// The rules for the key of a lookup.
const (
	KeyExact   KeyRule = iota // the key is looked up exactly
	KeyPrefix                 // exactly, then as a prefix too
	KeyIgnored                // only restore keys count
)

// Options change what a Server does; the zero value is the service with a
// token that may do everything.
type Options struct {
	// ReadOnly and Unreadable are tokens of jobs that are not trusted.
	ReadOnly, Unreadable bool
	// KeyRule is the rule for the key of a lookup.
	KeyRule KeyRule
	// NotFound is how often finalizing an upload first fails with not_found.
	NotFound int
	// Lag is how many lookups don't see a new entry yet.
	Lag int
	// Expired is how many download addresses are handed out that have expired.
	Expired int
	// OnDisk is a Disk in place of an Azurite, in Start.
	OnDisk bool
	// Wrap puts a handler around the server's in Start.
	Wrap func(http.Handler) http.Handler
}

// Server answers calls of the cache service. It is safe for concurrent use.
type Server struct {
	options Options
	blobs   storage
	token   string

	mu      sync.Mutex
	scopes  map[string][]Scope // by token
	entries []*entry           // in the order of their reservation
	order   int                // of the last one finalized
	lookups int
}

// Entry is a reserved entry, which is stored too if Size is not 0.
type Entry struct {
	Key, Version string
	Scope        string // the ref that it was written for
	Size         int64
}

// A Scope has the permissions of a token for the entries of a ref.
type Scope struct {
	Scope      string // such as refs/heads/main or refs/pull/7/merge
	Permission Permission
}

// Permission is a set of rights.
type Permission int

// The permissions, as bits.
const (
	Read  Permission = 1
	Write Permission = 2
)

// Main is the scope of a server's own token.
const Main = "refs/heads/main"

type entry struct {
	Entry
	blob     string
	order    int // rises from entry to entry as they are finalized; 0 before
	notFound int // answers to come before it can be finalized
	seenFrom int // the first lookup, counted from 1, that sees it
}

// New makes a server that keeps its blobs in a container of its own.
func New(ctx context.Context, azurite *Azurite, options Options) (*Server, error) {
	blobs, err := azurite.newContainer(ctx)
	if err != nil {
		return nil, fmt.Errorf("start the cache service: %w", err)
	}
	return newServer(blobs, options), nil
}

// NewOn makes a server that keeps its blobs on the disk.
func NewOn(disk *Disk, options Options) *Server { return newServer(disk, options) }

func newServer(blobs storage, options Options) *Server {
	s := &Server{options: options, blobs: blobs, scopes: map[string][]Scope{}}
	may := Read | Write
	if options.ReadOnly {
		may &^= Write
	}
	if options.Unreadable {
		may &^= Read
	}
	s.token = s.TokenFor(Scope{Main, may})
	return s
}

// storage is where the blobs are.
type storage interface {
	// size is the length in bytes of a blob, or -1 if there is none.
	size(ctx context.Context, blob string) int64
	// signed is an address that gives the permissions for a blob until the given
	// time.
	signed(blob string, permissions sas.BlobPermissions, until time.Time) (string, error)
}

// Token is the bearer token that the server wants to see. It has the form of
// the runner's: a JWT with the claim "ac".
func (s *Server) Token() string { return s.token }

// TokenFor returns a further token, for a job with these permissions: it writes to the first
// scope that it may write to, and reads from all that it may read, in their order.
func (s *Server) TokenFor(scopes ...Scope) string {
	token := newToken(scopes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scopes[token] = scopes
	return token
}

// Entries returns all reserved entries, in the order of their reservation.
func (s *Server) Entries() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var entries []Entry
	for _, e := range s.entries {
		entries = append(entries, e.Entry)
	}
	return entries
}

// Env is the environment in which an action uses the server at the given
// address.
func (s *Server) Env(address string) map[string]string {
	return map[string]string{
		"ACTIONS_CACHE_SERVICE_V2": "True",
		"ACTIONS_RESULTS_URL":      address + "/",
		"ACTIONS_RUNTIME_TOKEN":    s.token,
	}
}

func newToken(scopes []Scope) string {
	ac, _ := json.Marshal(scopes)
	now := time.Now()
	claims, _ := json.Marshal(map[string]any{
		"ac":  string(ac),
		"scp": "Actions.Results:1:1",
		"nbf": now.Add(-time.Hour).Unix(),
		"exp": now.Add(24 * time.Hour).Unix(),
	})
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + part(claims) + "." + part([]byte(rand.Text()))
}

// failure is an error as twirp words it.
type failure struct {
	status  int
	code    string
	message string
}

func (f *failure) Error() string { return f.code + ": " + f.message }

const service = "/twirp/github.actions.results.api.v1.CacheService/"

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := s.answer(r)
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		var f *failure
		if !errors.As(err, &f) {
			f = &failure{http.StatusInternalServerError, "internal", err.Error()}
		}
		w.WriteHeader(f.status)
		body = answer{"code": f.code, "msg": f.message}
	}
	json.NewEncoder(w).Encode(body)
}

func (s *Server) answer(r *http.Request) (any, error) {
	method, ok := strings.CutPrefix(r.URL.Path, service)
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); !ok || r.Method != http.MethodPost || media != "application/json" {
		return nil, &failure{http.StatusNotFound, "bad_route", "no such call: " + r.Method + " " + r.URL.Path}
	}
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	scopes, known := s.scopes[token]
	s.mu.Unlock()
	if !bearer || !known {
		return nil, &failure{http.StatusUnauthorized, "unauthenticated", "this is not the token"}
	}
	c := &client{Server: s, scopes: scopes}
	switch method {
	case "CreateCacheEntry":
		return call(r, c.create)
	case "FinalizeCacheEntryUpload":
		return call(r, c.finalize)
	case "GetCacheEntryDownloadURL":
		return call(r, c.find)
	}
	return nil, &failure{http.StatusNotFound, "bad_route", "no such method: " + method}
}

// A client is the holder of a token of the server.
type client struct {
	*Server
	scopes []Scope
}

// writable is the scope that the client writes to, empty if there is none.
func (c *client) writable() string {
	for _, scope := range c.scopes {
		if scope.Permission&Write != 0 {
			return scope.Scope
		}
	}
	return ""
}

func call[Request interface{ check() error }](r *http.Request, answer func(context.Context, Request) (any, error)) (any, error) {
	var request Request
	decoder := json.NewDecoder(io.LimitReader(r.Body, 1<<20))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil {
		return nil, &failure{http.StatusBadRequest, "malformed", "the json request could not be decoded: " + err.Error()}
	}
	if err := request.check(); err != nil {
		return nil, &failure{http.StatusBadRequest, "invalid_argument", err.Error()}
	}
	return answer(r.Context(), request)
}

type createRequest struct {
	Key     string `json:"key"`
	Version string `json:"version"`
}

type finalizeRequest struct {
	Key     string  `json:"key"`
	Version string  `json:"version"`
	Size    integer `json:"size_bytes"`
}

type findRequest struct {
	Key         string   `json:"key"`
	RestoreKeys []string `json:"restore_keys"`
	Version     string   `json:"version"`
}

func (r createRequest) check() error { return check(r.Version, r.Key) }

func (r finalizeRequest) check() error {
	if r.Size <= 0 {
		return errors.New("size_bytes must be greater than 0")
	}
	return check(r.Version, r.Key)
}

func (r findRequest) check() error {
	if len(r.RestoreKeys) > 10 {
		return errors.New("too many restore_keys")
	}
	return check(r.Version, append(r.RestoreKeys, r.Key)...)
}

func check(version string, keys ...string) error {
	if len(version) != 64 {
		return errors.New("version must have 64 characters")
	}
	for _, key := range keys {
		if n := utf8.RuneCountInString(key); n < 1 || n > 512 || strings.Contains(key, ",") {
			return fmt.Errorf("key %q must have 1 to 512 characters and no comma", key)
		}
	}
	return nil
}

// integer is an int64 as protobuf's JSON has it: a string, or a number.
type integer int64

func (i *integer) UnmarshalJSON(data []byte) error {
	n, err := strconv.ParseInt(strings.Trim(string(data), `"`), 10, 64)
	*i = integer(n)
	return err
}

// answer is a message in JSON, with all of its fields.
type answer = map[string]any

func (c *client) create(_ context.Context, r createRequest) (any, error) {
	scope := c.writable()
	if scope == "" {
		return answer{"ok": false, "signed_upload_url": "", "message": "cache write denied: token has no writable scopes"}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reserved(scope, r.Key, r.Version) != nil {
		return nil, &failure{http.StatusConflict, "already_exists", "cache entry with the same key, version, and scope already exists"}
	}
	e := &entry{
		Entry:    Entry{Key: r.Key, Version: r.Version, Scope: scope},
		blob:     strings.ToLower(rand.Text()),
		notFound: c.options.NotFound,
	}
	address, err := c.blobs.signed(e.blob, sas.BlobPermissions{Create: true, Write: true}, time.Now().Add(time.Hour))
	if err != nil {
		return nil, err
	}
	c.entries = append(c.entries, e)
	return answer{"ok": true, "signed_upload_url": address, "message": ""}, nil
}

func (c *client) finalize(ctx context.Context, r finalizeRequest) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.reserved(c.writable(), r.Key, r.Version)
	if e == nil || e.order > 0 || e.notFound > 0 {
		if e != nil {
			e.notFound--
		}
		return nil, &failure{http.StatusNotFound, "not_found", "cache entry upload not found"}
	}
	if size := c.blobs.size(ctx, e.blob); size != int64(r.Size) {
		return nil, &failure{http.StatusBadRequest, "invalid_argument", fmt.Sprintf("size_bytes is %d, but %d were uploaded", r.Size, size)}
	}
	c.order++
	e.order = c.order
	e.Size = int64(r.Size)
	e.seenFrom = c.lookups + c.options.Lag + 1
	return answer{"ok": true, "entry_id": strconv.Itoa(e.order), "message": ""}, nil
}

func (c *client) find(_ context.Context, r findRequest) (any, error) {
	scopes := slices.DeleteFunc(slices.Clone(c.scopes), func(scope Scope) bool { return scope.Permission&Read == 0 })
	if len(scopes) == 0 {
		return nil, &failure{http.StatusForbidden, "permission_denied", "cache read denied: token has no readable scopes"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lookups++
	var found *entry
	prefixes := r.RestoreKeys
	if c.options.KeyRule == KeyPrefix {
		prefixes = append([]string{r.Key}, prefixes...)
	}
	for _, scope := range scopes {
		if found == nil && c.options.KeyRule != KeyIgnored {
			found = c.newest(scope.Scope, r.Version, func(key string) bool { return key == r.Key })
		}
		for _, prefix := range prefixes {
			if found == nil {
				found = c.newest(scope.Scope, r.Version, func(key string) bool { return strings.HasPrefix(key, prefix) })
			}
		}
	}
	if found == nil {
		return answer{"ok": false, "signed_download_url": "", "matched_key": ""}, nil
	}
	until := time.Now().Add(10 * time.Minute)
	if c.options.Expired > 0 {
		c.options.Expired--
		until = time.Now().Add(-time.Minute)
	}
	address, err := c.blobs.signed(found.blob, sas.BlobPermissions{Read: true}, until)
	if err != nil {
		return nil, err
	}
	return answer{"ok": true, "signed_download_url": address, "matched_key": found.Key}, nil
}

// reserved is the entry of that scope, key and version, finished or not, or nil.
func (s *Server) reserved(scope, key, version string) *entry {
	for _, e := range s.entries {
		if e.Scope == scope && e.Key == key && e.Version == version {
			return e
		}
	}
	return nil
}

// newest is the entry of the scope that was finished last of those whose key
// matches, or nil.
func (s *Server) newest(scope, version string, matches func(key string) bool) *entry {
	var newest *entry
	for _, e := range s.entries {
		visible := e.order > 0 && s.lookups >= e.seenFrom
		if visible && e.Scope == scope && e.Version == version && matches(e.Key) && (newest == nil || e.order > newest.order) {
			newest = e
		}
	}
	return newest
}
