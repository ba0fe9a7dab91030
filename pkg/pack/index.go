package pack

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"

	"github.com/org/nix-matrix/internal/storepath"
)

const (
	indexVersion   = 1
	skippableMagic = 0x184D2A5E
	skippableHead  = 8 // magic number and length of a skippable frame
	trailerMagic   = "nixmpack"
	sealedMagic    = "nixmseal"
	trailerSize    = 8 + len(trailerMagic)
	// maxIndex is the most bytes of memory that an index may need.
	maxIndex = 512 << 20
)

var (
	// ErrCorrupt is wrapped by every error about wrong bytes in a pack.
	ErrCorrupt = errors.New("the pack is corrupt")
	// ErrRead is wrapped by every error of a Source.
	ErrRead = errors.New("cannot read the pack")
)

// A Source provides the bytes of a pack, such as those of a blob in a cache.
type Source interface {
	// Size is in bytes.
	Size() int64
	// Range reads exactly length bytes from offset on.
	Range(ctx context.Context, offset, length int64) (io.ReadCloser, error)
}

// An Index has the paths of a pack and their positions in it.
type Index struct {
	Records []Record // in reference order
	frames  []frame
	byPath  map[string]int
	seal    *seal  // nil if the pack is in clear, or not unsealed
	salt    []byte // of a sealed pack
}

// A Record is one store path in a pack.
type Record struct {
	Path       string
	References []string // store paths, in the order of the export stream
	Deriver    string   // store path, or empty
	NarHash    [sha256.Size]byte
	NarSize    int64 // bytes
	Proof

	frame  int   // number of its frame
	offset int64 // of the record in the decompressed frame
}

// A Proof makes a store accept a path from a user whom it does not trust.
// The export stream has none, so the index has it.
type Proof struct {
	Signatures []string // NAME:BASE64
	CA         string   // content address as Nix writes it, text:… or fixed:…, or empty
}

const maxSignatures = 100 // of one path

// The name of a key has neither a space nor a colon, as in the setting
// trusted-public-keys. Both values become part of lines of other formats.
var (
	signaturePattern = regexp.MustCompile(`^[^:\pZ\pC]{1,255}:[0-9A-Za-z+/]{1,512}={0,2}$`)
	caPattern        = regexp.MustCompile(`^(text|fixed):([a-z]{1,16}:)?[0-9a-z-]{1,16}:[0-9A-Za-z+/=]{1,256}$`)
)

// wellFormed returns the proof without values that a reader of the index would refuse.
func (p Proof) wellFormed() Proof {
	var q Proof
	for _, signature := range p.Signatures {
		if signaturePattern.MatchString(signature) && len(q.Signatures) < maxSignatures {
			q.Signatures = append(q.Signatures, signature)
		}
	}
	if caPattern.MatchString(p.CA) {
		q.CA = p.CA
	}
	return q
}

type frame struct {
	offset, size int64 // in the pack, compressed
	length       int64 // decompressed
}

// indexJSON is the index as JSON. Paths are numbers in one list, because an index of
// derivations is mostly references.
type indexJSON struct {
	Version int          `json:"version"`
	Paths   []string     `json:"paths"` // those of the records, then other references and derivers
	Records []recordJSON `json:"records"`
	Frames  [][3]int64   `json:"frames"` // offset, size, decompressed length
	Salt    []byte       `json:"salt,omitempty"`
}

type recordJSON struct {
	NarHash    string   `json:"h"`
	NarSize    int64    `json:"n"`
	References []int    `json:"r,omitempty"`
	Deriver    *int     `json:"d,omitempty"`
	Signatures []string `json:"s,omitempty"`
	CA         string   `json:"c,omitempty"`
	Frame      int      `json:"f"`
	Offset     int64    `json:"o"`
}

// find prepares Find.
func (ix *Index) find() {
	ix.byPath = make(map[string]int, len(ix.Records))
	for n := range ix.Records {
		ix.byPath[ix.Records[n].Path] = n
	}
}

// Find returns the number of the record of a path.
func (ix *Index) Find(path string) (int, bool) {
	n, ok := ix.byPath[path]
	return n, ok
}

// Frame returns the number of the frame with a record, and its position in the pack in
// bytes.
func (ix *Index) Frame(record int) (number int, offset, size int64) {
	number = ix.Records[record].frame
	return number, ix.frames[number].offset, ix.frames[number].size
}

// Closure returns the numbers of the records in the closure of the paths, in reference
// order. It is an error if the pack lacks one of them.
func (ix *Index) Closure(paths ...string) ([]int, error) {
	wanted := make([]bool, len(ix.Records))
	todo := make([]int, 0, len(paths))
	add := func(path, because string) error {
		n, ok := ix.Find(path)
		if !ok {
			return fmt.Errorf("the pack lacks %s, which %s", path, because)
		}
		if !wanted[n] {
			wanted[n] = true
			todo = append(todo, n)
		}
		return nil
	}
	for _, path := range paths {
		if err := add(path, "was requested"); err != nil {
			return nil, err
		}
	}
	for len(todo) > 0 {
		rec := &ix.Records[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		for _, ref := range rec.References {
			if err := add(ref, rec.Path+" refers to"); err != nil {
				return nil, err
			}
		}
	}
	var numbers []int
	for n, is := range wanted {
		if is {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// MarshalJSON returns the index as in the pack, and the salt of a sealed one, for a document
// about several packs.
func (ix *Index) MarshalJSON() ([]byte, error) {
	doc := ix.document()
	doc.Salt = ix.salt
	return json.Marshal(doc)
}

// UnmarshalJSON parses the result of MarshalJSON and checks that it is consistent in itself.
// NewReader works with a sealed pack only after [Index.Unseal].
func (ix *Index) UnmarshalJSON(data []byte) error {
	var doc indexJSON
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	if len(doc.Salt) > 0 && len(doc.Salt) != len(salt{}) {
		return fmt.Errorf("%w: index: a salt of %d bytes", ErrCorrupt, len(doc.Salt))
	}
	read, err := readIndex(&doc, math.MaxInt64)
	if err != nil {
		return err
	}
	*ix, ix.salt = *read, doc.Salt
	return nil
}

// Unseal sets the key with which NewReader reads a sealed pack. It must be the nil Key if the
// pack is in clear.
func (ix *Index) Unseal(key *Key) error {
	switch isSealed := len(ix.salt) > 0; {
	case isSealed && key == nil:
		return fmt.Errorf("%w: a pack is sealed, and no key is given", ErrKey)
	case !isSealed && key != nil:
		return fmt.Errorf("%w: a key is given, and a pack is not sealed", ErrKey)
	}
	if key != nil {
		opens := key.derive("pack", salt(ix.salt))
		ix.seal = &opens
	}
	return nil
}

func (ix *Index) document() *indexJSON {
	doc := &indexJSON{Version: indexVersion}
	number := make(map[string]int, len(ix.Records))
	for i, rec := range ix.Records {
		number[rec.Path] = i
		doc.Paths = append(doc.Paths, rec.Path)
	}
	num := func(path string) int {
		n, ok := number[path]
		if !ok {
			n = len(doc.Paths)
			number[path] = n
			doc.Paths = append(doc.Paths, path)
		}
		return n
	}
	for _, rec := range ix.Records {
		r := recordJSON{
			NarHash: hex.EncodeToString(rec.NarHash[:]), NarSize: rec.NarSize,
			Signatures: rec.Signatures, CA: rec.CA,
			Frame: rec.frame, Offset: rec.offset,
		}
		for _, ref := range rec.References {
			r.References = append(r.References, num(ref))
		}
		if rec.Deriver != "" {
			n := num(rec.Deriver)
			r.Deriver = &n
		}
		doc.Records = append(doc.Records, r)
	}
	for _, f := range ix.frames {
		doc.Frames = append(doc.Frames, [3]int64{f.offset, f.size, f.length})
	}
	return doc
}

// parseIndex reads the compressed JSON of an index and checks that it is
// consistent in itself and with a pack whose frames end at offset end.
func parseIndex(data []byte, end int64) (*Index, error) {
	var doc indexJSON
	if err := DecompressJSON(data, maxIndex, &doc); err != nil {
		return nil, err
	}
	return readIndex(&doc, end)
}

func readIndex(doc *indexJSON, end int64) (*Index, error) {
	if doc.Version != indexVersion {
		return nil, fmt.Errorf("the pack's index has version %d, but this nix-matrix reads version %d", doc.Version, indexVersion)
	}
	bad := func(format string, args ...any) (*Index, error) {
		return nil, fmt.Errorf("%w: index: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if len(doc.Records) > len(doc.Paths) {
		return bad("%d records but %d paths", len(doc.Records), len(doc.Paths))
	}
	for _, path := range doc.Paths {
		if !storepath.Valid(path) {
			return bad("%q is not a store path", path)
		}
	}
	ix := &Index{byPath: make(map[string]int, len(doc.Records))}
	var offset int64
	for i, f := range doc.Frames {
		fr := frame{offset: f[0], size: f[1], length: f[2]}
		if fr.offset != offset || fr.size <= 0 || fr.length < 0 || fr.size > end-offset {
			return bad("frame %d lies outside the pack", i)
		}
		offset += fr.size
		ix.frames = append(ix.frames, fr)
	}
	for i, r := range doc.Records {
		rec := Record{Path: doc.Paths[i], NarSize: r.NarSize, frame: r.Frame, offset: r.Offset}
		sum, err := hex.DecodeString(r.NarHash)
		if err != nil || len(sum) != sha256.Size {
			return bad("%q is not a hash", r.NarHash)
		}
		copy(rec.NarHash[:], sum)
		if r.Frame < 0 || r.Frame >= len(ix.frames) {
			return bad("there is no frame %d", r.Frame)
		}
		if length := ix.frames[r.Frame].length; r.Offset < 0 || r.NarSize < 0 || r.Offset > length || r.NarSize > length-r.Offset {
			return bad("%s lies outside its frame", rec.Path)
		}
		if i > 0 {
			before := &ix.Records[i-1]
			if r.Frame < before.frame || r.Frame == before.frame && r.Offset < before.offset+before.NarSize {
				return bad("%s overlaps %s", rec.Path, before.Path)
			}
		}
		for _, ref := range r.References {
			if ref < 0 || ref >= len(doc.Paths) {
				return bad("there is no path %d", ref)
			}
			if ref < len(doc.Records) && ref > i {
				return bad("%s stands before %s, which it refers to", rec.Path, doc.Paths[ref])
			}
			rec.References = append(rec.References, doc.Paths[ref])
		}
		if r.Deriver != nil {
			if *r.Deriver < 0 || *r.Deriver >= len(doc.Paths) {
				return bad("there is no path %d", *r.Deriver)
			}
			rec.Deriver = doc.Paths[*r.Deriver]
		}
		rec.Proof = Proof{Signatures: r.Signatures, CA: r.CA}
		if fine := rec.wellFormed(); len(fine.Signatures) != len(r.Signatures) || fine.CA != r.CA {
			return bad("invalid signature or content address of %s", rec.Path)
		}
		if _, twice := ix.byPath[rec.Path]; twice {
			return bad("%s is there twice", rec.Path)
		}
		ix.byPath[rec.Path] = i
		ix.Records = append(ix.Records, rec)
	}
	return ix, nil
}

// ReadIndex reads the index of a pack. sum is the index's SHA-256 in hex as
// [Write] returned it; with an empty sum the index is not checked. If the pack is sealed
// with another key, or sealed and key is nil, or not sealed and key is not, the error
// wraps [ErrKey].
func ReadIndex(ctx context.Context, src Source, sum string, key *Key) (*Index, error) {
	// One read is enough for most packs.
	const guess = 256 << 10
	size := src.Size()
	tail, err := readRange(ctx, src, max(0, size-guess), min(size, guess))
	if err != nil {
		return nil, fmt.Errorf("%w: at its end: %w", ErrRead, err)
	}
	magic, isSealed := "", false
	if len(tail) >= trailerSize {
		magic = string(tail[len(tail)-len(trailerMagic):])
		isSealed = magic == sealedMagic
	}
	switch {
	case magic != trailerMagic && !isSealed:
		return nil, fmt.Errorf("%w: it has no index at its end", ErrCorrupt)
	case key != nil && !isSealed:
		return nil, fmt.Errorf("%w: the pack is not sealed, but a key is given. Set encryption_key in all jobs or in none", ErrKey)
	}
	length := binary.LittleEndian.Uint64(tail[len(tail)-trailerSize:])
	start := size - int64(trailerSize) - int64(length) //nolint:gosec // checked below
	if length > maxIndex || start < 8 {
		return nil, fmt.Errorf("%w: the length of its index is %d", ErrCorrupt, length)
	}
	var data []byte
	if have := len(tail) - trailerSize; int(length) <= have {
		data = tail[have-int(length) : have]
	} else if data, err = readRange(ctx, src, start, int64(length)); err != nil {
		return nil, fmt.Errorf("%w: at its index: %w", ErrRead, err)
	}
	end := start - skippableHead
	var opens *seal
	var salted []byte
	if isSealed {
		end = start
		sealed := data
		if opens, data, err = key.openIndex(data); err != nil {
			return nil, err
		}
		salted = sealed[len(keyID{}):sealedHead:sealedHead]
	}
	if sum != "" {
		if got := hexSum(data); got != sum {
			return nil, fmt.Errorf("%w: its index has the hash %s instead of %s", ErrCorrupt, got, sum)
		}
	}
	ix, err := parseIndex(data, end)
	if err != nil {
		return nil, err
	}
	if ix.seal = opens; opens != nil {
		ix.salt = salted
	}
	return ix, nil
}

// indexFrame is the frame number of a sealed index.
const indexFrame = math.MaxUint64

// sealedHead is the size of the head of a sealed index: key ID, salt.
const sealedHead = len(keyID{}) + len(salt{})

// openIndex decrypts the index of a sealed pack. It returns the seal of its frames, too.
func (k *Key) openIndex(data []byte) (*seal, []byte, error) {
	if len(data) < sealedHead {
		return nil, nil, fmt.Errorf("%w: the length of its index is %d", ErrCorrupt, len(data))
	}
	if err := k.fits("pack", data); err != nil {
		return nil, nil, err
	}
	opens := k.derive("pack", salt(data[len(keyID{}):]))
	plain, err := opens.aead.Open(nil, nonce(indexFrame, 0, true), data[sealedHead:], nil)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: its index was changed after it was sealed", ErrCorrupt)
	}
	return &opens, plain, nil
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func readRange(ctx context.Context, src Source, offset, length int64) (data []byte, err error) {
	r, err := src.Range(ctx, offset, length)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := r.Close(); err == nil {
			err = cerr
		}
	}()
	data = make([]byte, length)
	_, err = io.ReadFull(r, data)
	return data, err
}
