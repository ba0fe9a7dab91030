package git

import (
	"context"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

var commitPattern = lazyregexp.New(`^([0-9a-f]{40}|[0-9a-f]{64})\n$`)

// Heads returns the commits of the checkouts that directories are in, each once, and an empty text for a
// checkout whose commit cannot be read. A directory may be in no checkout.
func Heads(ctx context.Context, env []string, dirs ...string) []string {
	var all []string
	roots := map[string]bool{} // that were asked
	for _, dir := range dirs {
		r, err := Find(dir, env)
		if err == nil && (r == nil || roots[r.Root]) {
			continue
		}
		head := ""
		if err == nil {
			roots[r.Root] = true
			head = r.head(ctx)
		}
		if !slices.Contains(all, head) {
			all = append(all, head)
		}
	}
	return all
}

// head returns the commit of HEAD, or an empty text.
func (r *Repository) head(ctx context.Context) string {
	out, err := r.Output(ctx, nil, "rev-parse", "--verify", "--quiet", "HEAD")
	if err != nil || !commitPattern().Match(out) {
		return ""
	}
	return strings.TrimSpace(string(out))
}
