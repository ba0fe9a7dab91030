package niks3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/org/nix-matrix/pkg/httpcall"
)

// Options have the address of the server and how it is called. Server and Token are required; the zero
// value of every other field is its default.
type Options struct {
	// Server is its address, https://HOST[/PREFIX], without credentials.
	Server string
	// Token returns a token for an audience. It is called before each request to the server, so that it
	// can renew a token that ends.
	Token func(ctx context.Context, audience string) (string, error)
	// Issuer is the address that the tokens name as theirs, and Audience for whom they are. Without an
	// audience, the server names it, which may be only itself.
	Issuer, Audience string

	// Jobs is how many objects are uploaded at a time, by default 8.
	Jobs int
	// Retries is how often a failed request is sent again, by default 4 times. Less than zero is
	// never.
	Retries int
	// Wait is the pause before the first retry, by default 1 s. Each next one is twice as long.
	Wait time.Duration
	// MaxWait is the longest pause, and the longest that the server may ask for before its refusal is
	// taken as final. By default 1 min.
	MaxWait time.Duration
	// Busy is how long to wait for another client that uploads the same NAR, by default 11 min: the
	// server forgets such a client after 10.
	Busy time.Duration
	// Stall is how long a request may make no progress before it is given up and repeated. By default
	// 2 min, because that is longer than most proxies wait.
	Stall time.Duration
	// Transport sends the requests; by default one like http.DefaultTransport, without HTTP/2, where
	// all uploads would share a connection.
	Transport http.RoundTripper
}

func (o Options) withDefaults() Options {
	o.Jobs = cmp.Or(o.Jobs, 8)
	o.Retries = max(cmp.Or(o.Retries, 4), 0)
	o.Wait = cmp.Or(o.Wait, time.Second)
	o.MaxWait = cmp.Or(o.MaxWait, time.Minute)
	o.Busy = cmp.Or(o.Busy, 11*time.Minute)
	o.Stall = cmp.Or(o.Stall, 2*time.Minute)
	if o.Transport == nil {
		o.Transport = httpcall.HTTP1(o.Jobs)
	}
	return o
}

// A Cache is the binary cache of a niks3 server. It may be used by several goroutines.
type Cache struct {
	options     Options
	client      *http.Client
	server      *url.URL // ends in a slash
	substituter string
	publicKeys  []string
	audience    string

	mu   sync.Mutex
	done map[string]bool // store paths that are complete in the cache
}

// An AudienceError says that a server asks for tokens that are for another one. With such a token it could
// do there whatever the job may do.
type AudienceError struct{ Server, Audience string }

func (e *AudienceError) Error() string {
	return fmt.Sprintf("the niks3 server %s asks for tokens that are for %q, which is not its own address", e.Server, e.Audience)
}

// maxKeys is how many public keys a cache may have.
const maxKeys = 20

// Dial asks a server for the configuration of its cache.
func Dial(ctx context.Context, o Options) (*Cache, error) {
	server, err := ParseServer(o.Server)
	if err != nil {
		return nil, err
	}
	o = o.withDefaults()
	c := &Cache{options: o, client: newClient(o), server: server, audience: o.Audience, done: map[string]bool{}}
	var config struct {
		Substituter string   `json:"substituter_url"`
		PublicKeys  []string `json:"public_keys"`
		Audience    string   `json:"oidc_audience"`
	}
	ask := call{method: http.MethodGet, name: "api/cache-config", open: true}
	if o.Issuer != "" {
		ask.query = url.Values{"issuer": {o.Issuer}}
	}
	if err := c.ask(ctx, ask, &config); err != nil {
		return nil, fmt.Errorf("cannot ask %s for its niks3 cache: %w", server, err)
	}
	if len(config.PublicKeys) > maxKeys {
		return nil, fmt.Errorf("the niks3 server %s names %d public keys, more than %d", server, len(config.PublicKeys), maxKeys)
	}
	c.substituter, c.publicKeys = strings.TrimSuffix(config.Substituter, "/"), config.PublicKeys
	c.audience = cmp.Or(c.audience, config.Audience)
	return c, nil
}

// Substituter returns the address for Nix's setting "substituters", or an empty text if the server does not
// say it.
func (c *Cache) Substituter() string { return c.substituter }

// PublicKeys returns the keys for Nix's setting "trusted-public-keys".
func (c *Cache) PublicKeys() []string { return c.publicKeys }

// Audience returns for whom a token must be. The error is an *AudienceError if the server names another
// one than itself, and that is not what the options say.
func (c *Cache) Audience() (string, error) {
	if c.audience == "" {
		return "", fmt.Errorf("the niks3 server %s accepts no tokens of %s. Add that issuer to its OIDC configuration", c.server, cmp.Or(c.options.Issuer, "this job"))
	}
	if c.options.Audience != "" || c.owns(c.audience) {
		return c.audience, nil
	}
	return "", &AudienceError{strings.TrimSuffix(c.server.String(), "/"), httpcall.Quote(c.audience, "")}
}

// owns reports whether an audience is the host of the server, or an address there.
func (c *Cache) owns(audience string) bool {
	if strings.EqualFold(audience, c.server.Host) || strings.EqualFold(audience, c.server.Hostname()) {
		return true
	}
	u, err := url.Parse(audience)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && strings.EqualFold(u.Host, c.server.Host)
}

// ParseServer reads the address of a server. It ends in a slash then. The error has no password.
func ParseServer(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, errors.New("the address of the niks3 server is not valid") // err quotes it
	case u.User != nil:
		return nil, errors.New("the address of the niks3 server has credentials. Use a token instead")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("the address %q of the niks3 server is not of the form https://HOST", address)
	}
	return u.JoinPath("/"), nil
}
