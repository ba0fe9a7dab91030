package storepath

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"github.com/nix-community/go-nix/pkg/nixhash"
)

// A Method is how a content address is computed from a path.
type Method string

// The supported methods. There are others, such as git's.
const (
	Text Method = "text:"    // content of a file, which may refer to other paths
	Flat Method = "fixed:"   // content of a file
	NAR  Method = "fixed:r:" // NAR
)

// A ContentAddress is a content address as in Nix's database, such as fixed:r:sha256:HASH.
type ContentAddress struct {
	Method Method
	Algo   nixhash.Algorithm
	Hash   []byte
}

// ParseContentAddress parses a content address. It reports false for unsupported methods, and
// for hash algorithms with known collisions.
func ParseContentAddress(text string) (ContentAddress, bool) {
	for _, method := range []Method{NAR, Text, Flat} { // the longest first
		rest, ok := strings.CutPrefix(text, string(method))
		if !ok {
			continue
		}
		name, encoded, _ := strings.Cut(rest, ":")
		algo, err := nixhash.ParseAlgorithm(name)
		if err != nil || algo != nixhash.SHA256 && (algo != nixhash.SHA512 || method == Text) {
			return ContentAddress{}, false
		}
		hash, err := nixbase32.DecodeString(encoded)
		if err != nil || len(hash) != algo.Func().Size() {
			return ContentAddress{}, false
		}
		return ContentAddress{method, algo, hash}, true
	}
	return ContentAddress{}, false
}

func (c ContentAddress) String() string {
	return string(c.Method) + c.Algo.String() + ":" + nixbase32.EncodeToString(c.Hash)
}

// IsOf reports whether a store path is that of the address and these references
// (makeFixedOutputPathFromCA in src/libstore/store-dir-config.cc). It reports false for a path
// that refers to itself, because that can't be checked.
func (c ContentAddress) IsOf(path string, references []string) bool {
	name, ok := strings.CutPrefix(path, dir)
	if !ok || len(name) <= hashSize+1 || slices.Contains(references, path) {
		return false
	}
	name = name[hashSize+1:]
	kind := "source"
	switch {
	case c.Method == Text:
		kind = "text"
	case c.Method != NAR || c.Algo != nixhash.SHA256:
		if len(references) > 0 {
			return false
		}
		prefix := strings.TrimPrefix(string(c.Method), "fixed:")
		sum := sha256.Sum256([]byte("fixed:out:" + prefix + c.Algo.String() + ":" + hex.EncodeToString(c.Hash) + ":"))
		return path == makePath("output:out", sum[:], name)
	}
	for _, reference := range slices.Compact(slices.Sorted(slices.Values(references))) {
		kind += ":" + reference
	}
	return path == makePath(kind, c.Hash, name)
}

const (
	dir        = "/nix/store/"
	digestSize = 20 // bytes of the compressed hash in a store path
	hashSize   = 32 // characters of these in base 32
)

// makePath returns the path of something that a SHA-256 identifies (makeStorePath in
// src/libstore/store-dir-config.cc).
func makePath(kind string, hash []byte, name string) string {
	sum := sha256.Sum256([]byte(kind + ":sha256:" + hex.EncodeToString(hash) + ":/nix/store:" + name))
	return dir + nixbase32.EncodeToString(nixhash.CompressHash(sum[:], digestSize)) + "-" + name
}
