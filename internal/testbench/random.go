package testbench

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// SeedVariable is the environment variable that gives [Random] the seed that a failed test
// has logged.
const SeedVariable = "NIX_MATRIX_TEST_SEED"

// Random returns a source of random numbers whose seed the test logs.
func Random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(SeedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("invalid value %q for %s: must be a number", text, SeedVariable)
		}
	}
	t.Logf("to reproduce: %s=%d", SeedVariable, seed)
	return rand.New(rand.NewPCG(seed, 0))
}
