package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/klauspost/compress/zstd"

	"github.com/org/nix-matrix/internal/lazyregexp"
)

// A chunkedFrame is a frame of chunks.
type chunkedFrame struct {
	area   area
	chunks int // how many
}

// tableFrames is the number of frames after those of chunks: lengths and hashes.
const tableFrames = 2

// maxLeans is the most other packs that a pack may lean on.
const maxLeans = 1 << 12

var sumPattern = lazyregexp.New(`^[0-9a-f]{64}$`)

// Chunked reports whether the pack has chunks, for [Index.NewPlayer]. Others have whole records,
// for [Index.NewReader].
func (ix *Index) Chunked() bool { return ix.chunked != nil }

// Leans returns the hashes of the indexes of packs that have chunks of this pack's paths.
func (ix *Index) Leans() []string { return ix.leans }

// Leaned returns how many bytes these chunks have in each of these packs, decompressed.
func (ix *Index) Leaned() []int64 { return ix.leaned }

// chunkedDocument adds the fields of a pack of chunks.
func (ix *Index) chunkedDocument(doc *indexJSON) {
	if !ix.Chunked() {
		return
	}
	doc.Version, doc.Leans, doc.Leaned = chunkedVersion, ix.leans, ix.leaned
	for _, f := range ix.chunked {
		if f.area == details {
			f.chunks = -f.chunks
		}
		doc.Chunks = append(doc.Chunks, f.chunks)
	}
}

// runsDocument returns the encoded runs.
func (rec *Record) runsDocument() [][]byte {
	var all [][]byte
	for _, runs := range rec.runs {
		all = append(all, appendRuns(nil, runs))
	}
	for n := len(all); n > 0 && len(all[n-1]) == 0; n-- {
		all = all[:n-1]
	}
	return all
}

// readChunked reads the fields of a pack of chunks, except those of records.
func (ix *Index) readChunked(doc *indexJSON) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: index: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if len(ix.frames) != len(doc.Chunks)+tableFrames {
		return bad("%d frames, of which %d have chunks", len(ix.frames), len(doc.Chunks))
	}
	ix.chunked = make([]chunkedFrame, 0, len(doc.Chunks))
	for i, f := range ix.frames {
		// No more than what does not compress and its seals, so that nobody has to read more for it.
		if f.size > f.length+f.length/64+4<<10 {
			return bad("frame %d has %d bytes for %d", i, f.size, f.length)
		}
	}
	var total [areas]int64
	for i, n := range doc.Chunks {
		f := chunkedFrame{contents, n}
		if n < 0 {
			f = chunkedFrame{details, -n}
		}
		if length := ix.frames[i].length; f.chunks < 1 || int64(f.chunks) > length || length > FrameSize+maxChunk {
			return bad("%d chunks of %d bytes in frame %d", n, length, i)
		}
		total[f.area] += int64(f.chunks)
		if total[f.area] > maxChunks {
			return bad("%d chunks", total[f.area])
		}
		ix.chunked = append(ix.chunked, f)
	}
	all := total[contents] + total[details]
	sums, lengths := ix.frames[ix.SumsFrame()].length, ix.frames[ix.LengthsFrame()].length
	if sums > 2*ix.frames[ix.SumsFrame()].size { // they do not compress, so that the tables are no larger than the pack
		return bad("%d bytes of hashes in %d", sums, ix.frames[ix.SumsFrame()].size)
	}
	if lengths < all || lengths > all*binary.MaxVarintLen32 || sums != all*int64(len(Sum{})) {
		return bad("tables of %d and %d bytes for %d chunks", lengths, sums, all)
	}
	if len(doc.Leans) > maxLeans {
		return bad("it leans on %d packs", len(doc.Leans))
	}
	for _, sum := range doc.Leans {
		if !sumPattern().MatchString(sum) {
			return bad("%q is not a hash", sum)
		}
	}
	if len(doc.Leaned) != len(doc.Leans) {
		return bad("%d sizes of %d packs", len(doc.Leaned), len(doc.Leans))
	}
	for _, n := range doc.Leaned {
		if n <= 0 {
			return bad("it leans on %d bytes", n)
		}
	}
	ix.leans, ix.leaned = doc.Leans, doc.Leaned
	return nil
}

func (ix *Index) readRuns(r *recordJSON) (all [streams][]chunkRun, err error) {
	if len(r.Runs) > int(streams) {
		return all, fmt.Errorf("%w: a recipe of %d streams", ErrCorrupt, len(r.Runs))
	}
	for kind, data := range r.Runs {
		if all[kind], err = readRuns(data, len(ix.leans)); err != nil {
			return all, err
		}
	}
	return all, nil
}

// LengthsFrame and SumsFrame return the numbers of the frames with tables of a pack of chunks, for
// [Index.DecodeLengths] and [Index.DecodeSums].
func (ix *Index) LengthsFrame() int { return len(ix.chunked) + 1 }

// SumsFrame is described at LengthsFrame.
func (ix *Index) SumsFrame() int { return len(ix.chunked) }

// Sum returns the hash of the index, see [ReadIndex].
func (ix *Index) Sum() string { return ix.sum }

// Tails returns how many bytes at the end of a pack of chunks have the index and the frame of lengths,
// and these with that of hashes, for [ReadTail].
func (ix *Index) Tails() (restore, save int64) {
	restore = ix.tail + ix.frames[ix.LengthsFrame()].size
	return restore, restore + ix.frames[ix.SumsFrame()].size
}

// Chunks returns the number of bytes of the chunks in the pack, decompressed.
func (ix *Index) Chunks() (bytes int64) {
	for i := range ix.chunked {
		bytes += ix.frames[i].length
	}
	return bytes
}

// FrameRange returns the position of a frame in the pack, in bytes.
func (ix *Index) FrameRange(number int) (offset, size int64) {
	f := ix.frames[number]
	return f.offset, f.size
}

// FrameLength returns the decompressed size of a frame in bytes.
func (ix *Index) FrameLength(number int) int64 { return ix.frames[number].length }

// Frames decompresses frames. It is safe for concurrent use.
type Frames struct{ dec *zstd.Decoder }

// NewFrames returns a Frames that uses at most n processors. The caller must close it.
func NewFrames(n int) (*Frames, error) { return newFrames(n, false) }

// NewHashedFrames is [NewFrames] for contents of NARs, which have hashes: it ignores the checksums of frames, so that it
// decompresses some that were changed.
func NewHashedFrames(n int) (*Frames, error) { return newFrames(n, true) }

func newFrames(n int, hashed bool) (*Frames, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(n), zstd.WithDecoderMaxMemory(maxTable), zstd.WithDecodeAllCapLimit(true), zstd.IgnoreChecksum(hashed))
	if err != nil {
		return nil, err
	}
	return &Frames{dec}, nil
}

// maxTable is the most bytes of a frame: that of the hashes of most chunks.
const maxTable uint64 = uint64(areas) * maxChunks * uint64(len(Sum{}))

// Close frees the memory of f.
func (f *Frames) Close() { f.dec.Close() }

// Decode decrypts and decompresses a frame of a pack, into the memory of into if that is enough. If the data is
// not that frame, the error wraps [ErrCorrupt].
func (f *Frames) Decode(ix *Index, number int, data, into []byte) ([]byte, error) {
	want := ix.frames[number]
	if ix.seal != nil {
		var err error
		if data, err = io.ReadAll(ix.seal.reader(bytes.NewReader(data), uint64(number))); err != nil { //nolint:gosec // it counts frames
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	var head zstd.Header
	if err := head.Decode(data); err != nil || head.HasFCS && head.FrameContentSize != uint64(want.length) { //nolint:gosec // not negative
		return nil, fmt.Errorf("%w: frame %d is of another size", ErrCorrupt, number)
	}
	if int64(cap(into)) < want.length {
		into = make([]byte, 0, want.length)
	}
	plain, err := f.dec.DecodeAll(data, into[:0])
	if err != nil {
		return nil, fmt.Errorf("%w: frame %d: %w", ErrCorrupt, number, err)
	}
	if int64(len(plain)) != want.length {
		return nil, fmt.Errorf("%w: frame %d has %d bytes instead of %d", ErrCorrupt, number, len(plain), want.length)
	}
	return plain, nil
}

// Lengths have the positions of chunks in the frames of a pack.
type Lengths struct{ of [areas]lengths }

type lengths struct {
	frames []int    // numbers in the pack
	first  []int    // the first chunk of each, and the number of chunks
	ends   []uint32 // of chunks in their frames
}

// DecodeLengths parses the decoded frame of lengths.
func (ix *Index) DecodeLengths(plain []byte) (*Lengths, error) {
	r := bytes.NewReader(plain)
	all := &Lengths{}
	for a := range areas {
		of := &all.of[a]
		for i, f := range ix.chunked {
			if f.area != a {
				continue
			}
			of.frames, of.first = append(of.frames, i), append(of.first, len(of.ends))
			var end uint64
			for range f.chunks {
				n, err := varints{r}.number()
				if err != nil {
					return nil, err
				}
				if end += n; n == 0 || n > maxChunk || end > uint64(ix.frames[i].length) { //nolint:gosec // not negative
					return nil, fmt.Errorf("%w: a chunk of %d bytes", ErrCorrupt, n)
				}
				of.ends = append(of.ends, uint32(end)) //nolint:gosec // at most a frame
			}
			if end != uint64(ix.frames[i].length) { //nolint:gosec // not negative
				return nil, fmt.Errorf("%w: the chunks of frame %d have %d bytes", ErrCorrupt, i, end)
			}
		}
		of.first = append(of.first, len(of.ends))
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the lengths", ErrCorrupt, r.Len())
	}
	return all, nil
}

// DecodeSums parses the decoded frame of hashes.
func (ix *Index) DecodeSums(plain []byte) (*Sums, error) {
	var all Sums
	for a := range areas {
		for _, f := range ix.chunked {
			if f.area != a {
				continue
			}
			for range f.chunks {
				all.of[a] = append(all.of[a], Sum(plain))
				plain = plain[len(Sum{}):]
			}
		}
	}
	return &all, nil
}

// find returns the frame of a chunk, and its position in it.
func (l *Lengths) find(a area, number int) (frame int, start, end uint32, err error) {
	of := &l.of[a]
	if number < 0 || number >= len(of.ends) {
		return 0, 0, 0, fmt.Errorf("%w: there is no chunk %d", ErrCorrupt, number)
	}
	n := sort.SearchInts(of.first, number+1) - 1
	if number > of.first[n] {
		start = of.ends[number-1]
	}
	return of.frames[n], start, of.ends[number], nil
}

// A Need is a frame of which a path has chunks.
type Need struct {
	Source int // as in NewPlayer
	Frame  int
}

// ErrTooMany is the error of a record with chunks in more frames than the caller has room for.
var ErrTooMany = errors.New("store paths need too many parts of packs")

// Needs returns the frames with the chunks of a record, in the order in which a [Player] reads them first.
// lengths are those of the pack and of the packs that it leans on. More than most frames are [ErrTooMany].
func (ix *Index) Needs(record int, lengths []*Lengths, most int) ([]Need, error) {
	var all []Need
	seen := map[Need]bool{}
	for _, kind := range []streamKind{skeleton, nodePositions, filePositions, files} {
		for _, run := range ix.Records[record].runs[kind] {
			of := lengths[run.source]
			for n := run.first; n < run.first+run.count; {
				frame, _, _, err := of.find(kind.area(), n)
				if err != nil {
					return nil, err
				}
				if need := (Need{run.source, frame}); !seen[need] {
					if len(all) >= most {
						return nil, ErrTooMany
					}
					seen[need] = true
					all = append(all, need)
				}
				n = of.after(kind.area(), n)
			}
		}
	}
	return all, nil
}

// EachChunk calls use for each chunk of a record as often as a [Player] reads it, with the frame and the bytes of the
// frame, until use returns false. lengths are those of [Index.Needs].
func (ix *Index) EachChunk(record int, lengths []*Lengths, use func(in Need, start, end uint32) bool) error {
	for kind := range streams {
		for _, run := range ix.Records[record].runs[kind] {
			for n := run.first; n < run.first+run.count; n++ {
				frame, start, end, err := lengths[run.source].find(kind.area(), n)
				if err != nil {
					return err
				}
				if !use(Need{run.source, frame}, start, end) {
					return nil
				}
			}
		}
	}
	return nil
}

// after returns the number of the first chunk after the frame of a chunk.
func (l *Lengths) after(a area, number int) int {
	first := l.of[a].first
	return first[sort.SearchInts(first, number+1)]
}

// Sources returns the sources of the chunks of a record: 0 is its pack, others are one more than their
// number in Leans.
func (ix *Index) Sources(record int) []int {
	var all []int
	seen := map[int]bool{}
	for _, runs := range ix.Records[record].runs {
		for _, run := range runs {
			if !seen[run.source] {
				seen[run.source] = true
				all = append(all, run.source)
			}
		}
	}
	sort.Ints(all)
	return all
}
