package nix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// LocalInputs returns the addresses of a flake's direct and indirect inputs that are files of
// this machine outside the flake. Through them, the author of the flake can read any file that
// this user can read, even in a pure evaluation. Those that an Override names are left out. No output of the flake is evaluated, but
// inputs without a lock are fetched. Unless cache is empty, Nix uses that directory in place of
// the user's cache.
func (n *Nix) LocalInputs(ctx context.Context, ref, cache string) ([]string, error) {
	if cache != "" {
		other := *n
		other.env = append(slices.Clone(n.env), "XDG_CACHE_HOME="+cache)
		n = &other
	}
	m, err := n.flakeMetadata(ctx, ref, "--no-write-lock-file")
	if err != nil {
		return nil, err
	}
	var nodes map[string]struct {
		Original, Locked struct{ URL, Path any }
	}
	graph, err := m.graph()
	if err := errors.Join(err, json.Unmarshal(m.Locks.Nodes, &nodes)); err != nil {
		return nil, fmt.Errorf("cannot read nix flake metadata: %w", err)
	}
	for _, o := range n.Overrides(ref) { // the caller names these
		if name, ok := graph.node(o.Input); ok && name != graph.root {
			delete(nodes, name)
		}
	}
	found := map[string]bool{}
	for _, node := range nodes {
		for _, address := range []any{node.Original.URL, node.Original.Path, node.Locked.URL, node.Locked.Path} {
			if text, ok := address.(string); ok && local(text) {
				found[text] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// local reports whether an address of an input names a file by an absolute path outside the
// store. Nix lets no relative path lead out of the flake.
func local(address string) bool {
	scheme, rest, ok := strings.Cut(address, ":")
	if ok && (scheme == "path" || scheme == "file" || strings.HasSuffix(scheme, "+file")) {
		address = rest
	}
	return path.IsAbs(address) && !strings.HasPrefix(path.Clean(address), "/nix/store/")
}
