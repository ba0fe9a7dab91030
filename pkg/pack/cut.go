package pack

import (
	"crypto/sha256"
	"encoding/binary"
)

// Sizes of chunks in bytes. The last chunk of a file may be smaller than minChunk.
const (
	minChunk = 16 << 10
	avgChunk = 64 << 10
	maxChunk = 256 << 10
)

// A chunk is cut where the highest bits of the hash are zero: many bits before the average size,
// fewer after it, so that most chunks are about as large as the average (the "normalized
// chunking" of Xia et al., FastCDC, USENIX ATC 2016, section 3.4, level 2).
const (
	bitsBelow = 64 - 18
	bitsAbove = 64 - 14
)

// gear has a random number for each byte: the first 8 bytes, little endian, of the SHA-256 of
// "nix-matrix gear" and the byte.
var gear = func() (g [256]uint64) {
	for i := range g {
		sum := sha256.Sum256(append([]byte("nix-matrix gear"), byte(i)))
		g[i] = binary.LittleEndian.Uint64(sum[:])
	}
	return g
}()

// cut returns the length of the first chunk of p, which has maxChunk bytes or more, or ends with
// its file. The hash of a position depends on the 64 bytes before it, so that equal contents are
// cut at the same places wherever they are.
func cut(p []byte) int {
	if len(p) <= minChunk {
		return len(p)
	}
	above, end := min(len(p), avgChunk), min(len(p), maxChunk)
	n, hash := roll(p[minChunk:above], 0, 1<<bitsBelow)
	if n > 0 {
		return minChunk + n
	}
	if n, _ = roll(p[above:end], hash, 1<<bitsAbove); n > 0 {
		return above + n
	}
	return end
}

// roll continues the hash, and returns how many bytes of p it has when it is below least, or 0. Two
// bytes at a time, because each hash waits for the one before.
func roll(p []byte, hash, least uint64) (int, uint64) {
	i := 0
	for ; i+1 < len(p); i += 2 {
		first := gear[p[i]]
		middle := hash<<1 + first
		hash = hash<<2 + (first<<1 + gear[p[i+1]])
		if middle < least {
			return i + 1, middle
		}
		if hash < least {
			return i + 2, hash
		}
	}
	if i < len(p) {
		if hash = hash<<1 + gear[p[i]]; hash < least {
			return i + 1, hash
		}
	}
	return 0, hash
}

// A Sum identifies a chunk: the first half of its SHA-256.
type Sum [16]byte

func sumChunk(p []byte) Sum {
	sum := sha256.Sum256(p)
	return Sum(sum[:])
}
