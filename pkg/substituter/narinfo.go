package substituter

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"github.com/nix-community/go-nix/pkg/nixbase32"

	"github.com/org/nix-matrix/pkg/nix"
)

const (
	storeDir    = "/nix/store/"
	hashSize    = 32 // characters of the hash part of a store path
	narHashSize = 52 // characters of a SHA-256
)

// isHash reports whether text has size characters, all of Nix's base 32.
func isHash(text string, size int) bool {
	if len(text) != size {
		return false
	}
	for i := range len(text) {
		if !strings.ContainsRune(nixbase32.Alphabet, rune(text[i])) {
			return false
		}
	}
	return true
}

// parseNAR returns the hashes in the path of a NAR.
func parseNAR(path string) (hash, narHash string, ok bool) {
	rest, isNAR := strings.CutPrefix(path, "nar/")
	rest, isWhole := strings.CutSuffix(rest, ".nar")
	hash, narHash, isPair := strings.Cut(rest, "-")
	return hash, narHash, isNAR && isWhole && isPair && isHash(hash, hashSize) && isHash(narHash, narHashSize)
}

// base32 returns a SHA-256 of base 16 in Nix's base 32.
func base32(hash string) (string, error) {
	sum, err := hex.DecodeString(hash)
	if err != nil || len(sum) != 32 {
		return "", fmt.Errorf("%q is not a SHA-256", hash)
	}
	return nixbase32.EncodeToString(sum), nil
}

// A Key signs paths.
type Key = signature.SecretKey

// narInfo returns the document of a path, signed with a key unless it is nil or the path has a content address.
func narInfo(info *nix.PathInfo, key *Key) (string, error) {
	hash, err := base32(info.NarHash)
	if err != nil {
		return "", err
	}
	base := strings.TrimPrefix(info.Path, storeDir)
	if len(base) <= hashSize {
		return "", errors.New("not a store path")
	}
	references := slices.Compact(slices.Sorted(slices.Values(info.References)))
	names := make([]string, len(references))
	for i, path := range references {
		names[i] = strings.TrimPrefix(path, storeDir)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "StorePath: %s\nURL: nar/%s-%s.nar\nCompression: none\nFileSize: %d\nNarHash: sha256:%s\nNarSize: %d\nReferences: %s\n",
		info.Path, base[:hashSize], hash, info.NarSize, hash, info.NarSize, strings.Join(names, " "))
	if info.Deriver != "" {
		fmt.Fprintf(&b, "Deriver: %s\n", strings.TrimPrefix(info.Deriver, storeDir))
	}
	for _, one := range info.Signatures {
		fmt.Fprintf(&b, "Sig: %s\n", one)
	}
	if key != nil && info.CA == "" {
		one, err := key.Sign(nil, fmt.Sprintf("1;%s;sha256:%s;%d;%s", info.Path, hash, info.NarSize, strings.Join(references, ",")))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "Sig: %s\n", one)
	}
	if info.CA != "" {
		fmt.Fprintf(&b, "CA: %s\n", info.CA)
	}
	return b.String(), nil
}
