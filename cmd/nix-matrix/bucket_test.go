package main

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
)

// A run of each kind plants a record, an index, an evaluation and a claim in a bucket. Each run reads those of the refs that it trusts by the threat model, and no others: the default
// branch nothing that any proposal has planted.
func TestBucketScopes(t *testing.T) {
	endpoint := testbench.S3(t, "bucket")
	open := func(t *testing.T, name, repository string) cache.Cache {
		t.Helper()
		c := runCases[name]
		a := c.app(t, "github-hosted", nil)
		a.cache = "s3://bucket/fleet?scheme=http&endpoint=" + endpoint
		environment := a.getenv
		a.getenv = func(name string) string {
			switch name {
			case "GITHUB_REPOSITORY":
				return repository
			case "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY":
				return "test"
			}
			return environment(name)
		}
		a.host.Getenv = a.getenv
		opened, err := a.openCache(a.trust())
		if err != nil {
			t.Fatal(err)
		}
		return opened
	}
	kinds := map[string]string{
		"record":     job.RecordPrefix(job.DefaultID, "", "org/fleet/.github/workflows/ci.yml"),
		"index":      job.IndexPrefix(job.DefaultID) + "1++x86_64-linux+refs=2fheads=2fmain+",
		"evaluation": job.EvaluationPrefix(job.DefaultID, strings.Repeat("0", 32)),
		"claim":      job.DefaultID + "-claim-7-1-0123456789abcdef-",
	}
	// The scope that a run writes.
	scope := func(name, repository string) string {
		c := runCases[name]
		proposed := c.app(t, "github-hosted", nil).trust().Proposed()
		switch {
		case c.outside:
			return "outside"
		case proposed:
			return "proposal " + repository + c.ref
		case c.ref == defaultRef:
			return "default branch"
		}
		return repository + c.ref
	}
	type writer struct{ name, repository string }
	var writers []writer
	for _, name := range slices.Sorted(maps.Keys(runCases)) {
		for _, repository := range []string{us, "org/other"} {
			writers = append(writers, writer{name, repository})
		}
	}
	for kind, prefix := range kinds {
		for i, w := range writers {
			key := prefix + strings.Repeat("0", 10) + string(rune('a'+i/20)) + string(rune('a'+i%20))
			text := scope(w.name, w.repository)
			if err := open(t, w.name, w.repository).Save(t.Context(), key, strings.NewReader(text), int64(len(text))); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
		}
		for _, r := range writers {
			reader := open(t, r.name, r.repository)
			trusted := map[string]bool{scope(r.name, r.repository): true, "default branch": true}
			if base := runCases[r.name]; base.base != "" || base.merges != "" {
				trusted[r.repository+cmp.Or(base.merges, "refs/heads/"+base.base)] = true
			}
			for i, w := range writers {
				key := prefix + strings.Repeat("0", 10) + string(rune('a'+i/20)) + string(rune('a'+i%20))
				blob, err := reader.Open(t.Context(), key)
				if err != nil && !errors.Is(err, cache.ErrMiss) {
					t.Fatal(err)
				}
				if found := scope(w.name, w.repository); (blob != nil) != trusted[found] {
					t.Errorf("%s: %q of %s finds what %q of %s has saved in the scope %q: %v", kind, r.name, r.repository, w.name, w.repository, found, blob != nil)
				}
			}
			newest, err := reader.Open(t.Context(), prefix, prefix)
			if err != nil {
				t.Fatal(err)
			}
			data, err := cache.ReadAll(t.Context(), newest, 100)
			if err != nil || !trusted[string(data)] {
				t.Errorf("%s: the newest for %q of %s is of the scope %q, %v", kind, r.name, r.repository, data, err)
			}
		}
	}
}

// The kind of a cache decides whether its users trust each other, and whether it evicts.
func TestCacheKinds(t *testing.T) {
	for name, want := range map[string]struct{ shared, evicts bool }{
		"":                   {false, true}, // in a job
		"actions":            {false, true},
		"dir:/srv/cache":     {true, false},
		"s3://bucket/prefix": {false, false},
	} {
		a := runCases["`push` to another branch"].app(t, "self-hosted", nil)
		a.cache = name
		docs, err := a.documents()
		if err != nil {
			t.Fatal(err)
		}
		if docs.Trust.Shared != want.shared || docs.Evicts != want.evicts {
			t.Errorf("%q: shared %v, evicts %v", name, docs.Trust.Shared, docs.Evicts)
		}
	}
	outside := runCases["outside of GitHub Actions"].app(t, "", nil)
	for address, want := range map[string]string{"s3://bucket": "refs/heads/main", "s3://bucket?branch=release": "refs/heads/release"} {
		outside.cache = address
		docs, err := outside.documents()
		if err != nil {
			t.Fatal(err)
		}
		if refs := docs.Trust.Refs(); !slices.Equal(refs, []string{"local", want}) {
			t.Errorf("%s: refs %q", address, refs)
		}
	}
}

// The secret env has the credentials of the bucket, or else the environment; never a mixture.
func TestBucketCredentials(t *testing.T) {
	for _, test := range []struct{ env, secret, want string }{
		{"", "", "anonymous"},
		{"AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b", "", ""},
		{"", "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b", ""},
		{"AWS_SECRET_ACCESS_KEY=b", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY is not"},
		{"AWS_ACCESS_KEY_ID=a", "", "AWS_SECRET_ACCESS_KEY is not"},
		{"AWS_REGION=eu west", "", "not the name of a region"},
	} {
		var log strings.Builder
		a := newApp(streams{err: &log}, func(name string) string {
			if name == "NIX_MATRIX_ENV" {
				return test.secret
			}
			for line := range strings.Lines(test.env) {
				if n, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "="); n == name {
					return value
				}
			}
			return ""
		})
		a.cache = "s3://bucket"
		_, err := a.openBucket()
		anonymous := strings.Contains(log.String(), "there are no credentials for the cache s3://bucket")
		switch {
		case test.want == "" || test.want == "anonymous":
			if err != nil || anonymous != (test.want != "") {
				t.Errorf("%q, secret %q: %v, log %q", test.env, test.secret, err, &log)
			}
		case err == nil || !strings.Contains(err.Error(), test.want):
			t.Errorf("%q, secret %q: %v", test.env, test.secret, err)
		}
	}
}
