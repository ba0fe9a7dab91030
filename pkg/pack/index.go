package pack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/storepath"
)

const (
	indexVersion   = 1 // of a pack of records
	chunkedVersion = 2 // of a pack of chunks
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

	chunked []chunkedFrame // of a pack of chunks: its frames but the last two
	leans   []string       // hashes of the indexes of other packs
	leaned  []int64        // bytes of the chunks of each of them
	sum     string         // of the index, see [ReadIndex]
	tail    int64          // size of the index in the pack, bytes
}

// A Record is one store path in a pack.
type Record struct {
	Path       string
	References []string // store paths, in the order of the export stream
	Deriver    string   // store path, or empty
	NarHash    [sha256.Size]byte
	NarSize    int64 // bytes
	Proof

	frame  int                 // number of its frame
	offset int64               // of the record in the decompressed frame
	runs   [streams][]chunkRun // in a pack of chunks
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
	signaturePattern = lazyregexp.New(`^[^:\pZ\pC]{1,255}:[0-9A-Za-z+/]{1,512}={0,2}$`)
	caPattern        = lazyregexp.New(`^(text|fixed):([a-z]{1,16}:)?[0-9a-z-]{1,16}:[0-9A-Za-z+/=]{1,256}$`)
)

// wellFormed returns the proof without values that a reader of the index would refuse.
func (p Proof) wellFormed() Proof {
	var q Proof
	for _, signature := range p.Signatures {
		if signaturePattern().MatchString(signature) && len(q.Signatures) < maxSignatures {
			q.Signatures = append(q.Signatures, signature)
		}
	}
	if caPattern().MatchString(p.CA) {
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
	Chunks  []int        `json:"chunks,omitempty"`
	Leans   []string     `json:"leans,omitempty"`
	Leaned  []int64      `json:"leaned,omitempty"`
	Salt    []byte       `json:"salt,omitempty"`
}

type recordJSON struct {
	NarHash    string   `json:"h"`
	NarSize    int64    `json:"n"`
	References []int    `json:"r,omitempty"`
	Deriver    *int     `json:"d,omitempty"`
	Signatures []string `json:"s,omitempty"`
	CA         string   `json:"c,omitempty"`
	Frame      int      `json:"f,omitempty"`
	Offset     int64    `json:"o,omitempty"`
	Runs       [][]byte `json:"x,omitempty"`
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
	ix.chunkedDocument(doc)
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
			Frame: rec.frame, Offset: rec.offset, Runs: rec.runsDocument(),
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
	if doc.Version != indexVersion && doc.Version != chunkedVersion {
		return nil, fmt.Errorf("the pack's index has version %d, but this nix-matrix reads versions %d and %d", doc.Version, indexVersion, chunkedVersion)
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
	isChunked := doc.Version == chunkedVersion
	if isChunked {
		if err := ix.readChunked(doc); err != nil {
			return nil, err
		}
	}
	for i, r := range doc.Records {
		rec := Record{Path: doc.Paths[i], NarSize: r.NarSize, frame: r.Frame, offset: r.Offset}
		sum, err := hex.DecodeString(r.NarHash)
		if err != nil || len(sum) != sha256.Size {
			return bad("%q is not a hash", r.NarHash)
		}
		copy(rec.NarHash[:], sum)
		if r.NarSize < 0 {
			return bad("%s has %d bytes", rec.Path, r.NarSize)
		}
		if isChunked {
			rec.runs, err = ix.readRuns(&r)
		} else {
			err = ix.checkPosition(&rec)
		}
		if err != nil {
			return nil, err
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

// checkPosition returns an error if a record lies outside its frame, or not after the one before it.
func (ix *Index) checkPosition(rec *Record) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: index: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if rec.frame < 0 || rec.frame >= len(ix.frames) {
		return bad("there is no frame %d", rec.frame)
	}
	if length := ix.frames[rec.frame].length; rec.offset < 0 || rec.offset > length || rec.NarSize > length-rec.offset {
		return bad("%s lies outside its frame", rec.Path)
	}
	if n := len(ix.Records); n > 0 {
		before := &ix.Records[n-1]
		if rec.frame < before.frame || rec.frame == before.frame && rec.offset < before.offset+before.NarSize {
			return bad("%s overlaps %s", rec.Path, before.Path)
		}
	}
	return nil
}
