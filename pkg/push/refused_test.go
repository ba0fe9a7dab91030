package push

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push/attic/attictest"
)

// statusOf returns the status of a refusal, or 0 for any other error, or -1 for none.
func statusOf(err error) int {
	var refused *RefusedError
	switch {
	case err == nil:
		return -1
	case errors.As(err, &refused):
		return refused.Status
	default:
		return 0
	}
}

// An answer of an http binary cache is final where Nix takes it so, and no other answer.
func TestHTTPRefuses(t *testing.T) {
	for status, want := range map[int]int{200: -1, 401: 401, 403: 403, 404: -1, 429: -1, 500: -1, 503: -1} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.String() != "/a/nix-cache-info" {
					t.Errorf("%s %s", r.Method, r.URL)
				}
				w.WriteHeader(status)
			}))
			defer server.Close()
			for _, address := range []string{server.URL + "/a", server.URL + "/a/", server.URL + "/a?compression=zstd&parallel-compression=true"} {
				d, err := Parse(address)
				if err == nil {
					err = d.Dial(t.Context(), Secrets{PublicKey: "key-1:AAAA"})
				}
				if got := statusOf(err); got != want || len(d.PublicKeys) != 1 {
					t.Errorf("%s: got %d, want %d: %v", address, got, want, err)
				}
			}
		})
	}
	for _, address := range []string{"http://127.0.0.1:1", "file:///nowhere", "s3://bucket"} {
		d, err := Parse(address)
		if err == nil {
			err = d.Dial(t.Context(), Secrets{})
		}
		if err != nil {
			t.Errorf("%s, which can't be asked: %v", address, err)
		}
	}
}

// The user and password are those that Nix would use: of the address, else of the netrc.
func TestHTTPLogin(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "cache" || password != "sesame" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for name, test := range map[string]struct {
		address, netrc string
		want           int
	}{
		"none":                      {server.URL, "", 401},
		"the address":               {"http://cache:sesame@" + host, "", -1},
		"wrong in the address":      {"http://cache:wrong@" + host, "machine 127.0.0.1 login cache password sesame", 401},
		"netrc":                     {server.URL, "machine example.org password x\nmachine 127.0.0.1 login cache password sesame\nmachine other login a password b", -1},
		"netrc, its last line":      {server.URL, "machine 127.0.0.1\n\tpassword sesame\n\tlogin cache\n", -1},
		"netrc, by default":         {server.URL, "machine other login a password b\ndefault login cache password sesame", -1},
		"netrc, the first counts":   {server.URL, "machine 127.0.0.1 login cache password wrong machine 127.0.0.1 login cache password sesame", 401},
		"netrc of another":          {server.URL, "machine other login cache password sesame", 401},
		"a netrc that has no end":   {server.URL, "machine 127.0.0.1 login", 401},
		"a password called machine": {server.URL, "machine other password machine machine 127.0.0.1 login cache password sesame", -1},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse(test.address)
			if err == nil {
				err = d.Dial(t.Context(), Secrets{Netrc: test.netrc})
			}
			if got := statusOf(err); got != test.want || err != nil && strings.Contains(err.Error(), "wrong") {
				t.Errorf("got %d, want %d: %v", got, test.want, err)
			}
		})
	}
}

// Attic's answers to a token, before and at the push.
func TestAtticRefuses(t *testing.T) {
	server := attictest.Start(t, attictest.Options{Cache: "fleet"})
	push := server.Token(true, true)
	for name, test := range map[string]struct {
		cache, token string
		want         int
	}{
		"no token":           {"fleet", "", 401},
		"one that is wrong":  {"fleet", "wrong", 401},
		"one without pull":   {"fleet", server.Token(false, true), 403},
		"a cache that's not": {"other", push, 404},
		"the right one":      {"fleet", push, -1},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse("attic:" + server.URL + "/" + test.cache)
			if err == nil {
				err = d.Dial(t.Context(), Secrets{AtticToken: test.token})
			}
			if got := statusOf(err); got != test.want {
				t.Errorf("got %d, want %d: %v", got, test.want, err)
			}
		})
	}
	d, err := Parse("attic:" + server.URL + "/fleet")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = d.Push(t.Context(), closures{}, []string{"/nix/store/00000000000000000000000000000000-a"}, Secrets{AtticToken: server.Token(true, false)}); statusOf(err) != 403 {
		t.Errorf("a token that may only pull: %v", err)
	}
	const path = "/nix/store/00000000000000000000000000000000-a"
	if d, err = Parse("attic:" + server.URL + "/fleet"); err != nil {
		t.Fatal(err)
	}
	sent, err := d.Push(t.Context(), closures{}, []string{path, path + ".drv!*"}, Secrets{AtticToken: push})
	if err != nil || sent.Paths != 1 || !server.Has(path) {
		t.Errorf("a path and its derivation: %+v, %v", sent, err)
	}
	gone := attictest.Start(t, attictest.Options{Cache: "fleet", Before: func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusBadRequest)
		return true
	}})
	if d, err = Parse("attic:" + gone.URL + "/fleet"); err == nil {
		err = d.Dial(t.Context(), Secrets{AtticToken: push})
	}
	if statusOf(err) != 0 {
		t.Errorf("another answer: %v", err)
	}
}

// closures is a Nix of which all paths are alone.
type closures struct{ Nix }

func (closures) Closure(_ context.Context, paths ...string) (map[string]nix.PathInfo, error) {
	infos := map[string]nix.PathInfo{}
	for _, path := range paths {
		infos[path] = nix.PathInfo{Path: path, NarHash: fmt.Sprintf("%x", sha256.Sum256([]byte("x"))), NarSize: 1}
	}
	return infos, nil
}

func (closures) NAR(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("x")), nil
}

// The status of a server's answer is in the messages of Nix and Cachix's program.
func TestProgramsRefused(t *testing.T) {
	for message, want := range map[string]int{
		"unable to upload 'http://a/nar/x.nar.zst': HTTP error 401 ('Unauthorized')":                   401,
		"unable to upload 'http://a/nar/x.nar.zst': HTTP error 403\nresponse body:\nHTTP error 404":    403,
		"unable to download 'http://a/nix-cache-info': HTTP error 500\nresponse body:\nHTTP error 401": 0,
		"FailureResponse (Request {}) (Response {responseStatusCode = Status {statusCode = 401, stat":  401,
		"FailureResponse (Request {}) (Response {responseStatusCode = Status {statusCode = 503, stat":  0,
		"'http://a' does not appear to be a binary cache":                                              0,
		"the derivation http-error-401 failed, and so did HTTP error 4040":                             0,
	} {
		if got := statusOf(refusedBy(fmt.Errorf("copy: %w", &nix.Error{Program: "nix", Message: message}))); got != want {
			t.Errorf("%s: got %d, want %d", message, got, want)
		}
	}
}

func TestCachixRefuses(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for status, want := range map[int]int{401: 401, 403: 403, 404: 404, 500: 0, 429: 0} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		defer server.Close()
		d := Destination{Name: "cachix:fleet", kind: &cachixCache{name: "fleet", api: server.URL + "/"}}
		if got := statusOf(d.Dial(t.Context(), Secrets{CachixToken: "t"})); got != want {
			t.Errorf("%d: got %d, want %d", status, got, want)
		}
	}
}
