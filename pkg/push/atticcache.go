package push

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push/attic"
)

// parseAttic reads attic:https://SERVER[/PREFIX]/CACHE.
func parseAttic(address, rest string) (Destination, error) {
	u, err := url.Parse(rest)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return Destination{}, fmt.Errorf("push: %q: after attic: goes the address of the cache, such as attic:https://attic.example.org/my-cache", nix.Redact(address))
	}
	if u.User != nil {
		return Destination{}, fmt.Errorf("push: attic:%s: the token is a secret of its own (ATTIC_TOKEN, input attic_token) and no part of the address", u.Redacted())
	}
	cache := path.Base(u.Path)
	if cache == "/" || cache == "." {
		return Destination{}, fmt.Errorf("push: %q: the name of the cache is missing, such as attic:%s/my-cache", address, strings.TrimSuffix(rest, "/"))
	}
	u.Path = path.Dir(u.Path)
	return Destination{Name: address, attic: &atticCache{endpoint: u.String(), name: cache}}, nil
}

// atticCache is asked for its configuration once.
type atticCache struct {
	endpoint string
	name     string

	mu    sync.Mutex
	cache *attic.Cache
}

func (a *atticCache) dial(ctx context.Context, token string) (*attic.Cache, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cache != nil {
		return a.cache, nil
	}
	c, err := attic.Dial(ctx, attic.Options{Endpoint: a.endpoint, Cache: a.name, Token: token})
	if err != nil {
		return nil, err
	}
	a.cache = c
	return c, nil
}

func (a *atticCache) push(ctx context.Context, n Nix, paths []string, token string) (nix.Traffic, error) {
	c, err := a.dial(ctx, token)
	if err != nil {
		return nix.Traffic{}, err
	}
	infos, err := n.Closure(ctx, paths...)
	if err != nil {
		return nix.Traffic{}, err
	}
	closure := make([]attic.Path, 0, len(infos))
	for _, path := range slices.Sorted(maps.Keys(infos)) {
		info := infos[path]
		closure = append(closure, attic.Path{
			StorePath: info.Path, NarHash: info.NarHash, NarSize: info.NarSize, References: info.References,
			Deriver: info.Deriver, CA: info.CA, Signatures: info.Signatures,
		})
	}
	stats, err := c.Push(ctx, closure, n.NAR)
	return nix.Traffic{Paths: stats.Uploaded + stats.Deduplicated, Bytes: stats.Bytes}, err
}
