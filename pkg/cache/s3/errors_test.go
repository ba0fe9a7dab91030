package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/s3"
	"github.com/org/nix-matrix/pkg/httpcall"
)

// Each refusal has a name and a next step, and shows no secret.
func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		status   int
		code     string
		header   string // value of x-amz-bucket-region
		want     error
		next     string
		readOnly bool
	}{
		{403, "AccessDenied", "", s3.ErrDenied, "s3:PutObject", true},
		{401, "Whatever", "", s3.ErrDenied, "s3:GetObject", true},
		{403, "InvalidAccessKeyId", "", s3.ErrCredentials, "AWS_ACCESS_KEY_ID", true},
		{403, "SignatureDoesNotMatch", "", s3.ErrCredentials, "AWS_SECRET_ACCESS_KEY", true},
		{400, "ExpiredToken", "", s3.ErrCredentials, "AWS_SESSION_TOKEN", true},
		{403, "RequestTimeTooSkewed", "", s3.ErrClock, "time service", false},
		{404, "NoSuchBucket", "", s3.ErrNoBucket, "correct the address", false},
		{301, "PermanentRedirect", "eu-central-1", s3.ErrRegion, "Write region=eu-central-1 in", false},
		{400, "AuthorizationHeaderMalformed", "eu-west-3", s3.ErrRegion, "Write region=eu-west-3 in", false},
		{301, "PermanentRedirect", "", s3.ErrRegion, "region=REGION", false},
		{400, "AuthorizationHeaderMalformed", "::error::x", s3.ErrRegion, "region=REGION", false},
		{400, "InvalidRequest", "", nil, "the server answers 400 InvalidRequest", false},
	} {
		t.Run(fmt.Sprint(test.status, " ", test.code, " ", test.header), func(t *testing.T) {
			config := configs("127.0.0.1:1")(t)
			requests, warnings := 0, 0
			config.Warn = func(string, error) { warnings++ }
			config.Transport = hook(func(req *http.Request, _ func(*http.Request) (*http.Response, error)) (*http.Response, error) {
				requests++
				resp := reply(req, test.status, "<Error><Code>"+test.code+"</Code><Message>secret-of-the-testbench\n::error::x"+strings.Repeat("x", 5000)+"</Message></Error>")
				if test.header != "" {
					resp.Header.Set("x-amz-bucket-region", test.header)
				}
				return resp, nil
			})
			c := open(t, config).Cache(s3.Scope{})
			_, opening := c.Open(t.Context(), "key", "k")
			saving := c.Save(t.Context(), "key", strings.NewReader("text"), 4)
			for _, err := range []error{opening, saving} {
				text := fmt.Sprint(err)
				if test.want != nil && !errors.Is(err, test.want) || !strings.Contains(text, test.next) || errors.Is(err, cache.ErrReadOnly) != test.readOnly {
					t.Errorf("error: %s", text)
				}
				if strings.Contains(text, "secret-of-the") || strings.Contains(text, "\n") || len(text) > 700 || errors.Is(err, cache.ErrMiss) {
					t.Errorf("it shows too much, or is a miss: %s", text)
				}
			}
			if requests > 3 || warnings != map[bool]int{true: 1}[test.readOnly] {
				t.Errorf("%d requests, %d warnings", requests, warnings)
			}
		})
	}
}

// An endpoint that cannot be used is named.
func TestEndpoints(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	config := configs(strings.TrimPrefix(server.URL, "http://"))(t)
	config.Plain = false
	_, err := open(t, config).Cache(s3.Scope{}).Open(t.Context(), "key")
	if !errors.Is(err, s3.ErrEndpoint) || !strings.Contains(err.Error(), "scheme=http") {
		t.Errorf("http: %v", err)
	}
	config.Transport = hook(func(*http.Request, func(*http.Request) (*http.Response, error)) (*http.Response, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "no.example", IsNotFound: true}
	})
	_, err = open(t, config).Cache(s3.Scope{}).Open(t.Context(), "key")
	if !errors.Is(err, s3.ErrEndpoint) || !strings.Contains(err.Error(), "there is no host no.example") {
		t.Errorf("no host: %v", err)
	}
}

// An endless answer, or listing, ends.
func TestEndless(t *testing.T) {
	config := configs("127.0.0.1:1")(t)
	config.Retries = -1
	config.Transport = hook(func(req *http.Request, _ func(*http.Request) (*http.Response, error)) (*http.Response, error) {
		resp := reply(req, http.StatusOK, "")
		resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("<ListBucketResult><Name>"), endless{}))
		return resp, nil
	})
	if _, err := open(t, config).Cache(s3.Scope{}).List(t.Context(), "key"); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("List: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// A transfer without progress ends after a time and is sent again, also within an answer. A slow one
// that goes on is none.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := configs("127.0.0.1:1")(t)
		config.Wait, config.Stall, config.Retries = time.Second, 20*time.Second, 3
		tries := 0
		config.Transport = hook(func(req *http.Request, _ func(*http.Request) (*http.Response, error)) (*http.Response, error) {
			tries++
			switch tries {
			case 1: // no answer
				<-req.Context().Done()
				return nil, req.Context().Err()
			case 2: // a part of it
				resp := reply(req, http.StatusPartialContent, "")
				resp.Header.Set("Content-Range", "bytes 0-3/4")
				resp.Header.Set("Content-Length", "4")
				resp.Header.Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
				resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("te"), hanging{req.Context()}))
				return resp, nil
			}
			resp := reply(req, http.StatusPartialContent, "text")
			resp.Header.Set("Content-Range", "bytes 0-3/4")
			resp.Header.Set("Content-Length", "4")
			resp.Header.Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			return resp, nil
		})
		start := time.Now()
		got := read(t, open(t, config).Cache(s3.Scope{}), "key")
		if took := time.Since(start); got != "text" || took < 41*time.Second || took > 50*time.Second {
			t.Errorf("%s after %s", got, took)
		}
		tries = 0
		config.Retries = -1
		_, err := open(t, config).Cache(s3.Scope{}).Open(t.Context(), "key")
		var stalled *httpcall.StalledError
		if !errors.As(err, &stalled) {
			t.Errorf("without retries: %v", err)
		}
	})
}

type hanging struct{ ctx context.Context }

func (h hanging) Read([]byte) (int, error) {
	<-h.ctx.Done()
	return 0, h.ctx.Err()
}

func TestCredentials(t *testing.T) {
	for _, test := range []struct{ env, want string }{
		{"", "anonymous"},
		{"AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b", ""},
		{"AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY is not: set both or none"},
		{"AWS_SECRET_ACCESS_KEY=topsecret", "AWS_ACCESS_KEY_ID is not: set both or none"},
	} {
		c, err := s3.CredentialsFrom(environment(test.env))
		switch {
		case test.want == "anonymous" || test.want == "":
			if err != nil || c.Anonymous() != (test.want != "") {
				t.Errorf("%q: %v, %v", test.env, c.Anonymous(), err)
			}
		case err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "topsecret"):
			t.Errorf("%q: %v", test.env, err)
		}
	}
	c := credentials(t, "user", "topsecret")
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		if text := fmt.Sprintf(format, s3.Config{Credentials: c}); strings.Contains(text, "topsecret") {
			t.Errorf("%s shows the secret", format)
		}
	}
	if region, err := s3.RegionFrom(environment("AWS_DEFAULT_REGION=eu-west-1")); region != "eu-west-1" || err != nil {
		t.Errorf("region %q, %v", region, err)
	}
	if _, err := s3.RegionFrom(environment("AWS_REGION=eu west")); err == nil {
		t.Error("a region with a blank passes")
	}
}
