package s3_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/cachetest"
	"github.com/org/nix-matrix/pkg/cache/s3"
)

// A listing that lags behind finds an older blob, or none; the key itself is found.
func TestLaggingListing(t *testing.T) {
	config := configs(testbench.S3(t, "bucket"))(t)
	entry := regexp.MustCompile(`(?s)<Contents>.*?</Contents>`)
	hidden := "key-2"
	config.Transport = hook(func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
		resp, err := next(req)
		if err != nil || kind(req) != "list" {
			return resp, err
		}
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		text := entry.ReplaceAllStringFunc(string(data), func(e string) string {
			if strings.Contains(e, hidden) {
				return ""
			}
			return e
		})
		return reply(req, http.StatusOK, text), nil
	})
	c := open(t, config).Cache(s3.Scope{})
	cachetest.Save(t, c, "key-1", "first")
	cachetest.Save(t, c, "key-2", "second")
	if got := read(t, c, "absent", "key-"); got != "first" {
		t.Errorf("found %s", got)
	}
	if got := read(t, c, "key-2"); got != "second" {
		t.Errorf("found %s", got)
	}
	hidden = "key-"
	if got := read(t, c, "absent", "key-"); !strings.HasSuffix(got, "not in the cache") {
		t.Errorf("found %s", got)
	}
}

// A blob that is removed between the listing and the download is passed over for the next one.
func TestRemovedAfterListing(t *testing.T) {
	for count := range 7 {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			config := configs(testbench.S3(t, "bucket"))(t)
			left := -1
			other := open(t, config).Cache(s3.Scope{})
			config.Transport = hook(func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
				if key := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]; kind(req) == "get" && strings.HasPrefix(key, "key-") && left > 0 {
					left--
					if err := other.Remove(req.Context(), key); err != nil {
						t.Error(err)
					}
				}
				return next(req)
			})
			c := open(t, config).Cache(s3.Scope{})
			for i := range 6 {
				cachetest.Save(t, c, fmt.Sprintf("key-%d", i), fmt.Sprint("text ", i))
			}
			left = count
			got := read(t, c, "absent", "key-")
			if want := fmt.Sprint("text ", 5-count); got != want && (count < 6 || !strings.HasSuffix(got, "not in the cache")) {
				t.Errorf("found %s, want %s", got, want)
			}
		})
	}
}

// A blob that was removed or replaced after it was opened is a miss, and no mixture of two.
func TestRemovedAfterOpen(t *testing.T) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			config := start(t)(t)
			config.Small = 1
			b := open(t, config)
			c := b.Cache(s3.Scope{})
			cachetest.Save(t, c, "removed", "first")
			cachetest.Save(t, c, "replaced", "first")
			for _, key := range []string{"removed", "replaced"} {
				blob, err := c.Open(t.Context(), key)
				if err != nil {
					t.Fatal(err)
				}
				if err := c.Remove(t.Context(), key); err != nil {
					t.Fatal(err)
				}
				if key == "replaced" {
					cachetest.Save(t, c, key, "other")
				}
				if body, err := blob.Range(t.Context(), 1, 3); !errors.Is(err, cache.ErrMiss) {
					t.Errorf("%s: %v, %v", key, body, err)
				}
			}
		})
	}
}

// Many blobs of a prefix come in several pages. Foreign objects are none of them.
func TestListing(t *testing.T) {
	const most = 1005
	config := configs("127.0.0.1:1")(t)
	dir := config.Prefix + "/"
	pages := 0
	config.Transport = hook(func(req *http.Request, _ func(*http.Request) (*http.Response, error)) (*http.Response, error) {
		if kind(req) != "list" {
			return refuse(req, http.StatusNotFound, "NoSuchKey"), nil
		}
		pages++
		var b strings.Builder
		b.WriteString("<ListBucketResult><IsTruncated>")
		from, to, next := 0, 1000, "<NextContinuationToken>more</NextContinuationToken>"
		if req.URL.Query().Get("continuation-token") == "more" {
			from, to, next = 1000, most, ""
		}
		fmt.Fprintf(&b, "%v</IsTruncated>%s", next != "", next)
		object := func(key string, size int) {
			fmt.Fprintf(&b, "<Contents><Key>%s</Key><Size>%d</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>", key, size)
		}
		for i := from; i < to; i++ {
			object(fmt.Sprintf("%skey-%04d", dir, i), i+1)
		}
		if next == "" {
			for _, name := range []string{dir + "key-UPPER", dir + "other", "outside", dir + "key-/../x", dir + "key-%00", dir + "key-9999x\u2028"} {
				object(name, 1)
			}
			object(dir+"key-empty", 0)
			object(dir+"key-negative", -5)
		}
		b.WriteString("</ListBucketResult>")
		return reply(req, http.StatusOK, b.String()), nil
	})
	c := open(t, config).Cache(s3.Scope{})
	all, err := c.List(t.Context(), "key-")
	if err != nil || len(all) != most || pages != 2 {
		t.Errorf("%d blobs of %d pages, %v", len(all), pages, err)
	}
	if got := read(t, c, "absent", "key-"); !strings.HasSuffix(got, "not in the cache") {
		t.Errorf("found %s", got)
	}
}

// Without the permission to list, a server says that an absent object is forbidden. With it, that
// is a miss, whatever the object's own permission.
func TestForbiddenMiss(t *testing.T) {
	config := configs(testbench.S3(t, "bucket"))(t)
	mayList := true
	config.Transport = hook(func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
		switch {
		case kind(req) == "get" && strings.HasSuffix(req.URL.Path, "/absent"), kind(req) == "list" && !mayList:
			return refuse(req, http.StatusForbidden, "AccessDenied"), nil
		}
		return next(req)
	})
	c := open(t, config).Cache(s3.Scope{})
	if _, err := c.Open(t.Context(), "absent", "key-"); !errors.Is(err, cache.ErrMiss) {
		t.Errorf("with the permission to list: %v", err)
	}
	mayList = false
	_, err := c.Open(t.Context(), "absent", "key-")
	if !errors.Is(err, cache.ErrReadOnly) || !errors.Is(err, s3.ErrDenied) || !strings.Contains(err.Error(), "s3:ListBucket") {
		t.Errorf("without: %v", err)
	}
}

// Everybody may read a public bucket and nobody may write it without credentials; a private one can't
// be read either, and is asked once.
func TestAnonymous(t *testing.T) {
	config := configs(testbench.VersityGW(t, "bucket"))(t)
	owner := open(t, config)
	cachetest.Save(t, owner.Cache(s3.Scope{}), "key-1", "text")
	config.Credentials = s3.Credentials{}
	requests := 0
	config.Transport = hook(func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
		requests++
		return next(req)
	})
	private := open(t, config).Cache(s3.Scope{})
	for range 3 {
		if _, err := private.Open(t.Context(), "key-1"); !errors.Is(err, cache.ErrReadOnly) || !strings.Contains(err.Error(), "There are no credentials") {
			t.Errorf("a private bucket: %v", err)
		}
	}
	if requests > 2 {
		t.Errorf("%d requests to a private bucket", requests)
	}

	owner.Permit(t, `{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/*"},
		{"Effect": "Allow", "Principal": "*", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::bucket"}]}`)
	c := open(t, config).Cache(s3.Scope{})
	if got := read(t, c, "absent", "key-"); got != "text" {
		t.Errorf("found %s", got)
	}
	if _, err := c.Open(t.Context(), "absent"); !errors.Is(err, cache.ErrMiss) {
		t.Errorf("a miss: %v", err)
	}
	requests = 0
	if err := c.Save(t.Context(), "key-2", strings.NewReader("x"), 1); !errors.Is(err, cache.ErrReadOnly) || requests > 0 {
		t.Errorf("Save: %v after %d requests", err, requests)
	}
	if cache.LastWins(c) || requests > 0 {
		t.Errorf("LastWins, or %d requests", requests)
	}
}

// A scope is written, and others are read; none but the given ones.
func TestScopes(t *testing.T) {
	b := open(t, configs(testbench.S3(t, "bucket"))(t))
	main := s3.Scope{}
	pull, other := s3.Scope{Class: "proposals", Name: "org/fleet refs/pull/7/merge"}, s3.Scope{Class: "proposals", Name: "org/other refs/pull/7/merge"}
	long := s3.Scope{Class: "branches", Name: "org/fleet refs/heads/" + strings.Repeat("x", 300)}
	longer := s3.Scope{Class: "branches", Name: long.Name + "x"}
	all := []s3.Scope{main, pull, other, long, longer}
	for i, s := range all {
		cachetest.Save(t, b.Cache(s), "key-1", fmt.Sprint(i))
	}
	for i, s := range all {
		if got := read(t, b.Cache(s), "absent", "key-"); got != fmt.Sprint(i) {
			t.Errorf("scope %d finds %s", i, got)
		}
	}
	cachetest.Save(t, b.Cache(main), "key-2", "of main")
	if got := read(t, b.Cache(pull, main), "key-2"); got != "of main" {
		t.Errorf("found %s", got)
	}
	if got := read(t, b.Cache(pull, main), "key-1"); got != "1" {
		t.Errorf("its own is %s", got)
	}
	byScope, err := b.ListScopes(t.Context(), "key-")
	if err != nil || len(byScope) != len(all) || len(byScope[""]) != 2 || len(byScope["proposals/org=2ffleet=20refs=2fpull=2f7=2fmerge"]) != 1 {
		t.Errorf("scopes: %v, %v", byScope, err)
	}
	for scope := range byScope {
		if err := b.InScope(scope).Remove(t.Context(), "key-1"); err != nil {
			t.Error(err)
		}
	}
	byScope, err = b.ListScopes(t.Context(), "")
	if err != nil || len(byScope) != 1 || len(byScope[""]) != 1 {
		t.Errorf("after removal: %v, %v", byScope, err)
	}
}
