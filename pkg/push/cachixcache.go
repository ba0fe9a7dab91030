package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/nix"
)

// cachixAPI answers GET cache/NAME with the keys that sign a cache, for a private one only with
// a token: {"publicSigningKeys": [KEY, …], "isPublic": BOOL, …}.
const cachixAPI = "https://cachix.org/api/v1/cache/"

// cachixHost is the address that Cachix serves a cache at.
var cachixHost = lazyregexp.New(`^https?://([A-Za-z0-9-]+)\.cachix\.org/?(?:\?|$)`)

// cachixCache is a cache of Cachix, which is asked for its keys once.
type cachixCache struct {
	name string
	api  string

	mu     sync.Mutex
	known  []string
	public bool
}

// parseCachix reads cachix:NAME.
func parseCachix(address, name string) (Destination, error) {
	if valid.Name(name) != nil {
		return Destination{}, fmt.Errorf("%q: the name of the cache is not valid. Write for example cachix:my-fleet", nix.Redact(address))
	}
	return Destination{Name: address, Substituter: "https://" + name + ".cachix.org", kind: &cachixCache{name: name, api: cachixAPI}}, nil
}

// notCachix returns an error if an address is one that Cachix serves a cache at.
func notCachix(address string) error {
	if host := cachixHost().FindStringSubmatch(address); host != nil {
		return fmt.Errorf("%q: Cachix takes no pushes by its address. Write cachix:%s", nix.Redact(address), host[1])
	}
	return nil
}

func (c *cachixCache) dial(ctx context.Context, d *Destination, secrets Secrets) error {
	keys, err := c.keys(ctx, secrets.CachixToken)
	if err != nil {
		return err
	}
	if err := valid.All(valid.PublicKey, keys...); err != nil {
		return fmt.Errorf("the keys of %s: %w", d.Name, err)
	}
	d.PublicKeys, d.Public = keys, c.public
	return nil
}

func (*cachixCache) token(secrets Secrets) string { return secrets.CachixToken }
func (*cachixCache) program() string              { return "cachix" }

func (*cachixCache) lacks(secrets Secrets) *LackError {
	if secrets.CachixToken == "" && secrets.CachixKey == "" && !cachixConfigured() {
		return &LackError{What: "CACHIX_AUTH_TOKEN (input cachix_auth_token) or CACHIX_SIGNING_KEY (input cachix_signing_key)"}
	}
	return nil
}

func (c *cachixCache) push(ctx context.Context, n Nix, paths []string, _ Secrets) (nix.Traffic, error) {
	return nix.Traffic{}, n.Cachix(ctx, c.name, outputs(paths))
}

func (c *cachixCache) keys(ctx context.Context, token string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known != nil {
		return c.known, nil
	}
	keys, err := c.ask(ctx, token)
	if err != nil {
		return nil, fmt.Errorf("cannot ask Cachix for the keys of %s: %w", c.name, err)
	}
	c.known = keys
	return keys, nil
}

func (c *cachixCache) ask(ctx context.Context, token string) ([]string, error) {
	const timeout = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.api+c.name, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		next := "Check the name, and whether the token is for this cache"
		if token == "" {
			next = "Check the name, and set CACHIX_AUTH_TOKEN (input cachix_auth_token) if the cache is private"
		}
		err := fmt.Errorf("the server answers %s. %s", response.Status, next)
		if token == "" && cachixConfigured() {
			return nil, err // its program has a token
		}
		return nil, refused(err, response.StatusCode)
	}
	var cache struct {
		PublicSigningKeys []string `json:"publicSigningKeys"`
		Public            bool     `json:"isPublic"`
	}
	const enough = 1 << 20
	if err := json.NewDecoder(io.LimitReader(response.Body, enough)).Decode(&cache); err != nil {
		return nil, err
	}
	if len(cache.PublicSigningKeys) == 0 {
		return nil, errors.New("it has none")
	}
	const most = 20
	if n := len(cache.PublicSigningKeys); n > most {
		return nil, fmt.Errorf("it has %d, more than %d", n, most)
	}
	c.public = cache.Public
	return cache.PublicSigningKeys, nil
}

// cachixConfigured reports whether Cachix's program has been given a token before.
func cachixConfigured() bool {
	config := os.Getenv("XDG_CONFIG_HOME") // on macOS too
	if config == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return false
		}
		config = filepath.Join(home, ".config")
	}
	_, err := os.Stat(filepath.Join(config, "cachix", "cachix.dhall")) //nolint:gosec // the user's own directory
	return err == nil
}
