package pack

import (
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// A RecipeError says that a store path does not have its registered hash once it went through a
// recipe: it has changed, or must be stored whole.
type RecipeError struct{ Path string }

func (e *RecipeError) Error() string {
	return fmt.Sprintf("the NAR of %s does not have its registered hash", e.Path)
}

// A Packer makes packs of records, without the chunks that other packs have.
//
// It reads their NARs ahead, hashes on all processors, and needs about 100 MB of memory and 15 MB
// for each of them, eight at most, however large the paths are, apart from the hashes of chunks.
type Packer struct {
	records []Record
	known   *Known
	key     *Key
	batches chan *batch // closed after the last record
	err     error       // why it was closed early; set before
	cancel  context.CancelFunc
	group   sync.WaitGroup
	before  *compressor // of the last pack, or nil
}

// NewPacker returns a packer of records, each of which must have its registered hash and size; whole
// reports which of them are stored without a recipe. Chunks of known packs are not stored, and the
// packer adds its own packs to known. With a key the packs are sealed. The caller must call Close.
func NewPacker(from NARs, records []Record, whole func(path string) bool, known *Known, key *Key) *Packer {
	ctx, cancel := context.WithCancel(context.Background())
	n := min(runtime.GOMAXPROCS(0), maxCompressors)
	p := &Packer{records: records, known: known, key: key, cancel: cancel, batches: make(chan *batch, n+1)}
	nars := make(chan *batch, n+1)
	r := &recordReader{ctx: ctx, from: from, records: records, whole: whole, batches: p.batches, nars: nars, spare: make(chan []byte, 2*n+4)}
	r.sums.SetLimit(n)
	p.group.Go(func() {
		p.err = r.read()
		close(nars)
		close(p.batches)
	})
	p.group.Go(func() { checkNARs(nars, records) })
	return p
}

// Close ends the packer. If there are records left, their NARs must fail soon.
func (p *Packer) Close() {
	p.cancel()
	for range p.batches { //nolint:revive // so that the reader ends
	}
	p.group.Wait()
}

// batchSize is about how many bytes of chunks are hashed at a time.
const batchSize = 4 << 20

// A batch is consecutive chunks of a path.
type batch struct {
	record int    // its number
	data   []byte // of the chunks, with zeros in place of references
	chunks []cutChunk
	first  bool // of the path
	last   bool

	pieces []piece // of which the NAR is made
	text   []byte  // of the NAR around contents

	sums    []Sum
	summed  chan struct{} // closed when sums is complete
	checked chan struct{} // closed when intact is known
	intact  bool          // of the last batch: whether the NAR has its hash

	readers atomic.Int32  // who still read data
	memory  []byte        // of data
	spare   chan<- []byte // of a size for any batch
}

// release says that one of the readers needs the data no more.
func (b *batch) release() {
	if b.readers.Add(-1) > 0 || cap(b.memory) < batchSize+maxChunk {
		return
	}
	select {
	case b.spare <- b.memory[:0]:
	default:
	}
}

// A cutChunk ends at an offset in the data of its batch.
type cutChunk struct {
	end    int
	stream streamKind
}

// A piece of a NAR is text of its batch, or a chunk.
type piece struct {
	isChunk    bool
	start, end int   // in text or in data
	at         int64 // in the file
	positions  []position
	hashes     []string
}

func (b *batch) sum() {
	start := 0
	for _, c := range b.chunks {
		b.sums = append(b.sums, sumChunk(b.data[start:c.end]))
		start = c.end
	}
	close(b.summed)
}

// checkNARs computes the hashes of NARs from what a restore will have: the nodes of the skeleton, and
// chunks into which the references are put back.
func checkNARs(batches <-chan *batch, records []Record) {
	sum := sha256.New()
	var size int64
	var scratch []byte
	for b := range batches {
		for _, p := range b.pieces {
			part := b.text
			if p.isChunk {
				part = b.data
			}
			part = part[p.start:p.end]
			if len(p.positions) > 0 {
				scratch = append(scratch[:0], part...)
				part = scratch
				put := patcher{hashes: p.hashes, todo: p.positions, at: p.at}
				put.patch(part)
			}
			sum.Write(part)
			size += int64(len(part))
		}
		if b.last {
			rec := &records[b.record]
			b.intact = size == rec.NarSize && [sha256.Size]byte(sum.Sum(nil)) == rec.NarHash
			sum.Reset()
			size = 0
		}
		b.release()
		close(b.checked)
	}
}

// sums computes the hashes of chunks of some batches at a time.
type sums struct{ errgroup.Group }

func (s *sums) add(b *batch) {
	s.Go(func() error {
		b.sum()
		return nil
	})
}
