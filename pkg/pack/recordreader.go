package pack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"io"
	"slices"

	"github.com/org/nix-matrix/internal/nar"
)

// maxSkeleton is the most bytes of a skeleton, which is in memory until its path ends. A path that has
// more is stored whole.
var maxSkeleton = 64 << 20

// maxText is about the most bytes of the text of a batch.
const maxText = 1 << 20

// A recordReader cuts records into batches of chunks.
type recordReader struct {
	ctx     context.Context
	from    NARs
	records []Record
	whole   func(path string) bool
	batches chan<- *batch
	nars    chan<- *batch
	spare   chan []byte // memory of batches that nobody reads any more
	sums    sums

	current *batch
	record  int
	hashes  []string
	scanner *scanner // nil where references stay

	// Of the open file, or the NAR of a path that is stored whole: where its bytes begin that are in
	// no chunk yet, in the data of the batch and in the file, and up to where the data is scanned.
	start, scanned int
	at             int64
	positions      []position
	chunks         int

	composer      *nar.Composer
	skeleton      []byte
	filePositions []byte
	file          uint64 // number of the file
	positioned    uint64 // of the last file with positions
	open          nar.Node
	isOpen        bool
	text          maphash.Hash // of the NAR around contents, as it was read
	sizes         []int64      // of files
}

func (r *recordReader) read() error {
	defer func() { _ = r.sums.Wait() }()
	for n := range r.records {
		if err := r.readRecord(n); err != nil {
			return err
		}
	}
	return r.from.End()
}

func (r *recordReader) readRecord(n int) error {
	rec := &r.records[n]
	r.record = n
	r.hashes = references(rec.Path, rec.References)
	r.scanner = newScanner(r.hashes)
	r.begin()
	r.current.first = true
	var err error
	if r.whole(rec.Path) {
		err = r.readWhole()
	} else {
		err = r.readParts()
	}
	if err != nil {
		return err
	}
	return r.send(true)
}

// begin starts a batch.
func (r *recordReader) begin() {
	b := &batch{record: r.record, spare: r.spare, summed: make(chan struct{}), checked: make(chan struct{})}
	b.readers.Store(2)                                                   // of batches and nars
	room := min(batchSize+maxChunk, max(r.records[r.record].NarSize, 0)) // most paths are small
	if room == batchSize+maxChunk {
		select {
		case b.memory = <-r.spare:
		default:
		}
	}
	if b.memory == nil {
		b.memory = make([]byte, 0, room)
	}
	b.data, r.current = b.memory, b
	r.start, r.scanned = 0, 0
}

// send passes the batch on. Bytes that are in no chunk yet go to the next one.
func (r *recordReader) send(last bool) error {
	b := r.current
	rest := b.data[r.start:]
	scanned := r.scanned - r.start
	b.data, b.last = b.data[:r.start:r.start], last
	if !last {
		r.begin()
		r.current.data = append(r.current.data, rest...)
		r.scanned = scanned
	}
	r.sums.add(b)
	for _, to := range []chan<- *batch{r.nars, r.batches} {
		select {
		case to <- b:
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		}
	}
	return nil
}

// readWhole reads a NAR that is stored whole.
func (r *recordReader) readWhole() error {
	r.scanner = nil
	r.beginFile()
	w := wholeReader{recordReader: r, composer: nar.NewComposer()}
	err := r.from.Next(&r.records[r.record], &w)
	if err == nil {
		w.text, err = w.composer.Finish(w.text[:0])
	}
	if err == nil {
		err = r.add(files, w.text)
	}
	if err != nil {
		return err
	}
	return r.endFile(files)
}

// A wholeReader adds the bytes of a NAR.
type wholeReader struct {
	*recordReader
	composer *nar.Composer
	text     []byte
}

// Node implements nar.Visitor.
func (w *wholeReader) Node(n nar.Node) (err error) {
	if w.text, err = w.composer.Append(w.text[:0], n); err != nil {
		return err
	}
	return w.add(files, w.text)
}

// readParts reads a NAR and makes a skeleton of it.
func (r *recordReader) readParts() error {
	r.composer = nar.NewComposer()
	r.skeleton, r.filePositions, r.sizes = r.skeleton[:0], r.filePositions[:0], r.sizes[:0]
	r.file, r.positioned, r.isOpen = 0, 0, false
	r.text.Reset()
	if err := r.from.Next(&r.records[r.record], r); err != nil {
		return err
	}
	err := r.closeFile()
	if err != nil {
		return err
	}
	start := len(r.current.text)
	if r.current.text, err = r.composer.Finish(r.current.text); err != nil {
		return err
	}
	r.addText(start)
	if len(r.skeleton) > maxSkeleton || len(r.filePositions) > maxSkeleton || !r.replays() {
		return &RecipeError{r.records[r.record].Path}
	}
	positions, err := r.addDetails(skeleton, r.skeleton, r.scanner)
	if err != nil {
		return err
	}
	if len(positions) > 0 {
		if _, err := r.addDetails(nodePositions, appendPositions(nil, positions), nil); err != nil {
			return err
		}
	}
	_, err = r.addDetails(filePositions, r.filePositions, nil)
	return err
}

// addText adds the text of the batch from start on to the NAR.
func (r *recordReader) addText(start int) {
	b := r.current
	b.pieces = append(b.pieces, piece{start: start, end: len(b.text)})
	_, _ = r.text.Write(b.text[start:]) // never fails
}

// Node implements nar.Visitor.
func (r *recordReader) Node(n nar.Node) error {
	err := r.closeFile()
	if err == nil && len(r.current.text) >= maxText {
		r.beginFile() // so that no bytes are left for the next batch
		err = r.send(false)
	}
	if err != nil {
		return err
	}
	start := len(r.current.text)
	if r.current.text, err = r.composer.Append(r.current.text, n); err != nil {
		return err
	}
	r.addText(start)
	if n.Kind == nar.File || n.Kind == nar.Executable {
		r.open, r.isOpen = n, true
		r.sizes = append(r.sizes, n.Size)
		r.beginFile()
		return nil
	}
	r.skeleton = appendNode(r.skeleton, n, len(r.skeleton) == 0, 0)
	return nil
}

// Room implements nar.Visitor. A piece is as large as the processor keeps at hand until it is cut.
func (r *recordReader) Room(most int64) ([]byte, error) {
	if len(r.current.data) >= batchSize {
		if err := r.send(false); err != nil {
			return nil, err
		}
	}
	b := r.current
	n := int(min(most, maxChunk, int64(batchSize+maxChunk-len(b.data))))
	b.data = slices.Grow(b.data, n)
	return b.data[len(b.data) : len(b.data)+n], nil
}

// Filled implements nar.Visitor.
func (r *recordReader) Filled(n int) error { return r.filled(files, n) }

// closeFile ends the open file, if there is one.
func (r *recordReader) closeFile() error {
	if !r.isOpen {
		return nil
	}
	r.isOpen = false
	if err := r.endFile(files); err != nil {
		return err
	}
	if len(r.positions) > 0 {
		r.filePositions = binary.AppendUvarint(r.filePositions, r.file-r.positioned)
		r.filePositions = appendPositions(r.filePositions, r.positions)
		r.positioned = r.file
	}
	r.file++
	r.skeleton = appendNode(r.skeleton, r.open, len(r.skeleton) == 0, r.chunks)
	return nil
}

func (r *recordReader) beginFile() {
	r.positions, r.chunks, r.at = nil, 0, 0
	r.start = len(r.current.data)
	r.scanned = r.start
}

// add adds bytes of the open file, or of another stream.
func (r *recordReader) add(kind streamKind, p []byte) error {
	for len(p) > 0 {
		room, err := r.Room(int64(len(p)))
		if err != nil {
			return err
		}
		n := copy(room, p)
		if err := r.filled(kind, n); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// filled adds the next n bytes of the batch's memory.
func (r *recordReader) filled(kind streamKind, n int) error {
	b := r.current
	b.data = b.data[:len(b.data)+n]
	if len(b.data)-r.start < 2*maxChunk {
		return nil
	}
	if err := r.scan(false); err != nil {
		return err
	}
	for r.scanned-r.start >= maxChunk {
		r.cut(kind, r.scanned)
	}
	return nil
}

// endFile cuts the rest of the open file.
func (r *recordReader) endFile(kind streamKind) error {
	err := r.scan(true)
	for r.start < len(r.current.data) {
		r.cut(kind, len(r.current.data))
	}
	return err
}

// scan replaces references by zeros, except those of which the bytes are not all there yet.
func (r *recordReader) scan(ended bool) error {
	data, from := r.current.data, r.scanned
	if r.scanner == nil {
		r.scanned = len(data)
		return nil
	}
	r.scanner.scan(data[from:], func(at, number int) {
		at += from
		r.positions = append(r.positions, position{r.at + int64(at-r.start), number})
		copy(data[at:], zeroHash[:])
	})
	r.scanned = len(data)
	if !ended {
		r.scanned = max(from, len(data)-hashSize+1)
	}
	if len(r.positions) > maxPositions {
		return &RecipeError{r.records[r.record].Path}
	}
	return nil
}

// cut makes a chunk of the bytes before end, of which all are scanned.
func (r *recordReader) cut(kind streamKind, end int) {
	b := r.current
	size := cut(b.data[r.start:end])
	b.chunks = append(b.chunks, cutChunk{r.start + size, kind})
	if kind == files {
		first := len(r.positions)
		for first > 0 && r.positions[first-1].at+hashSize > r.at {
			first--
		}
		b.pieces = append(b.pieces, piece{isChunk: true, start: r.start, end: r.start + size, at: r.at, positions: r.positions[first:len(r.positions):len(r.positions)], hashes: r.hashes})
	}
	r.start += size
	r.at += int64(size)
	r.chunks++
}

// addDetails adds a stream that is not of files, and returns the positions of references in it.
func (r *recordReader) addDetails(kind streamKind, data []byte, scanner *scanner) ([]position, error) {
	r.scanner = scanner
	r.beginFile()
	if err := r.add(kind, data); err != nil {
		return nil, err
	}
	err := r.endFile(kind)
	return r.positions, err
}

// replays reports whether the skeleton has all that was read around contents.
func (r *recordReader) replays() bool {
	var text maphash.Hash
	text.SetSeed(r.text.Seed())
	from := skeletonReader{r: bufio.NewReader(bytes.NewReader(r.skeleton))}
	composer := nar.NewComposer()
	var buf []byte
	for sizes := r.sizes; ; {
		n, _, err := from.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && (n.Kind == nar.File || n.Kind == nar.Executable) {
			n.Size, sizes = sizes[0], sizes[1:]
		}
		if err == nil {
			buf, err = composer.Append(buf[:0], n)
		}
		if err != nil {
			return false
		}
		_, _ = text.Write(buf)
	}
	buf, err := composer.Finish(buf[:0])
	_, _ = text.Write(buf)
	return err == nil && text.Sum64() == r.text.Sum64()
}
