package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/inputs"
	"github.com/org/nix-matrix/internal/nearest"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/actions"
	"github.com/org/nix-matrix/pkg/cache/dir"
	"github.com/org/nix-matrix/pkg/cache/s3"
)

func (a *app) cacheFlag(cmd *cobra.Command) {
	bindAs(cmd, cacheValue(&a.cache, true), "cache", cacheHelp)
}

// cacheHelp is for the command line, where the default is not the input's.
var cacheHelp = inputs.Help("cache") + "; default: actions in GitHub Actions, elsewhere a directory below $XDG_CACHE_HOME"

// cacheValue returns the value of a flag for a cache. That of GitHub Actions and a bucket are such only
// if all is true.
func cacheValue(to *string, all bool) *flagvalue.Scalar[string] {
	kind, must := "dir:PATH", "must be dir:PATH"
	if all {
		kind, must = "CACHE", "must be actions, dir:PATH or s3://BUCKET/PREFIX"
	}
	return flagvalue.New(to, kind, "", func(text string) (string, error) {
		if path, ok := strings.CutPrefix(text, "dir:"); ok && path != "" || text == "" || all && text == "actions" {
			return text, nil
		}
		kind, _, _ := strings.Cut(text, ":")
		if strings.HasPrefix(text, s3.Scheme) {
			_, err := s3.ParseAddress(text)
			if !all && !errors.Is(err, s3.ErrSecret) {
				err = errors.New(must)
			}
			return text, err
		}
		return "", errors.New(must + nearest.Hint(kind, []string{"actions", "dir", "s3"}))
	})
}

// openCache opens the cache that the flag names, for a job with this trust. In GitHub Actions, a cache that
// is not available is nil and a warning, because a cache only makes things faster.
func (a *app) openCache(trust *action.Trust) (cache.Cache, error) {
	if a.inBucket() {
		return a.openBucketCache(trust)
	}
	if !a.inActions() {
		return a.openDir()
	}
	config, err := actions.FromEnv(a.getenv)
	if err != nil {
		a.log.Warn("The Actions cache is not used", err)
		return nil, nil //nolint:nilnil // none is one of the answers
	}
	return actions.New(config), nil
}

// openDir opens a cache that is a directory.
func (a *app) openDir() (cache.Collectable, error) {
	path, err := cachePath(a.cache)
	if err != nil {
		return nil, err
	}
	return dir.New(path)
}

// openBucketCache opens the scopes of a bucket that a job may read, of which it writes the first. Here
// and nowhere else it is decided what a job believes of a bucket.
func (a *app) openBucketCache(trust *action.Trust) (cache.Cache, error) {
	bucket, err := a.openBucket()
	switch {
	case err != nil && a.action.Running():
		a.log.Warn("The S3 cache is not used", err)
		return nil, nil //nolint:nilnil // none is one of the answers
	case err != nil:
		return nil, err
	}
	var scopes []s3.Scope
	for _, s := range trust.Scopes(a.getenv("GITHUB_REPOSITORY")) {
		scopes = append(scopes, s3.Scope(s))
	}
	return bucket.Cache(scopes[0], scopes[1:]...), nil
}

// openBucket opens the bucket that the flag names, with the credentials of the secret env or of the
// environment.
func (a *app) openBucket() (*s3.Bucket, error) {
	address, err := s3.ParseAddress(a.cache)
	if err != nil {
		return nil, usage.Wrap(err)
	}
	lines, err := a.host.Env()
	if err != nil {
		return nil, err
	}
	env := map[string]string{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	getenv := func(name string) string { return cmp.Or(env[name], a.getenv(name)) }
	if env["AWS_ACCESS_KEY_ID"] != "" { // a token of other credentials is of no use
		getenv = func(name string) string {
			if name == "AWS_SESSION_TOKEN" || name == "AWS_SECRET_ACCESS_KEY" {
				return env[name]
			}
			return cmp.Or(env[name], a.getenv(name))
		}
	}
	config := s3.Config{Address: address, Warn: a.log.Warn, Log: slog.New(slog.DiscardHandler)}
	if config.Credentials, err = s3.CredentialsFrom(getenv); err != nil {
		return nil, usage.Wrap(err)
	}
	if config.Region == "" {
		if config.Region, err = s3.RegionFrom(getenv); err != nil {
			return nil, usage.Wrap(err)
		}
	}
	if config.Credentials.Anonymous() {
		a.log.Printf("there are no credentials for the cache %s, so it is read without any and nothing is saved there", address)
	}
	return s3.New(config)
}

// bucketBranch returns the ref of the branch whose store paths a machine outside of GitHub Actions reads.
func (a *app) bucketBranch() (string, error) {
	address, err := s3.ParseAddress(a.cache)
	if err != nil {
		return "", usage.Wrap(fmt.Errorf("--cache: %w", err))
	}
	return "refs/heads/" + cmp.Or(address.Branch, "main"), nil
}

// inActions reports whether the cache is that of GitHub Actions.
func (a *app) inActions() bool { return a.cache == "actions" || a.cache == "" && a.action.Running() }

// inBucket reports whether the cache is a bucket of S3.
func (a *app) inBucket() bool { return strings.HasPrefix(a.cache, s3.Scheme) }

// cachePath returns the directory of a cache.
func cachePath(name string) (string, error) {
	if path, ok := strings.CutPrefix(name, "dir:"); ok {
		return path, nil
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", usage.Errorf("cannot find a directory for the cache: %w. Name one with --cache dir:PATH", err)
	}
	return filepath.Join(base, "nix-matrix", "cache"), nil
}
