package githubtest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// Options say what a server has and what its token may do.
type Options struct {
	// Repository is OWNER/NAME; by default org/fleet.
	Repository string
	// Base is the path before all others, as an Enterprise Server's /api/v3.
	Base string
	// Permissions are those of the token: read or write, by their names in a workflow.
	Permissions map[string]string
	// Login is who the token belongs to. A job's own token has none, and comments as
	// github-actions[bot].
	Login string
	// Hidden says that the token may not know of the repository.
	Hidden bool
	// Visibility is the repository's: public by default, private or internal.
	Visibility string

	Caches   []Cache
	Comments []Comment // on the pull request 7
	// Commits and Branches are those of the repository: commits by their hashes, the hashes by branch.
	Commits  map[string]Commit
	Branches map[string]string
	Pulls    []Pull
	// NoPulls says that a workflow's own token may not make pull requests, NoAutoMerge that none merges itself.
	NoPulls, NoAutoMerge bool
	// Changed is called after each change, before the answer.
	Changed func(caches []Cache, comments []Comment)
	// PullsChanged is called after each change of a branch or a pull request, with the last commits of branches.
	PullsChanged func(pulls []Pull, tips map[string]Commit)
	// CheckRuns are those of Heads, which are all commits that there are; none are any.
	CheckRuns []CheckRun
	Heads     []string
	// Writes is how many requests that make something the server takes until RetryAfter, in seconds, has
	// passed, of which only 0 ever has; 0 is no limit.
	Writes, RetryAfter int
	// ChecksChanged is called after each change, before the answer.
	ChecksChanged func(checks []CheckRun)
}

// A Cache is an entry of the Actions cache. Those without an id get one.
type Cache struct {
	ID            int64
	Key, Ref      string
	Size          int64
	Created, Used time.Time
}

// A Comment is one on the pull request.
type Comment struct {
	ID           int64
	Author, Body string
}

// The objects of a server.
const (
	PullRequest = 7
	Run         = 5
	Attempt     = 2
)

// Server is a running stand-in.
type Server struct {
	URL   string // for GITHUB_API_URL
	Token string

	options  Options
	mu       sync.Mutex
	last     int64 // id that was given out
	written  int   // requests since the last limit
	failures []Failure
	requests []string
	trees    map[string]map[string]string // files, by the hash of their tree
}

// A Failure is an answer that a server gives in place of the right one; the zero value
// is the right one.
type Failure struct {
	// Status 0 is the ordinary answer with Header added.
	Status int
	Header map[string]string
	// Secondary words it as a secondary rate limit.
	Secondary bool
	// Gone breaks the connection after the request was carried out, Half in the middle
	// of the answer.
	Gone, Half bool
}

// Start starts a server for as long as the test runs.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	if options.Repository == "" {
		options.Repository = "org/fleet"
	}
	if options.Visibility == "" {
		options.Visibility = "public"
	}
	s := &Server{Token: "ghs_" + rand.Text(), options: options}
	for i := range s.options.Caches {
		if c := &s.options.Caches[i]; c.ID == 0 {
			c.ID = s.next()
		}
	}
	for i := range s.options.Comments {
		s.options.Comments[i].ID = s.next()
	}
	for i := range s.options.CheckRuns {
		s.options.CheckRuns[i].ID = s.next()
	}
	listening := httptest.NewServer(s)
	t.Cleanup(listening.Close)
	s.URL = listening.URL + options.Base
	return s
}

func (s *Server) next() int64 {
	s.last++
	return s.last
}

// Getenv is the environment of a job, in the form of os.Getenv.
func (s *Server) Getenv(name string) string { return s.Env()[name] }

// Env is the environment of a job.
func (s *Server) Env() map[string]string {
	return map[string]string{
		"GITHUB_API_URL":          s.URL,
		"GITHUB_REPOSITORY":       s.options.Repository,
		"GITHUB_RUN_ID":           fmt.Sprint(Run),
		"GITHUB_RUN_ATTEMPT":      fmt.Sprint(Attempt),
		"NIX_MATRIX_GITHUB_TOKEN": s.Token,
	}
}

// Fail has the next requests fail, in that order.
func (s *Server) Fail(failures ...Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, failures...)
}

// Requests are those that came, without their addresses' base: GET /user.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Caches are the entries that there are.
func (s *Server) Caches() []Cache {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.options.Caches)
}

// Comments are those that there are.
func (s *Server) Comments() []Comment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.options.Comments)
}

// answer is what a server says.
type answer struct {
	status int
	header http.Header
	body   any
}

func refuse(status int, message string, arguments ...any) answer {
	return answer{status: status, body: map[string]any{
		"message": fmt.Sprintf(message, arguments...), "status": fmt.Sprint(status),
		"documentation_url": "https://docs.github.com/rest",
	}}
}

var notFound = refuse(http.StatusNotFound, "Not Found")

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.TrimPrefix(r.URL.RequestURI(), s.options.Base)
	s.requests = append(s.requests, r.Method+" "+path)
	var failure Failure
	if len(s.failures) > 0 {
		failure, s.failures = s.failures[0], s.failures[1:]
	}
	var said answer
	if failure.Status != 0 {
		said = failure.answer()
	} else if said = s.headers(r); said.status == 0 {
		if said = s.limited(r); said.status == 0 {
			said = s.route(r)
		}
	}
	if failure.Status == 0 && len(failure.Header) > 0 {
		said.header = said.header.Clone()
		if said.header == nil {
			said.header = http.Header{}
		}
		for name, value := range failure.Header {
			said.header.Set(name, value)
		}
	}
	if failure.Gone {
		panic(http.ErrAbortHandler)
	}
	for name, values := range said.header {
		w.Header()[name] = values
	}
	w.Header().Set("X-GitHub-Request-Id", rand.Text())
	if said.body == nil {
		w.WriteHeader(said.status)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if failure.Half {
		w.Header().Set("Content-Length", "1000000")
		w.Write([]byte("{"))
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(said.status)
	json.NewEncoder(w).Encode(said.body)
}

func (f Failure) answer() answer {
	said := refuse(f.Status, "Something went wrong")
	if f.Secondary {
		said.body = map[string]any{
			"message":           "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
			"documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits",
		}
	}
	said.header = http.Header{}
	for name, value := range f.Header {
		said.header.Set(name, value)
	}
	return said
}

// headers checks what all requests must have. It gives no status if all is well.
func (s *Server) headers(r *http.Request) answer {
	if r.Header.Get("User-Agent") == "" {
		return refuse(http.StatusForbidden, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header")
	}
	for accepted := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		media, _, err := mime.ParseMediaType(accepted)
		if err != nil || !strings.HasPrefix(media, "application/vnd.github.") {
			return refuse(http.StatusBadRequest, "Accept: %q is not of application/vnd.github", accepted)
		}
	}
	if version := r.Header.Get("X-GitHub-Api-Version"); version != "2022-11-28" {
		return refuse(http.StatusBadRequest, "X-GitHub-Api-Version: %q is not a version", version)
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if scheme = strings.ToLower(scheme); scheme != "bearer" && scheme != "token" || token != s.Token {
		return refuse(http.StatusUnauthorized, "Bad credentials")
	}
	return answer{}
}

// may reports whether the token has one of the permissions, and refuses it otherwise. It
// gives no status if it has.
func (s *Server) may(access string, permissions ...string) answer {
	if s.options.Hidden {
		return notFound
	}
	for _, permission := range permissions {
		// Every token of a job may know that the repository is there.
		if has := s.options.Permissions[permission]; has == access || has == "write" || permission == "metadata" {
			return answer{}
		}
	}
	accepted := make([]string, len(permissions))
	for i, permission := range permissions {
		accepted[i] = strings.ReplaceAll(permission, "-", "_") + "=" + access
	}
	said := refuse(http.StatusForbidden, "Resource not accessible by integration")
	said.header = http.Header{"X-Accepted-Github-Permissions": {strings.Join(accepted, "; ")}}
	return said
}

// changed tells of a change.
func (s *Server) changed() {
	if s.options.Changed != nil {
		s.options.Changed(s.options.Caches, s.options.Comments)
	}
	if s.options.PullsChanged != nil {
		tips := map[string]Commit{}
		for branch, sha := range s.options.Branches {
			tips[branch] = s.options.Commits[sha]
		}
		s.options.PullsChanged(s.options.Pulls, tips)
	}
	if s.options.ChecksChanged != nil {
		s.options.ChecksChanged(s.options.CheckRuns)
	}
}

// body reads the one field of a comment.
func body(r *http.Request) (string, answer) {
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != "application/json" {
		return "", refuse(http.StatusUnsupportedMediaType, "Content-Type: %q is not application/json", media)
	}
	decoder := json.NewDecoder(io.LimitReader(r.Body, 1<<20))
	decoder.DisallowUnknownFields()
	var comment struct{ Body string }
	if err := decoder.Decode(&comment); err != nil {
		return "", refuse(http.StatusBadRequest, "Problems parsing JSON: %v", err)
	}
	const most = 65536
	if n := utf8.RuneCountInString(comment.Body); n == 0 || n > most {
		said := refuse(http.StatusUnprocessableEntity, "Validation Failed")
		said.body.(map[string]any)["errors"] = []map[string]string{{
			"resource": "IssueComment", "field": "data", "code": "unprocessable",
			"message": fmt.Sprintf("body is too long (maximum is %d characters)", most),
		}}
		return "", said
	}
	return comment.Body, answer{}
}
