package storepath

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixhash"
)

// Source returns the store path of a fetched tree, such as a flake's input, from
// the SHA-256 of its NAR (makeFixedOutputPath in src/libstore/store-dir-config.cc).
func Source(nar [sha256.Size]byte) string { return makePath("source", nar[:], "source") }

// SourceCA returns the content address of [Source].
func SourceCA(nar [sha256.Size]byte) string {
	return ContentAddress{NAR, nixhash.SHA256, nar[:]}.String()
}

// ParseNarHash parses the hash of a lock file: sha256-BASE64.
func ParseNarHash(sri string) (nar [sha256.Size]byte, ok bool) {
	text, ok := strings.CutPrefix(sri, "sha256-")
	sum, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(sum) != len(nar) {
		return nar, false
	}
	return [sha256.Size]byte(sum), true
}
