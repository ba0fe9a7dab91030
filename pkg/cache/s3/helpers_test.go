package s3_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/s3"
)

// configs returns the configs of empty prefixes of a server.
func configs(endpoint string) func(t *testing.T) s3.Config {
	return func(t *testing.T) s3.Config {
		t.Helper()
		a, err := s3.ParseAddress("s3://bucket/" + cache.Escape(t.Name()) + "?scheme=http&endpoint=" + endpoint)
		if err != nil {
			t.Fatal(err)
		}
		return s3.Config{
			Address: a, Credentials: credentials(t, testbench.VersityUser, testbench.VersitySecret),
			Wait: time.Microsecond, PartSize: 5 << 20,
			Warn: func(title string, err error) { t.Logf("warning: %s: %v", title, err) },
		}
	}
}

func credentials(t *testing.T, user, secret string) s3.Credentials {
	t.Helper()
	c, err := s3.CredentialsFrom(environment("AWS_ACCESS_KEY_ID=" + user + "\nAWS_SECRET_ACCESS_KEY=" + secret))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func environment(lines string) func(string) string {
	return func(name string) string {
		for line := range strings.Lines(lines) {
			if n, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && n == name {
				return value
			}
		}
		return ""
	}
}

func open(t *testing.T, config s3.Config) *s3.Bucket {
	t.Helper()
	b, err := s3.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A hook answers requests in the place of a server, or passes them on.
type hook func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error)

// RoundTrip is of [http.RoundTripper].
func (h hook) RoundTrip(req *http.Request) (*http.Response, error) {
	return h(req, http.DefaultTransport.RoundTrip)
}

// reply is an answer of a server.
func reply(req *http.Request, status int, body string) *http.Response {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)), Request: req,
	}
}

// refuse is an error of S3.
func refuse(req *http.Request, status int, code string) *http.Response {
	return reply(req, status, "<Error><Code>"+code+"</Code><Message>says the server.</Message></Error>")
}

// kind says what a request is for.
func kind(req *http.Request) string {
	query := req.URL.Query()
	switch {
	case query.Has("list-type"):
		return "list"
	case query.Has("uploads") && req.Method == http.MethodPost:
		return "start"
	case query.Has("uploadId"):
		return map[string]string{http.MethodPut: "part", http.MethodPost: "complete", http.MethodDelete: "abort"}[req.Method]
	}
	return map[string]string{http.MethodGet: "get", http.MethodHead: "head", http.MethodPut: "put", http.MethodDelete: "remove"}[req.Method]
}

func read(t *testing.T, c cache.Cache, key string, prefixes ...string) string {
	t.Helper()
	blob, err := c.Open(t.Context(), key, prefixes...)
	if err != nil {
		return "error: " + err.Error()
	}
	data, err := cache.ReadAll(t.Context(), blob, 64<<20)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(data)
}
