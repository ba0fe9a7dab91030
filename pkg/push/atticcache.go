package push

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push/attic"
)

// parseAttic reads attic:https://SERVER[/PREFIX]/CACHE.
func parseAttic(address, rest string) (Destination, error) {
	u, err := url.Parse(rest)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return Destination{}, fmt.Errorf("%q: the address of the cache is missing after attic:. Write for example attic:https://attic.example.org/my-cache", nix.Redact(address))
	}
	if u.User != nil {
		return Destination{}, fmt.Errorf("attic:%s: an address has no token. Set ATTIC_TOKEN (input attic_token)", u.Redacted())
	}
	cache := path.Base(u.Path)
	if cache == "/" || cache == "." {
		return Destination{}, fmt.Errorf("%q: the name of the cache is missing. Write for example attic:%s/my-cache", address, strings.TrimSuffix(rest, "/"))
	}
	u.Path = path.Dir(u.Path)
	return Destination{Name: address, kind: &atticCache{endpoint: u.String(), name: cache}}, nil
}

// atticCache is a cache of an Attic server, which is asked for its configuration once.
type atticCache struct {
	endpoint string
	name     string

	mu    sync.Mutex
	cache *attic.Cache
}

func (a *atticCache) dial(ctx context.Context, d *Destination, secrets Secrets) error {
	c, err := a.open(ctx, secrets.AtticToken)
	if err != nil {
		return err
	}
	if err := cmp.Or(valid.Substituter(c.Substituter()), valid.PublicKey(c.PublicKey())); err != nil {
		return fmt.Errorf("the server's configuration: %w", err)
	}
	d.Substituter, d.PublicKeys, d.Public = c.Substituter(), []string{c.PublicKey()}, c.Public()
	return nil
}

func (*atticCache) token(secrets Secrets) string { return secrets.AtticToken }
func (*atticCache) program() string              { return "" }

func (*atticCache) lacks(secrets Secrets) *LackError {
	if secrets.AtticToken == "" {
		return &LackError{What: "ATTIC_TOKEN (input attic_token)"}
	}
	return nil
}

func (a *atticCache) open(ctx context.Context, token string) (*attic.Cache, error) {
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

func (a *atticCache) push(ctx context.Context, n Nix, paths []string, secrets Secrets) (nix.Traffic, error) {
	c, err := a.open(ctx, secrets.AtticToken)
	if err != nil {
		return nix.Traffic{}, err
	}
	infos, err := n.Closure(ctx, outputs(paths)...)
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
