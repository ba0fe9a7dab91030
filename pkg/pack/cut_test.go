package pack

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
)

// Other versions cut at the same places, or they would find no chunk of ours again.
func TestCutIsFormat(t *testing.T) {
	data := make([]byte, 4<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	var sizes []int
	for rest := data; len(rest) > 0; {
		n := cut(rest)
		sizes = append(sizes, n)
		rest = rest[n:]
	}
	sum := sha256.Sum256([]byte(fmt.Sprint(sizes)))
	if got := hex.EncodeToString(sum[:8]); got != "4937067b27c9ea5b" {
		t.Errorf("%s: %v", got, sizes)
	}
	for i, n := range sizes[:len(sizes)-1] {
		if n < minChunk || n > maxChunk {
			t.Errorf("chunk %d has %d bytes", i, n)
		}
	}
}

// Each byte is in the hash, whether it is the first or the second of two, or the last.
func TestRoll(t *testing.T) {
	r := testbench.Random(t)
	for range 2000 {
		data := make([]byte, r.IntN(100))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		begin, least := r.Uint64(), uint64(1)<<(64-r.IntN(10))
		want, hash := 0, begin
		for i, b := range data {
			if hash = hash<<1 + gear[b]; hash < least {
				want = i + 1
				break
			}
		}
		if got, end := roll(data, begin, least); got != want || end != hash {
			t.Fatalf("%d bytes: %d and %x instead of %d and %x", len(data), got, end, want, hash)
		}
	}
}

// A byte at the beginning changes only the chunks near it.
func TestCutIsLocal(t *testing.T) {
	r := testbench.Random(t)
	data := make([]byte, 2<<20)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	chunks := func(data []byte) map[Sum]bool {
		all := map[Sum]bool{}
		for len(data) > 0 {
			n := cut(data)
			all[sumChunk(data[:n])] = true
			data = data[n:]
		}
		return all
	}
	before, after := chunks(data), chunks(append([]byte("x"), data...))
	fresh := 0
	for sum := range after {
		if !before[sum] {
			fresh++
		}
	}
	if fresh > 4 || len(before) < 8 {
		t.Errorf("%d of %d chunks are new", fresh, len(after))
	}
}
