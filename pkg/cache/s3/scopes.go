package s3

import (
	"context"
	"fmt"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/cache"
)

// scopePattern matches the names that scopes have in names of objects.
var scopePattern = lazyregexp.New(`^(?:[a-z]+(?:/[a-z0-9._+=-]+)?)?$`)

// ListScopes returns the blobs of all scopes whose keys start with prefix. The name of a scope is its
// part of the names of objects, empty for the default scope.
func (b *Bucket) ListScopes(ctx context.Context, prefix string) (map[string][]cache.Stored, error) {
	root := b.dir(Scope{})
	all := map[string][]cache.Stored{}
	err := b.list(ctx, root, func(o *minio.ObjectInfo) bool {
		name, ok := strings.CutPrefix(o.Key, root)
		scope, key, is := splitName(name)
		if ok && is && strings.HasPrefix(key, prefix) && o.Size > 0 {
			all[scope] = append(all[scope], cache.Stored{Key: key, Size: o.Size, Saved: o.LastModified})
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list %s: %w", b.config.Address, b.named(err))
	}
	return all, nil
}

// splitName splits the name of an object, behind the prefix of the address, into its scope and its
// key. ok is false for other names.
func splitName(name string) (scope, key string, ok bool) {
	pieces := strings.Split(name, "/")
	first := len(pieces) - 1 // of the key
	for first > 0 && strings.HasSuffix(pieces[first-1], strings.TrimSuffix(more, "/")) {
		first--
	}
	scope = strings.Join(pieces[:first], "/")
	key, ok = keyOf(strings.Join(pieces[first:], "/"))
	ok = ok && (scope != "") == (first > 0)
	return scope, key, ok && cache.CheckKey(key) == nil && scopePattern().MatchString(scope)
}

// InScope returns the cache of one scope that ListScopes has named.
func (b *Bucket) InScope(name string) cache.Collectable {
	dir := b.dir(Scope{})
	if name != "" {
		dir += name + "/"
	}
	class, _, _ := strings.Cut(name, "/")
	return &scoped{Bucket: b, own: Scope{Class: class}, dirs: []string{dir}}
}
