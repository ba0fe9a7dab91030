package action

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/org/nix-matrix/pkg/httpcall"
)

// GitHubVariable is the environment variable with the token for GitHub's API. No
// argument ever has it.
const GitHubVariable = "NIX_MATRIX_GITHUB_TOKEN"

var (
	// ErrForbidden says that the token may not do this, or that there is none. The
	// error around it names the missing permission. GitHub also answers "not found"
	// to a token that may not see an object.
	ErrForbidden = errors.New("the token may not do this")
	// ErrLimited says that GitHub takes no requests, for longer than the client
	// waits.
	ErrLimited = errors.New("GitHub's rate limit is used up")
)

// GitHubConfig has the address of GitHub's REST API and how it is called.
type GitHubConfig struct {
	API        string // its address
	Repository string // OWNER/NAME
	Token      string
	Own        string // the variable with the token, if that is not the workflow's but the user's own

	Retries     int           // of a failed request
	Wait        time.Duration // before a retry, at least
	LimitedWait time.Duration // the same for a rate limit without an end; it doubles
	MaxWait     time.Duration // the longest one that GitHub may ask for
	// Writes is how many check runs are written in a minute at most; 0 is no limit.
	Writes int
	// Log gets a line for each wait because of a rate limit.
	Log func(format string, args ...any)
}

// GitHubConfig returns the config of the environment that the runner gives each step, with the
// token, which is kept out of the log from now on.
func (a *Action) GitHubConfig() GitHubConfig {
	c := GitHubConfig{
		API:         a.getenv("GITHUB_API_URL"),
		Repository:  a.getenv("GITHUB_REPOSITORY"),
		Token:       strings.TrimSpace(a.getenv(GitHubVariable)),
		Retries:     4,
		Wait:        time.Second,
		LimitedWait: time.Minute, // as GitHub's documentation asks for
		MaxWait:     5 * time.Minute,
		Writes:      75, // GitHub takes 80 requests that make something in a minute
		Log:         func(string, ...any) {},
	}
	if c.API == "" {
		c.API = "https://api.github.com"
	}
	a.Mask(c.Token)
	return c
}

// GitHub returns the API of this job's environment. log gets a line for each wait because of a rate limit.
func (a *Action) GitHub(log func(format string, args ...any)) (*GitHub, error) {
	config := a.GitHubConfig()
	config.Log = log
	return NewGitHub(config)
}

// GitHub is GitHub's REST API, for one repository: GitHub's own or that of an
// Enterprise Server. Its methods are safe for concurrent use, though GitHub asks for
// one request at a time. Their errors wrap [ErrForbidden] or [ErrLimited] if that
// is the cause.
type GitHub struct {
	config      GitHubConfig
	client      *github.Client
	transport   *retrying
	owner, name string
	writes      pace
}

// NewGitHub returns the API of a config. It sends no request.
func NewGitHub(c GitHubConfig) (*GitHub, error) {
	owner, name, ok := strings.Cut(c.Repository, "/")
	if !ok || owner == "" || name == "" || strings.Contains(name, "/") {
		return nil, fmt.Errorf("invalid repository %q: must be OWNER/NAME. Set GITHUB_REPOSITORY", c.Repository)
	}
	if u, err := url.Parse(c.API); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("invalid address %q of GitHub's API: must be http or https. Set GITHUB_API_URL", c.API)
	}
	if c.Token == "" {
		return nil, fmt.Errorf("%w: there is none. Set %s", ErrForbidden, GitHubVariable)
	}
	base := strings.TrimSuffix(c.API, "/") + "/"
	transport := newRetrying(c)
	client := github.NewClient(&http.Client{Transport: transport}).WithAuthToken(c.Token)
	client.UserAgent = httpcall.UserAgent
	var err error
	if client.BaseURL, err = url.Parse(base); err != nil {
		return nil, fmt.Errorf("GitHub's API at %s: %w", c.API, err)
	}
	return &GitHub{config: c, client: client, transport: transport, owner: owner, name: name, writes: pace{most: c.Writes}}, nil
}

// A CacheEntry is an entry of a cache. The Actions cache may have one of the same key for
// several refs; another cache has neither ID nor Ref.
type CacheEntry struct {
	ID      int64
	Key     string
	Ref     string // in full, such as refs/heads/main or refs/pull/7/merge
	Size    int64  // bytes
	Created time.Time
	Used    time.Time // last
}

// Caches lists the entries whose keys begin with a prefix, the oldest first. It
// needs the permission actions: read.
func (g *GitHub) Caches(ctx context.Context, prefix string) ([]CacheEntry, error) {
	options := &github.ActionsCacheListOptions{
		Key: &prefix,
		// In this order, entries that are added or used meanwhile move no other to another page.
		Sort:      github.String("created_at"),
		Direction: github.String("asc"),
	}
	var entries []CacheEntry
	for c, err := range pages(&options.ListOptions, func() ([]*github.ActionsCache, *github.Response, error) {
		list, answer, err := g.client.Actions.ListCaches(ctx, g.owner, g.name, options)
		if err != nil {
			return nil, answer, err
		}
		return list.ActionsCaches, answer, nil
	}) {
		if err != nil {
			return nil, g.explain(ctx, err, "cannot list the Actions cache", "actions: read")
		}
		entries = append(entries, CacheEntry{
			ID: c.GetID(), Key: c.GetKey(), Ref: c.GetRef(), Size: c.GetSizeInBytes(),
			Created: c.GetCreatedAt().Time, Used: c.GetLastAccessedAt().Time,
		})
	}
	return entries, nil
}

// perPage is the largest page that GitHub returns.
const perPage = 100

// pages yields the items of all pages of a list, which a function requests one by one with the
// options. An error is yielded last.
func pages[T any](options *github.ListOptions, list func() ([]T, *github.Response, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		options.PerPage = perPage
		for {
			items, answer, err := list()
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if options.Page = answer.NextPage; options.Page == 0 {
				return
			}
		}
	}
}

// RemoveCache removes an entry. If it is already gone, that is no error. It needs the
// permission actions: write.
func (g *GitHub) RemoveCache(ctx context.Context, entry CacheEntry) error {
	const permission = "actions: write"
	what := "cannot remove " + entry.Key + " from the Actions cache"
	_, err := g.client.Actions.DeleteCachesByID(ctx, g.owner, g.name, entry.ID)
	if status(err) != http.StatusNotFound {
		return g.explain(ctx, err, what, permission)
	}
	// It is gone, or the token may not see it.
	there, lerr := g.Caches(ctx, entry.Key)
	if lerr != nil {
		return fmt.Errorf("%s: %w", what, lerr)
	}
	for _, e := range there {
		if e.ID == entry.ID {
			return g.explain(ctx, err, what, permission)
		}
	}
	return nil
}

// A Repository has the facts about a repository.
type Repository struct {
	DefaultBranch string
	Public        bool // anybody may read it
}

// Repository returns the repository.
func (g *GitHub) Repository(ctx context.Context) (Repository, error) {
	r, _, err := g.client.Repositories.Get(ctx, g.owner, g.name)
	if err != nil {
		return Repository{}, g.explain(ctx, err, "cannot read the repository "+g.config.Repository, "contents: read")
	}
	// An old Enterprise Server has no visibility, and there is a third one, "internal".
	public := !r.GetPrivate() && (r.GetVisibility() == "" || r.GetVisibility() == "public")
	return Repository{DefaultBranch: r.GetDefaultBranch(), Public: public}, nil
}

// status returns the status of an answer that is an error, else 0.
func status(err error) int {
	var refused *github.ErrorResponse
	if errors.As(err, &refused) && refused.Response != nil {
		return refused.Response.StatusCode
	}
	return 0
}

// explain returns the error of an action that needs a permission, with the remedy, or nil if
// there is none.
func (g *GitHub) explain(ctx context.Context, err error, what, permission string) error {
	var primary *github.RateLimitError
	var secondary *github.AbuseRateLimitError
	var refused *github.ErrorResponse
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case errors.As(err, &primary):
		return fmt.Errorf("%s: %w until %s. Run this again then", what, ErrLimited, primary.Rate.Reset.UTC().Format("15:04 UTC"))
	case errors.As(err, &secondary), status(err) == http.StatusTooManyRequests:
		return fmt.Errorf("%s: %w. Run this again later", what, ErrLimited)
	case !errors.As(err, &refused):
		return fmt.Errorf("%s: %w", what, httpcall.WithoutAddress(err))
	}
	said := fmt.Sprintf("GitHub answers %d", status(err))
	if refused.Message != "" {
		said += " " + g.quote(refused.Message)
	}
	switch status(err) {
	case http.StatusForbidden, http.StatusNotFound:
		if g.config.Own != "" {
			return fmt.Errorf("%s: %w (%s). Give the GitHub App or the person's token in %s the permission `%s`", what, ErrForbidden, said, g.config.Own, permission)
		}
		return fmt.Errorf("%s: %w (%s). Add the line `%s` below `permissions:` of the job", what, ErrForbidden, said, permission)
	case http.StatusUnauthorized:
		return fmt.Errorf("%s: %w (%s): it is wrong or has expired. Set another one in %s", what, ErrForbidden, said, cmp.Or(g.config.Own, GitHubVariable))
	}
	for _, e := range refused.Errors {
		said += ": " + g.quote(strings.TrimSpace(e.Field+" "+e.Code+" "+e.Message))
	}
	return fmt.Errorf("%s: %s", what, said)
}

// quote returns a text of GitHub's for a message.
func (g *GitHub) quote(said string) string { return httpcall.Quote(said, g.config.Token) }
