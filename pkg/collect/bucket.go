package collect

import (
	"context"
	"strings"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache"
)

// Scopes is a cache of several scopes, by their names; the default scope has none.
type Scopes interface {
	// ListScopes returns the blobs whose keys start with prefix, by their scopes.
	ListScopes(ctx context.Context, prefix string) (map[string][]cache.Stored, error)
	// InScope returns the cache of one scope.
	InScope(name string) cache.Collectable
}

// Bucket returns a cache in a bucket, in which scopes stand for refs.
func Bucket(scopes Scopes) Cache { return bucket{scopes} }

// ProposalScope reports whether a scope is that of a proposal.
func ProposalScope(name string) bool { return strings.HasPrefix(name, action.ProposalScopes+"/") }

// RefScope reports whether a scope is not the default one.
func RefScope(name string) bool { return name != "" }

type bucket struct{ scopes Scopes }

func (b bucket) list(ctx context.Context, prefix string) ([]action.CacheEntry, error) {
	found, err := b.scopes.ListScopes(ctx, prefix)
	var entries []action.CacheEntry
	for scope, all := range found {
		for _, f := range all {
			entries = append(entries, action.CacheEntry{Key: f.Key, Ref: scope, Size: f.Size, Created: f.Saved, Used: f.Saved})
		}
	}
	return entries, err
}

func (b bucket) remove(ctx context.Context, e action.CacheEntry) error {
	return b.scopes.InScope(e.Ref).Remove(ctx, e.Key)
}

func (bucket) defaultRef(context.Context) (string, error) { return "", nil }

func (bucket) slow() bool { return false }
