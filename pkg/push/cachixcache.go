package push

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// cachixAPI tells of each cache, with a token of private ones too, by which keys
// it is signed: GET cache/NAME gives {"publicSigningKeys": [KEY, …], "isPublic": BOOL, …}.
const cachixAPI = "https://cachix.org/api/v1/cache/"

// cachixCache is asked for its keys once.
type cachixCache struct {
	name string
	api  string

	mu     sync.Mutex
	known  []string
	public bool
}

func (c *cachixCache) keys(ctx context.Context, token string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known != nil {
		return c.known, nil
	}
	keys, err := c.ask(ctx, token)
	if err != nil {
		return nil, fmt.Errorf("ask Cachix for the keys of %s: %w", c.name, err)
	}
	c.known = keys
	return keys, nil
}

func (c *cachixCache) ask(ctx context.Context, token string) ([]string, error) {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
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
		err := fmt.Errorf("it says %s; is the name right, and the token one for it?", response.Status)
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
		return nil, fmt.Errorf("it has none")
	}
	c.public = cache.Public
	return cache.PublicSigningKeys, nil
}

// cachixConfigured says whether Cachix's program has been given a token before.
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
