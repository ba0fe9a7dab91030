package report

import (
	"math"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/verdict"
)

// The section stays within its limit for any number of changes.
func TestChangesAreCut(t *testing.T) {
	t.Parallel()
	c := &verdict.Change{Commit: "0123456789abcdef", Branch: "main", Rebuild: -1}
	for i := range 1000 {
		name := strings.Repeat("`|", 100) + string(rune('a'+i%26))
		c.Added, c.Removed = append(c.Added, name), append(c.Removed, name)
		c.Changed = append(c.Changed, verdict.ChangedTarget{Name: name, Before: math.MaxInt64, After: math.MinInt64})
	}
	const limit = 20_000
	if text := (change{c}).markdown(limit, SummaryOptions{}); len(text) > limit || strings.Count(text, " more") != 3 {
		t.Errorf("%d bytes:\n%.2000s", len(text), text)
	}
}
