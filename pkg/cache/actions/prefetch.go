package actions

import (
	"context"
	"io"
	"sync"
)

// chunkSize is how many bytes of a prefetched block are handed over at once: few enough that
// reading starts soon, and that the memory of a block is freed while it is read.
const chunkSize = 256 << 10

// prefetchReader reads the left bytes from offset on in blocks, each with a request of its own,
// and returns them in order. Blocks are prefetched as soon as the client's budget allows. The
// reader that was opened first has the first right to the budget, so that its blocks arrive
// first. When other readers have all of the budget, it still reads, one block after the other,
// so that no reader ever waits until another one is read.
type prefetchReader struct {
	ctx  context.Context
	blob *blob

	mu           sync.Mutex
	offset, left int64           // of the bytes without a request
	blocks       []io.ReadCloser // with a request, in order
	closed       bool
}

// budget bounds the prefetched blocks of all readers together.
type budget struct {
	mu      sync.Mutex
	free    int               // how many more blocks may be prefetched
	idle    int               // how many more may travel at once
	waiting []*prefetchReader // that have blocks without a request, in the order of opening
}

// add has a reader prefetch its blocks when the budget allows.
func (b *budget) add(r *prefetchReader) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, r)
	b.spend()
}

// arrived counts a block that travels no longer.
func (b *budget) arrived() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle++
	b.spend()
}

// release counts a block that was read or given up.
func (b *budget) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free++
	b.spend()
}

// spend starts downloads. The caller holds the lock.
func (b *budget) spend() {
	for b.free > 0 && b.idle > 0 && len(b.waiting) > 0 {
		if b.waiting[0].next(startPrefetch) {
			b.free--
			b.idle--
		} else {
			b.waiting = b.waiting[1:]
		}
	}
}

// next starts the download of another block. It reports whether there is one.
func (r *prefetchReader) next(start func(*reader) io.ReadCloser) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left == 0 || r.closed {
		return false
	}
	block := &reader{ctx: r.ctx, blob: r.blob, offset: r.offset, left: min(r.left, r.blob.client.config.BlockSize)}
	r.offset += block.left
	r.left -= block.left
	r.blocks = append(r.blocks, start(block))
	return true
}

// first returns the block to read from, or nil at the end.
func (r *prefetchReader) first() (io.ReadCloser, error) {
	for {
		r.mu.Lock()
		var block io.ReadCloser
		if len(r.blocks) > 0 {
			block = r.blocks[0]
		}
		closed := r.closed
		r.mu.Unlock()
		switch {
		case closed:
			return nil, errClosed
		case block != nil || !r.next(func(block *reader) io.ReadCloser { return block }):
			return block, r.ctx.Err()
		}
	}
}

func (r *prefetchReader) Read(p []byte) (int, error) {
	for {
		block, ended := r.first()
		if ended != nil {
			return 0, r.blob.failed(ended)
		}
		if block == nil {
			return 0, io.EOF
		}
		n, err := block.Read(p)
		if err == io.EOF { // itself, which ends the block; a failure may wrap it
			block.Close()
			r.mu.Lock()
			r.blocks, err = r.blocks[1:], nil
			r.mu.Unlock()
			if n == 0 {
				continue
			}
		}
		return n, err
	}
}

// Close ends all downloads, finished or not.
func (r *prefetchReader) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	for _, block := range r.blocks {
		block.Close()
	}
	r.blocks = nil
	return nil
}

// prefetch is a block that is downloaded into memory.
type prefetch struct {
	reader  *reader
	cancel  context.CancelFunc
	arrived chan []byte // chunks, with room for all of them
	failure error       // may be read once arrived is closed
	chunk   []byte      // the last one from arrived
	rest    []byte      // of it, to be read
	closed  bool
}

// chunks are used again, because they are most of the memory that is needed.
var chunks = sync.Pool{New: func() any { return make([]byte, chunkSize) }}

// startPrefetch starts the download of a block, which ends before Close returns.
func startPrefetch(r *reader) io.ReadCloser {
	f := &prefetch{reader: r, arrived: make(chan []byte, (r.left+chunkSize-1)/chunkSize)}
	r.ctx, f.cancel = context.WithCancel(r.ctx)
	go f.download()
	return f
}

func (f *prefetch) download() {
	defer close(f.arrived)
	defer f.reader.blob.client.budget.arrived()
	defer f.reader.Close()
	for f.reader.left > 0 {
		data, _ := chunks.Get().([]byte)
		data = data[:min(f.reader.left, chunkSize)]
		if _, err := io.ReadFull(f.reader, data); err != nil {
			f.failure = err
			return
		}
		f.arrived <- data
	}
}

func (f *prefetch) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		f.release()
		var ok bool
		if f.chunk, ok = <-f.arrived; !ok {
			if f.failure != nil {
				return 0, f.failure
			}
			return 0, io.EOF
		}
		f.rest = f.chunk
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// release puts the last chunk back into the pool.
func (f *prefetch) release() {
	if f.chunk != nil {
		chunks.Put(f.chunk[:chunkSize]) //nolint:staticcheck // a slice's header is small against its array
		f.chunk = nil
	}
}

func (f *prefetch) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	f.cancel()
	for ok := true; ok; { // until the download has ended
		f.release()
		f.chunk, ok = <-f.arrived
	}
	f.reader.blob.client.budget.release()
	return nil
}
