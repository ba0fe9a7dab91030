package niks3

import (
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/nix-community/go-nix/pkg/nixbase32"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/nix"
)

// metadata is a path as the server wants to have it described before it signs.
type metadata struct {
	StorePath   string   `json:"store_path"`
	URL         string   `json:"url"`
	Compression string   `json:"compression"`
	NarHash     string   `json:"nar_hash"` // sha256:BASE32
	NarSize     int64    `json:"nar_size"`
	References  []string `json:"references"` // store paths
	Deriver     *string  `json:"deriver,omitempty"`
	Signatures  []string `json:"signatures,omitempty"`
	CA          *string  `json:"ca,omitempty"`
}

// metadataOf describes a path for which objectsOf has returned no error.
func metadataOf(info *nix.PathInfo) *metadata {
	hash, _ := hex.DecodeString(info.NarHash)
	m := &metadata{
		StorePath: info.Path, URL: narKey(hash), Compression: "zstd", NarHash: "sha256:" + nixbase32.EncodeToString(hash), NarSize: info.NarSize,
		References: slices.Compact(slices.Sorted(slices.Values(info.References))),
	}
	if m.References == nil {
		m.References = []string{}
	}
	if valid.Derivation(info.Deriver) == nil { // or it is not known
		m.Deriver = &info.Deriver
	}
	for _, s := range info.Signatures {
		if signature().MatchString(s) {
			m.Signatures = append(m.Signatures, s)
		}
	}
	if info.CA != "" && valid.Line(info.CA, longestLine) == nil {
		m.CA = &info.CA
	}
	return m
}

const longestLine = 1000 // of a narinfo that is not references, in bytes

// signature is the form of one, which is a line of a narinfo.
var signature = lazyregexp.New(`^[^\s:]{1,255}:[A-Za-z0-9+/]{1,512}={0,2}$`)

// narinfo returns the text of a narinfo with further signatures, which the server has made.
func (m *metadata) narinfo(signatures []string) ([]byte, error) {
	if err := valid.All(checkSignature, signatures...); err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "StorePath: %s\nURL: %s\nCompression: %s\nNarHash: %s\nNarSize: %d\nReferences:", m.StorePath, m.URL, m.Compression, m.NarHash, m.NarSize)
	for _, reference := range m.References {
		b.WriteString(" " + path.Base(reference))
	}
	if len(m.References) == 0 {
		b.WriteString(" ") // Nix wants a blank after the colon
	}
	b.WriteString("\n")
	if m.Deriver != nil {
		fmt.Fprintf(&b, "Deriver: %s\n", path.Base(*m.Deriver))
	}
	for _, s := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(m.Signatures, signatures)))) {
		fmt.Fprintf(&b, "Sig: %s\n", s)
	}
	if m.CA != nil {
		fmt.Fprintf(&b, "CA: %s\n", *m.CA)
	}
	return []byte(b.String()), nil
}

func checkSignature(s string) error {
	if !signature().MatchString(s) {
		return fmt.Errorf("the server's signature is not one: %s", valid.Quote(s))
	}
	return nil
}

// encoders are encoders of zstd, each of which has buffers of megabytes.
var encoders = sync.Pool{New: func() any {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err) // of options that are always the same
	}
	return encoder
}}

// compressed returns data compressed by zstd.
func compressed(data []byte) []byte {
	encoder := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(encoder)
	return encoder.EncodeAll(data, nil)
}
