package s3_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/s3"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{ // fields, or the error
		"s3://my-bucket": "{my-bucket   false  }",
		"s3://my-bucket/me/fleet/?region=eu-central-1":                   "{my-bucket me/fleet  false eu-central-1 }",
		"s3://my.bucket/x?endpoint=id.r2.example.com&region=auto":        "{my.bucket x id.r2.example.com false auto }",
		"s3://bucket?endpoint=http://127.0.0.1:9000":                     "{bucket  127.0.0.1:9000 true  }",
		"s3://bucket?endpoint=https://host.example:9000/":                "{bucket  host.example:9000 false  }",
		"s3://bucket?endpoint=[::1]:9000&scheme=http&branch=release/1.0": "{bucket  [::1]:9000 true  release/1.0}",

		"":                                   "must be s3://BUCKET/PREFIX",
		"S3://bucket":                        "must be s3://BUCKET/PREFIX",
		"s3://":                              "must have a bucket",
		"s3://ab":                            "must have a bucket",
		"s3://Bucket":                        "must have a bucket",
		"s3://a..b":                          "must have a bucket",
		"s3://127.0.0.1/x":                   "must have a bucket",
		"s3://-bucket":                       "must have a bucket",
		"s3://bucket/a//b":                   "must have a prefix",
		"s3://bucket/../b":                   "must have a prefix",
		"s3://bucket/a b":                    "must have a prefix",
		"s3://bucket/%2e%2e":                 "must have a prefix",
		"s3://bucket/.hidden":                "must have a prefix",
		"s3://bucket/" + long(201):           "must have a prefix of at most 200",
		"s3://bucket?regoin=x":               `has no parameter "regoin" (did you mean region?); there are endpoint, region, scheme, branch`,
		"s3://bucket?profile=x":              `has no parameter "profile"`,
		"s3://bucket?region=a&region=b":      "must have the parameter region once",
		"s3://bucket?region=":                "must have a region",
		"s3://bucket?region=a/b":             "must have a region",
		"s3://bucket?scheme=http":            "must have an endpoint with the scheme http",
		"s3://bucket?scheme=ftp":             "must have the scheme http or https",
		"s3://bucket?endpoint=":              "must have an endpoint",
		"s3://bucket?endpoint=h/path":        "must have an endpoint",
		"s3://bucket?endpoint=h:0":           "must have an endpoint",
		"s3://bucket?endpoint=h:99999":       "must have an endpoint",
		"s3://bucket?endpoint=-x":            "must have an endpoint",
		"s3://bucket?branch=-x":              "must have the name of a branch",
		"s3://bucket?branch=a..b":            "must have the name of a branch",
		"s3://bucket?a=b;c=d":                "must have parameters",
		"s3://user:s3cret@bucket":            "must not contain credentials",
		"s3://bucket/x@s3cret":               "must not contain credentials",
		"s3://bucket?access_key=s3cret":      "must not contain credentials",
		"s3://bucket?Secret%4Bey=s3cret":     "must not contain credentials",
		"s3://bucket?X-Amz-Signature=s3cret": "must not contain credentials",
		"s3://bucket?%zz=s3cret":             "must not contain credentials",
		"s3://bucket?endpoint=u:s3cret@h":    "must not contain credentials",
	} {
		t.Run(text, func(t *testing.T) {
			a, err := s3.ParseAddress(text)
			got := fmt.Sprint(struct {
				Bucket, Prefix, Endpoint string
				Plain                    bool
				Region, Branch           string
			}(a))
			if strings.HasPrefix(want, "{") && (err != nil || got != want) {
				t.Errorf("got %s, %v, want %s", got, err, want)
			}
			if !strings.HasPrefix(want, "{") && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("error %v, want %s", err, want)
			}
			if secret := strings.Contains(text, "s3cret"); err != nil && (strings.Contains(err.Error(), "s3cret") || errors.Is(err, s3.ErrSecret) != secret) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func long(n int) string { return strings.Repeat("x", n) }

// An accepted address makes a bucket whose objects lie below the prefix.
func FuzzParseAddress(f *testing.F) {
	f.Add("s3://my-bucket/me/fleet?region=eu-central-1&endpoint=h:1&scheme=http&branch=main")
	f.Add("s3://user:pass@bucket?secret=x")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := s3.ParseAddress(text)
		if err != nil {
			if len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Errorf("the error is no line: %q", err)
			}
			return
		}
		if strings.Contains(text, "@") && !strings.Contains(a.Branch, "@") {
			t.Errorf("%q passes", text)
		}
		for segment := range strings.SplitSeq(a.Prefix, "/") {
			if segment == "." || segment == ".." || segment == "" && a.Prefix != "" {
				t.Errorf("the prefix is %q", a.Prefix)
			}
		}
		if _, err := s3.New(s3.Config{Address: a}); err != nil {
			t.Errorf("%q passes, but %v", text, err)
		}
	})
}

// A key and a scope come back from the name of their object, and no other name does.
func FuzzNames(f *testing.F) {
	f.Add("nix-matrix-plan0-0123", "proposals/org=2ffleet", "a~/b")
	f.Add(long(512), "", long(200)+"~/x")
	f.Add("key", "", "/0")
	f.Fuzz(func(t *testing.T, key, scope, name string) {
		if cache.CheckKey(key) == nil {
			object := s3.ObjectName(key)
			if back, ok := s3.KeyOf(object); !ok || back != key {
				t.Errorf("%q comes back as %q, %v", key, back, ok)
			}
			for segment := range strings.SplitSeq(object, "/") {
				if len(segment) > 255 {
					t.Errorf("a segment of %d bytes", len(segment))
				}
			}
		}
		if scope, key, ok := s3.SplitName(name); ok && strings.TrimPrefix(scope+"/"+s3.ObjectName(key), "/") != name {
			t.Errorf("%q is taken for %q in %q", name, key, scope)
		}
	})
}

// A range that is accepted lies within the object.
func FuzzContentRange(f *testing.F) {
	f.Add("bytes 0-9/100", int64(10))
	f.Add("", int64(-1))
	f.Fuzz(func(t *testing.T, text string, length int64) {
		from, size, ok := s3.ContentRange(http.Header{"Content-Range": {text}}, length)
		if ok && (from < 0 || size < 0 || from > size) {
			t.Errorf("%q: from %d of %d", text, from, size)
		}
	})
}
