package pack

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// contentsFrame is the most bytes of a frame of contents. Who needs one chunk decodes all of the frame; smaller frames
// compress less.
const contentsFrame = FrameSize / 2

// detailsFrame is the least bytes of a frame of the area of details. They are few, so that most
// packs have one.
const detailsFrame = 1 << 20

// leastShared is the least bytes of a frame that the chunks of a path that fills frames are not added to: a reader of
// either path would decode those of the other.
const leastShared = contentsFrame / 4

// leastLean is the least bytes of a chunk for which a pack leans on another: for less it is not worth that the
// loss of the other costs a path of this one.
const leastLean = 128

// Next makes a pack of the next records, until it has about size bytes. It returns io.EOF when no
// records are left. After another error the written bytes are useless, and Next must not be called
// again; a *[RecipeError] says which record was the reason. An error of dst is returned only
// when more of the stream is read.
func (p *Packer) Next(dst io.Writer, size int64) (*Summary, error) {
	first, ok := <-p.batches
	if !ok {
		return nil, p.end()
	}
	w := &packWriter{Packer: p, ix: Index{chunked: []chunkedFrame{}}, leans: map[int32]int{}, salt: newSalt(), out: frameWriter{dst: dst}}
	if p.key != nil {
		seal := p.key.derive("pack", w.salt)
		w.out.seal = &seal
	}
	for a := range w.areas {
		w.areas[a].byHash, w.seen[a] = map[Sum]int{}, map[place]bool{}
	}
	var err error
	if w.compressor, err = newCompressor(w.out.part, p.before); err != nil {
		return nil, err
	}
	err = w.fill(first, size)
	if err == nil {
		err = w.tables()
	}
	if failed := w.wait(); failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, err
	}
	p.before = w.compressor
	return w.finish()
}

// end returns why no batches are left.
func (p *Packer) end() error {
	if p.err != nil {
		return p.err
	}
	return io.EOF
}

// A packWriter distributes chunks to frames.
type packWriter struct {
	*Packer
	*compressor
	salt    salt
	out     frameWriter // the compressor's, until wait returns
	ix      Index
	areas   [areas]writtenArea
	leans   map[int32]int         // numbers of known packs, from 1 on
	seen    [areas]map[place]bool // chunks of known packs
	current [streams][]chunkRun
}

// A writtenArea is the chunks of an area of the pack that is written.
type writtenArea struct {
	byHash  map[Sum]int
	sums    []Sum
	lengths []int
	open    *part // of the next frame, or nil
	chunks  int   // in it
}

// fill writes records until the pack has about size bytes.
func (w *packWriter) fill(b *batch, size int64) error {
	for {
		if err := w.batch(b); err != nil {
			return err
		}
		if b.last {
			if err := w.record(b); err != nil {
				return err
			}
			if w.out.written.Load() >= size || w.areas[contents].full() {
				w.flush()
				return nil
			}
		}
		var ok bool
		if b, ok = <-w.batches; !ok {
			if w.err == nil {
				w.flush()
			}
			return w.err
		}
	}
}

// full reports whether an area should have no chunks of further records.
func (a *writtenArea) full() bool { return len(a.sums) > maxChunks/2 }

// batch adds the chunks of a batch.
func (w *packWriter) batch(b *batch) error {
	<-b.summed
	if open := w.areas[contents].open; b.first && open != nil && len(open.plain) >= leastShared && w.records[b.record].NarSize >= contentsFrame {
		w.flushArea(contents)
	}
	start := 0
	for n, c := range b.chunks {
		source, number, err := w.chunk(c.stream.area(), b.sums[n], b.data[start:c.end])
		if err != nil {
			return err
		}
		w.current[c.stream] = addChunk(w.current[c.stream], source, number)
		start = c.end
	}
	b.release()
	return nil
}

// chunk returns the source and the number of a chunk, which it adds to the pack if no pack has it.
func (w *packWriter) chunk(of area, sum Sum, data []byte) (source, number int, err error) {
	a := &w.areas[of]
	if number, ok := a.byHash[sum]; ok {
		return 0, number, nil
	}
	at, ok := w.known.chunks[of][sum]
	if ok && w.leans[at.pack] == 0 && len(w.ix.leans) == maxLeans {
		ok = false
	}
	if ok && len(data) >= leastLean {
		lean, ok := w.leans[at.pack]
		if !ok {
			w.ix.leans = append(w.ix.leans, w.known.packs[at.pack])
			lean = len(w.ix.leans)
			w.leans[at.pack] = lean
			w.ix.leaned = append(w.ix.leaned, 0)
		}
		if !w.seen[of][at] {
			w.seen[of][at] = true
			w.ix.leaned[lean-1] += int64(len(data))
		}
		return lean, int(at.number), nil
	}
	limit := contentsFrame
	if of == details {
		limit = detailsFrame
	}
	if a.open != nil && len(a.open.plain)+len(data) > limit {
		w.flushArea(of)
	}
	if a.open == nil {
		if a.open, err = w.next(); err != nil {
			return 0, 0, err
		}
	}
	if len(a.sums) == maxChunks {
		return 0, 0, fmt.Errorf("a store path with more than %d chunks", maxChunks)
	}
	number = len(a.sums)
	a.byHash[sum] = number
	a.sums, a.lengths = append(a.sums, sum), append(a.lengths, len(data))
	a.open.plain = append(a.open.plain, data...)
	a.chunks++
	return 0, number, nil
}

// flushArea ends the open frame of an area.
func (w *packWriter) flushArea(of area) {
	a := &w.areas[of]
	if a.open == nil {
		return
	}
	w.put(a.open, true)
	w.ix.chunked = append(w.ix.chunked, chunkedFrame{of, a.chunks})
	a.open, a.chunks = nil, 0
}

func (w *packWriter) flush() {
	w.flushArea(contents)
	w.flushArea(details)
}

// record ends a record.
func (w *packWriter) record(b *batch) error {
	<-b.checked
	rec := w.records[b.record]
	if !b.intact {
		return &RecipeError{rec.Path}
	}
	rec.Proof = rec.wellFormed()
	for kind := range w.current {
		rec.runs[kind] = slices.Clone(w.current[kind])
		w.current[kind] = w.current[kind][:0]
	}
	w.ix.Records = append(w.ix.Records, rec)
	return nil
}

// tables writes the hashes and the lengths of chunks as two frames.
func (w *packWriter) tables() error {
	sums, err := w.next()
	if err != nil {
		return err
	}
	for _, a := range w.areas {
		for _, sum := range a.sums {
			sums.plain = append(sums.plain, sum[:]...)
		}
	}
	w.put(sums, true)
	lengths, err := w.next()
	if err != nil {
		return err
	}
	for _, a := range w.areas {
		for _, n := range a.lengths {
			lengths.plain = binary.AppendUvarint(lengths.plain, uint64(n)) //nolint:gosec // positive
		}
	}
	w.put(lengths, true)
	return nil
}

// finish writes the directory.
func (w *packWriter) finish() (*Summary, error) {
	w.ix.frames = w.out.frames
	index, err := CompressJSON(w.ix.document())
	if err != nil {
		return nil, err
	}
	if len(index) > maxIndex-sealedHead-chacha20poly1305.Overhead {
		return nil, fmt.Errorf("the index of %d paths is larger than %d bytes", len(w.ix.Records), maxIndex)
	}
	end := tail(index, w.key, w.salt, w.out.seal)
	if _, err := w.out.Write(end); err != nil {
		return nil, err
	}
	w.ix.find()
	if w.ix.seal = w.out.seal; w.ix.seal != nil {
		w.ix.salt = w.salt[:]
	}
	sum := hexSum(index)
	w.ix.sum, w.ix.tail = sum, int64(len(end))
	chunks := &Sums{of: [areas][]Sum{w.areas[contents].sums, w.areas[details].sums}}
	w.known.Add(sum, chunks)
	return &Summary{Size: w.out.off, Paths: len(w.ix.Records), SHA256: sum, Index: &w.ix, Chunks: chunks}, nil
}
