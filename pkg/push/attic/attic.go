package attic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/httpcall"
)

// Options have the cache's address and how its server is called. Endpoint and Cache
// are required; the zero value of every other field is its default.
type Options struct {
	// Endpoint is the server's address, https://HOST[/PREFIX], with or without a
	// slash at the end. It has no credentials in it.
	Endpoint string
	Cache    string
	// Token is a JWT that may pull and push. A public cache can be read without one.
	Token string

	// Jobs is how many paths are uploaded at a time, by default 8.
	Jobs int
	// Retries is how often a failed request is sent again, by default 4 times.
	// Less than zero is never.
	Retries int
	// Wait is the pause before the first retry. Each next one is twice as
	// long, and each is up to half longer by chance. By default 1 s.
	Wait time.Duration
	// MaxWait is the longest pause, and the longest that the server may ask for
	// before its refusal is taken as final. By default 1 min.
	MaxWait time.Duration
	// Stall is how long a request may make no progress before it is given up and
	// repeated. By default 2 min, because that is longer than most proxies wait.
	Stall time.Duration

	// Transport sends the requests; by default one like http.DefaultTransport,
	// without HTTP/2, where all uploads would share a connection.
	Transport http.RoundTripper
	// Log gets a line for each failed try. By default there is no log.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	setDefault(&o.Jobs, 8)
	setDefault(&o.Retries, 4)
	setDefault(&o.Wait, time.Second)
	setDefault(&o.MaxWait, time.Minute)
	setDefault(&o.Stall, 2*time.Minute)
	o.Retries = max(o.Retries, 0)
	if o.Transport == nil {
		o.Transport = newTransport(o.Jobs)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func newTransport(jobs int) *http.Transport {
	t := httpcall.HTTP1(jobs)
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.WriteBufferSize = 64 << 10 // a small NAR leaves in one piece with its header
	return t
}

// A Cache is a cache of an Attic server. It may be used by several goroutines.
type Cache struct {
	options     Options // without the token
	client      *http.Client
	token       *string  // a pointer, so that printing never shows it
	api         *url.URL // ends in a slash
	substituter string
	publicKey   string
	storeDir    string
	upstream    []string
	public      bool
}

// From attic/src/cache.rs.
var cacheName = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9_+-]{0,49}$`)

// Dial asks a server for the configuration of a cache. Its error is ErrToken if
// the token, or its absence, is the reason.
func Dial(ctx context.Context, o Options) (*Cache, error) {
	endpoint, err := parseEndpoint(o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("cannot use the Attic server's address: %w", err)
	}
	if !cacheName().MatchString(o.Cache) {
		return nil, fmt.Errorf("invalid name %q for an Attic cache: must be at most 50 letters, digits, '-', '_' and '+'", o.Cache)
	}
	token := strings.TrimSpace(o.Token)
	o.Token = ""
	o = o.withDefaults()
	c := &Cache{options: o, client: newClient(o), token: &token, api: endpoint}
	var config struct {
		API         string   `json:"api_endpoint"`
		Substituter string   `json:"substituter_endpoint"`
		PublicKey   string   `json:"public_key"`
		StoreDir    string   `json:"store_dir"`
		Upstream    []string `json:"upstream_cache_key_names"`
		Public      bool     `json:"is_public"`
	}
	err = c.ask(ctx, call{method: http.MethodGet, name: "cache-config/" + o.Cache, retries: c.options.Retries}, &config)
	if err != nil {
		return nil, fmt.Errorf("cannot ask %s for the Attic cache %s: %w", endpoint, o.Cache, err)
	}
	c.api = c.delegate(endpoint, config.API)
	c.substituter = strings.TrimSuffix(c.delegate(endpoint.JoinPath(o.Cache), config.Substituter).String(), "/")
	c.publicKey, c.storeDir, c.upstream, c.public = config.PublicKey, config.StoreDir, config.Upstream, config.Public
	if c.storeDir == "" {
		c.storeDir = "/nix/store"
	}
	return c, nil
}

// Substituter returns the address for Nix's setting "substituters".
func (c *Cache) Substituter() string { return c.substituter }

// PublicKey returns the key for Nix's setting "trusted-public-keys", or an empty text if the
// server does not say it.
func (c *Cache) PublicKey() string { return c.publicKey }

// Public reports whether the cache can be read without a token.
func (c *Cache) Public() bool { return c.public }

// Upstream reports whether paths signed by a key of that name are not pushed, because they are
// in another cache that is used together with this one.
func (c *Cache) Upstream(keyName string) bool { return slices.Contains(c.upstream, keyName) }

func parseEndpoint(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, errors.New("it is not a valid address") // err quotes it, and it may hold a password
	case u.User != nil:
		return nil, errors.New("it has credentials. Use a token instead")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q is not of the form https://HOST or https://HOST/PREFIX", address)
	}
	return u.JoinPath("/"), nil
}

// delegate returns the address that the server gives in place of ours. A server behind a proxy
// that it does not know of names an http address where it has https: the token is not sent
// there.
func (c *Cache) delegate(ours *url.URL, given string) *url.URL {
	if given == "" {
		return ours
	}
	u, err := parseEndpoint(given)
	switch {
	case err != nil:
		c.options.Log.Warn("the Attic server gives an unusable address for itself", "error", err)
		return ours
	case ours.Scheme == "https" && u.Scheme != "https" && u.Host == ours.Host:
		u.Scheme = "https"
	case ours.Scheme == "https" && u.Scheme != "https":
		c.options.Log.Warn("the Attic server gives an address for itself that is not https, ignored", "address", u)
		return ours
	}
	return u
}

// NAR opens the NAR of a path, uncompressed. It may be called again for a retry, and by several
// goroutines. It returns when the context ends; Close may be
// called during a Read, which has to end then.
type NAR func(ctx context.Context, storePath string) (io.ReadCloser, error)
