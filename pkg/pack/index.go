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
	// maxIndex bounds the memory that an index may take, in bytes.
	maxIndex = 512 << 20
)

var (
	// ErrCorrupt is wrapped by every error that says that the bytes of a pack are
	// not what they should be.
	ErrCorrupt = errors.New("the pack is corrupt")
	// ErrRead is wrapped by every error of a Source.
	ErrRead = errors.New("the pack can't be read")
)

// A Source is where a pack is read from, such as a blob in a cache.
type Source interface {
	// Size is in bytes.
	Size() int64
	// Range reads exactly length bytes from offset on.
	Range(ctx context.Context, offset, length int64) (io.ReadCloser, error)
}

// An Index says which path lies where in a pack.
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

// A Proof is what lets a store take a path from somebody whom it does not trust.
// The export stream has none, so it lies in the index.
type Proof struct {
	Signatures []string // NAME:BASE64
	CA         string   // content address as Nix writes it, text:… or fixed:…, or empty
}

const maxSignatures = 100 // of one path

// A name is what the setting trusted-public-keys can hold: neither a space nor a
// colon. Both values end up in lines of other formats.
var (
	signaturePattern = regexp.MustCompile(`^[^:\pZ\pC]{1,255}:[0-9A-Za-z+/]{1,512}={0,2}$`)
	caPattern        = regexp.MustCompile(`^(text|fixed):([a-z]{1,16}:)?[0-9a-z-]{1,16}:[0-9A-Za-z+/=]{1,256}$`)
)

// wellFormed leaves out what a reader of the index would not take.
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

// The index as JSON. Paths are numbers in one list, since an index of
// derivations is mostly references.
type indexJSON struct {
	Version int          `json:"version"`
	Paths   []string     `json:"paths"` // those of the records, then others that are referred to
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

// find makes Find work.
func (ix *Index) find() {
	ix.byPath = make(map[string]int, len(ix.Records))
	for n := range ix.Records {
		ix.byPath[ix.Records[n].Path] = n
	}
}

// Find gives the number of the record of a path.
func (ix *Index) Find(path string) (int, bool) {
	n, ok := ix.byPath[path]
	return n, ok
}

// Frame gives the number of the frame that a record lies in, and where in the pack that
// is, in bytes.
func (ix *Index) Frame(record int) (number int, offset, size int64) {
	number = ix.Records[record].frame
	return number, ix.frames[number].offset, ix.frames[number].size
}

// Closure gives the numbers of the records that the paths need, in reference
// order. Paths and references that the pack doesn't hold are an error.
func (ix *Index) Closure(paths ...string) ([]int, error) {
	wanted := make([]bool, len(ix.Records))
	todo := make([]int, 0, len(paths))
	add := func(path, because string) error {
		n, ok := ix.Find(path)
		if !ok {
			return fmt.Errorf("the pack does not hold %s, which %s", path, because)
		}
		if !wanted[n] {
			wanted[n] = true
			todo = append(todo, n)
		}
		return nil
	}
	for _, path := range paths {
		if err := add(path, "is asked for"); err != nil {
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

// MarshalJSON gives the index as it stands in the pack, with what else it takes to read
// from a sealed one, for a document on several packs.
func (ix *Index) MarshalJSON() ([]byte, error) {
	doc := ix.document()
	doc.Salt = ix.salt
	return json.Marshal(doc)
}

// UnmarshalJSON reads what MarshalJSON has written, and checks that it is consistent in
// itself. Of a sealed pack nothing can be read before [Index.Unseal].
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

// Unseal makes the index of a sealed pack one that the pack can be read with. A pack in
// clear must have the nil Key.
func (ix *Index) Unseal(key *Key) error {
	if (key == nil) != (len(ix.salt) == 0) {
		return fmt.Errorf("%w: a pack is sealed and there is no key, or there is one and it is not", ErrKey)
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
		return nil, fmt.Errorf("the pack's index has version %d, this nix-matrix reads version %d", doc.Version, indexVersion)
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
			return bad("%s has signatures or a content address that are none", rec.Path)
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
// [Write] returned it; with an empty sum the index is taken as it is. A pack that
// is not sealed as the key says is an error that wraps [ErrKey].
func ReadIndex(ctx context.Context, src Source, sum string, key *Key) (*Index, error) {
	// One read is enough for most packs.
	const guess = 256 << 10
	size := src.Size()
	tail, err := readRange(ctx, src, max(0, size-guess), min(size, guess))
	if err != nil {
		return nil, fmt.Errorf("%w: its end: %w", ErrRead, err)
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
		return nil, fmt.Errorf("%w: the pack is not sealed, but there is a key: it was not made with encryption_key as it is here", ErrKey)
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
		return nil, fmt.Errorf("%w: its index: %w", ErrRead, err)
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

// sealedHead is what stands before the sealed bytes of an index: key ID, salt.
const sealedHead = len(keyID{}) + len(salt{})

// openIndex opens the index of a sealed pack, and gives what opens its frames.
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
