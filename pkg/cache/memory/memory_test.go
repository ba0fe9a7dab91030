package memory_test

import (
	"testing"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/cache/cachetest"
	"github.com/org/nix-matrix/pkg/cache/memory"
)

func TestContract(t *testing.T) {
	cachetest.Run(t, func(*testing.T) cache.Cache { return memory.New() })
}
