package storecache

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	_ "crypto/sha512" // for content addresses

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"github.com/nix-community/go-nix/pkg/nixbase32"
	"github.com/nix-community/go-nix/pkg/nixhash"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

// An Acceptance decides which paths a store accepts from packs. The zero value accepts only
// those that their content address proves.
type Acceptance struct {
	everything bool
	keys       []signature.PublicKey
}

// Everything accepts all paths, because the writers of the packs are trusted.
func Everything() Acceptance { return Acceptance{everything: true} }

// Proven accepts paths without trust in the writers of the packs: those with a content
// address, and those with a signature by one of the public keys, NAME:BASE64.
func Proven(keys ...string) Acceptance {
	var a Acceptance
	for _, text := range keys {
		if key, err := signature.ParsePublicKey(text); err == nil { // Nix ignores invalid keys, too
			a.keys = append(a.keys, key)
		}
	}
	return a
}

func (a Acceptance) accepts(rec *pack.Record) bool {
	if a.everything {
		return true
	}
	info := pathInfo(rec)
	c, ok := storepath.ParseContentAddress(info.CA)
	return ok && isOf(c, &info) || a.signed(&info)
}

// signed reports whether one of the signatures is by a trusted key and covers this content
// and these references (ValidPathInfo::fingerprint in src/libstore/path-info.cc).
func (a Acceptance) signed(info *nix.PathInfo) bool {
	if len(a.keys) == 0 || len(info.Signatures) == 0 {
		return false
	}
	sum, err := hex.DecodeString(info.NarHash)
	if err != nil {
		return false
	}
	references := slices.Compact(slices.Sorted(slices.Values(info.References)))
	fingerprint := fmt.Sprintf("1;%s;sha256:%s;%d;%s", info.Path, nixbase32.EncodeToString(sum), info.NarSize, strings.Join(references, ","))
	for _, text := range info.Signatures {
		s, err := signature.ParseSignature(text)
		if err == nil && slices.ContainsFunc(a.keys, func(key signature.PublicKey) bool { return key.Verify(fingerprint, s) }) {
			return true
		}
	}
	return false
}

// isOf reports whether a content address is that of a path, as far as the NAR hash proves it.
// For addresses by other hashes, [checked] checks the rest.
func isOf(c storepath.ContentAddress, info *nix.PathInfo) bool {
	return c.IsOf(info.Path, info.References) && (!byNarHash(c) || hex.EncodeToString(c.Hash) == info.NarHash)
}

func byNarHash(c storepath.ContentAddress) bool {
	return c.Method == storepath.NAR && c.Algo == nixhash.SHA256
}

// checked returns a reader of a path's NAR that returns the last bytes only if the NAR has the
// content address, because not every engine compares them. It is an error if the address can't
// be that of the path. Addresses that can't be checked here are left to Nix.
func checked(info *nix.PathInfo, r io.Reader) (io.Reader, error) {
	c, ok := storepath.ParseContentAddress(info.CA)
	if !ok || slices.Contains(info.References, info.Path) {
		return r, nil
	}
	if !isOf(c, info) {
		return nil, wrongAddress(info)
	}
	if byNarHash(c) {
		return r, nil
	}
	content := &addressed{info: info, left: info.NarSize, sum: c.Algo.Func().New(), want: c.Hash}
	if c.Method == storepath.NAR {
		content.r = io.TeeReader(r, content.sum)
	} else {
		content.r = nar.TeeFile(r, info.NarSize, content.sum)
	}
	return content, nil
}

func wrongAddress(info *nix.PathInfo) error {
	return fmt.Errorf("%w: %s does not have the content address %s", pack.ErrCorrupt, info.Path, info.CA)
}

type addressed struct {
	info *nix.PathInfo
	r    io.Reader // writes to the sum
	left int64     // bytes of the NAR
	sum  hash.Hash
	want []byte
}

func (a *addressed) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	a.left -= int64(n)
	if n > 0 && a.left == 0 && !bytes.Equal(a.sum.Sum(nil), a.want) {
		return 0, wrongAddress(a.info)
	}
	return n, err
}
