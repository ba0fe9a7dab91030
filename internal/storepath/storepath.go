// Package storepath checks foreign store paths.
//
// It is stricter than go-nix's package of the same name, which cleans a path
// before it checks it and so accepts HASH-a/../../b.
package storepath

import "strings"

// maxName is the longest name in Nix's checkName (src/libstore/path.cc), whose newer versions
// allow a dot at the start.
const maxName = 211

// The parts of a path in which a character may be.
const (
	inHash = 1 << iota
	inName
)

var characters = func() (of [256]byte) {
	for class, text := range map[byte]string{
		inHash: "0123456789abcdfghijklmnpqrsvwxyz",
		inName: "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?=",
	} {
		for _, c := range []byte(text) {
			of[c] |= class
		}
	}
	return of
}()

// Valid reports whether path is a store path: directly below /nix/store, with only
// characters that are safe in file names and on command lines.
func Valid(path string) bool {
	base, ok := strings.CutPrefix(path, dir)
	if !ok || len(base) <= hashSize+1 || len(base) > hashSize+1+maxName || base[hashSize] != '-' {
		return false
	}
	for i := range len(base) {
		class := byte(inName)
		if i < hashSize {
			class = inHash
		}
		if characters[base[i]]&class == 0 {
			return false
		}
	}
	return true
}
