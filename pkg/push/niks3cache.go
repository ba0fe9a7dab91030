package push

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push/niks3"
)

// niks3Variable has a fixed token for niks3, where there is no identity of a job.
const niks3Variable = "NIKS3_AUTH_TOKEN"

// parseNiks3 reads niks3:https://SERVER[/PREFIX][?audience=AUDIENCE].
func parseNiks3(address, rest string) (Destination, error) {
	const example = "Write for example niks3:https://niks3.example.org"
	u, err := url.Parse(rest)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Fragment != "" {
		return Destination{}, fmt.Errorf("%q: the address of the server is missing after niks3:. %s", nix.Redact(address), example)
	}
	if u.User != nil {
		return Destination{}, fmt.Errorf("niks3:%s: an address has no token. Set %s (input env)", u.Redacted(), niks3Variable)
	}
	query := u.Query()
	audience := query.Get("audience")
	query.Del("audience")
	if len(query) > 0 || valid.Line(u.String(), 1000) != nil || valid.Line(audience, 1000) != nil {
		return Destination{}, fmt.Errorf("%q: the only parameter is audience. %s", address, example)
	}
	u.RawQuery = ""
	return Destination{Name: address, kind: &niks3Cache{server: u.String(), audience: audience}}, nil
}

// niks3Cache is the cache of a niks3 server, which is asked for its configuration once.
type niks3Cache struct {
	server   string
	audience string // that the user names, or empty

	mu    sync.Mutex
	cache *niks3.Cache
}

func (c *niks3Cache) dial(ctx context.Context, d *Destination, secrets Secrets) error {
	cache, err := c.open(ctx, secrets)
	if err != nil {
		return err
	}
	if secrets.variable(niks3Variable) == "" {
		var other *niks3.AudienceError
		if _, err := cache.Audience(); errors.As(err, &other) {
			return usage.Errorf("%w: with such a token, the server could do there what this job may. If that is meant, write %s", err, "niks3:"+c.server+"?audience="+url.QueryEscape(other.Audience))
		} else if err != nil {
			return usage.Wrap(err)
		}
	}
	if cache.Substituter() == "" {
		return fmt.Errorf("the niks3 server %s does not say where its cache is read. Start it with --cache-url", c.server)
	}
	if err := valid.Substituter(cache.Substituter()); err != nil {
		return fmt.Errorf("the configuration of %s: %w", c.server, err)
	}
	if err := valid.All(valid.PublicKey, cache.PublicKeys()...); err != nil {
		return fmt.Errorf("the configuration of %s: %w", c.server, err)
	}
	d.Substituter, d.PublicKeys, d.Public = cache.Substituter(), cache.PublicKeys(), readable(ctx, cache.Substituter())
	return nil
}

// readable reports whether an http binary cache answers without a token. One that gives no answer may do so.
func readable(ctx context.Context, substituter string) bool {
	const timeout = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, substituter+"/nix-cache-info", nil)
	if err != nil {
		return true
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return true
	}
	defer response.Body.Close()
	return response.StatusCode != http.StatusUnauthorized && response.StatusCode != http.StatusForbidden
}

func (*niks3Cache) token(Secrets) string { return "" } // Nix sends none
func (*niks3Cache) program() string      { return "" }

func (*niks3Cache) lacks(secrets Secrets) *LackError {
	if secrets.variable(niks3Variable) != "" || secrets.identified() {
		return nil
	}
	return niks3Lack()
}

func niks3Lack() *LackError {
	return &LackError{What: niks3Variable + " (input env) or the permission " + action.IDTokenPermission, Next: action.IDTokenAdvice}
}

func (c *niks3Cache) open(ctx context.Context, secrets Secrets) (*niks3.Cache, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cache != nil {
		return c.cache, nil
	}
	options := niks3.Options{Server: c.server, Issuer: secrets.Issuer, Audience: c.audience, Token: secrets.IDToken}
	if token := secrets.variable(niks3Variable); token != "" {
		options.Audience = c.server // which nobody reads
		options.Token = func(context.Context, string) (string, error) { return token, nil }
	}
	if options.Token == nil {
		options.Token = func(context.Context, string) (string, error) { return "", niks3Lack() }
	}
	cache, err := niks3.Dial(ctx, options)
	if err != nil {
		return nil, err
	}
	c.cache = cache
	return cache, nil
}

func (c *niks3Cache) push(ctx context.Context, n Nix, paths []string, secrets Secrets) (nix.Traffic, error) {
	cache, err := c.open(ctx, secrets)
	if err != nil {
		return nix.Traffic{}, err
	}
	paths = outputs(paths)
	infos, err := n.Closure(ctx, paths...)
	if err != nil {
		return nix.Traffic{}, err
	}
	stats, err := cache.Push(ctx, infos, paths, n.NAR)
	if err != nil {
		err = fmt.Errorf("niks3 at %s: %w", strings.TrimSuffix(c.server, "/"), err)
	}
	return nix.Traffic{Paths: stats.Paths, Bytes: stats.Bytes}, err
}
