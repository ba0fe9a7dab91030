package actions_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/actions"
	"github.com/org/nix-matrix/pkg/httpcall"
)

// TestAnswersV1 has a server answer as GitHub Enterprise Server does where act
// does not.
func TestAnswersV1(t *testing.T) {
	const (
		lookup  = "GET /base/_apis/artifactcache/cache"
		reserve = "POST /base/_apis/artifactcache/caches"
		upload  = "PATCH /base/_apis/artifactcache/caches/7"
		commit  = "POST /base/_apis/artifactcache/caches/7"
	)
	for _, test := range []struct {
		name   string
		route  string // that gets this answer, the others a good one
		status int
		body   string
		want   error
		says   string
	}{
		{name: "all well"},
		{"conflict", reserve, 409, "\ufeff" + `{"typeKey":"ArtifactCacheItemAlreadyExistsException","message":"Cache already exists. Scope: refs/heads/main"}`, cache.ErrExists, "already exists"},
		{"conflict by another status", reserve, 400, `{"typeKey":"ArtifactCacheItemAlreadyExistsException"}`, cache.ErrExists, ""},
		{"write denied", reserve, 403, `{"message":"cache write denied: token has no writable scopes"}`, cache.ErrReadOnly, ""},
		{"too large", reserve, 400, `{"message":"Cache size of 11 GB is over the limit"}`, errAny, "over the limit"},
		{"no number", reserve, 200, `{}`, errAny, "has no number"},
		{"part refused", upload, 400, `{}`, errAny, "upload"},
		{"commit refused", commit, 400, `{"message":"sizes differ"}`, errAny, "sizes differ"},
		{"read denied", lookup, 403, `{"message":"cache read denied: none"}`, nil, ""},
		{"lookup fails", lookup, 400, `{"message":"bad version"}`, errAny, "bad version"},
		{"found", lookup, 200, `{"cacheKey":"key","archiveLocation":"http://a/"}`, cache.ErrExists, ""},
		{"found a longer one", lookup, 200, `{"cacheKey":"key-2","archiveLocation":"http://a/"}`, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var uploaded strings.Builder
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer token" || r.Header.Get("Accept") != "application/json;api-version=6.0-preview.1" {
					t.Errorf("header: %v", r.Header)
				}
				route := r.Method + " " + r.URL.Path
				switch {
				case route == test.route:
					w.WriteHeader(test.status)
					io.WriteString(w, test.body)
				case route == lookup:
					w.WriteHeader(http.StatusNoContent)
				case route == reserve:
					io.WriteString(w, "\ufeff"+`{"cacheId":7}`)
				case route == upload && r.Header.Get("Content-Range") == "bytes 0-3/*" && r.ContentLength == 4:
					io.Copy(&uploaded, r.Body)
				case route == commit:
				default:
					t.Errorf("unexpected %s %v", route, r.Header)
				}
			}))
			defer server.Close()
			c := actions.New(actions.Config{Protocol: actions.V1, URL: server.URL + "/base", Token: actions.NewToken("token"), Wait: time.Microsecond})
			err := c.Save(t.Context(), "key", strings.NewReader("text"), 4)
			switch {
			case test.want == nil && (err != nil || uploaded.String() != "text"):
				t.Errorf("uploaded %q, %v", uploaded.String(), err)
			case test.want != nil && (err == nil || test.want != errAny && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says)):
				t.Errorf("error: %v, want %v with %q", err, test.want, test.says)
			}
		})
	}
}

// TestUploadRepeatedV1 has the server lose a part of the body.
func TestUploadRepeatedV1(t *testing.T) {
	var parts []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet:
			w.WriteHeader(http.StatusNoContent)
		case http.MethodPatch:
			body, _ := io.ReadAll(r.Body)
			parts = append(parts, r.Header.Get("Content-Range")+" "+string(body))
			if len(parts) == 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		default:
			io.WriteString(w, `{"cacheId":7}`)
		}
	}))
	defer server.Close()
	c := actions.New(actions.Config{Protocol: actions.V1, URL: server.URL, Wait: time.Microsecond, BlockSize: 2, Parallel: 1})
	if err := c.Save(t.Context(), "key", strings.NewReader("abcde"), 5); err != nil {
		t.Fatal(err)
	}
	want := "bytes 0-1/* ab, bytes 2-3/* cd, bytes 2-3/* cd, bytes 4-4/* e"
	if got := strings.Join(parts, ", "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The statuses of refusals are known to callers, and so is which servers may accept two saves.
func TestRefusalStatus(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"ok":false,"message":"insufficient usage"}`)
	}))
	defer server.Close()
	c := actions.New(actions.Config{Protocol: actions.V2, URL: server.URL, Token: actions.NewToken("token"), Wait: time.Microsecond})
	err := c.Save(t.Context(), "key", strings.NewReader("text"), 4)
	var status *httpcall.StatusError
	if !errors.As(err, &status) || status.Status != http.StatusOK {
		t.Errorf("%v", err)
	}
	if cache.LastWins(c) || !cache.LastWins(actions.New(actions.Config{Protocol: actions.V1})) {
		t.Error("act is what does not reserve keys")
	}
}
