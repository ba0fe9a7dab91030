package actions

import (
	"context"
	"io"
	"sync"
)

// arrival is how many bytes of a block that is downloaded ahead are handed over
// at once: few enough that reading starts soon, and that memory is used and
// given back with what it holds.
const arrival = 256 << 10

// window reads the left bytes from offset on in blocks, each with a request of its own,
// and hands them out in order. Blocks are asked for ahead of what is read as soon as the
// client has room for them; room is given to those first who came first, so that what is
// opened first is there first. When other windows have all of the room it still reads,
// one block after the other and nothing ahead, so that no window ever waits for another
// one to be read.
type window struct {
	ctx  context.Context
	blob *blob

	mu           sync.Mutex
	offset, left int64           // of what was not asked for yet
	blocks       []io.ReadCloser // asked for, in order
	closed       bool
}

// A room is for the blocks that are ahead of what is read.
type room struct {
	mu      sync.Mutex
	free    int       // how many more there may be
	idle    int       // how many more may travel at once
	waiting []*window // those that have more to ask for, in the order of their coming
}

// enter has the window ask for its blocks when there is room for them.
func (r *room) enter(w *window) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, w)
	r.fill()
}

// arrived says that a block travels no longer.
func (r *room) arrived() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle++
	r.fill()
}

// leave says that a block was read.
func (r *room) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free++
	r.fill()
}

func (r *room) fill() {
	for r.free > 0 && r.idle > 0 && len(r.waiting) > 0 {
		if r.waiting[0].next(startAhead) {
			r.free--
			r.idle--
		} else {
			r.waiting = r.waiting[1:]
		}
	}
}

// next asks for another block, if there is one.
func (w *window) next(start func(*reader) io.ReadCloser) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left == 0 || w.closed {
		return false
	}
	r := &reader{ctx: w.ctx, blob: w.blob, offset: w.offset, left: min(w.left, w.blob.client.config.BlockSize)}
	w.offset += r.left
	w.left -= r.left
	w.blocks = append(w.blocks, start(r))
	return true
}

// first gives the block that is to be read, nil where nothing is left.
func (w *window) first() (io.ReadCloser, error) {
	for {
		w.mu.Lock()
		var block io.ReadCloser
		if len(w.blocks) > 0 {
			block = w.blocks[0]
		}
		closed := w.closed
		w.mu.Unlock()
		switch {
		case closed:
			return nil, errClosed
		case block != nil || !w.next(func(r *reader) io.ReadCloser { return r }):
			return block, w.ctx.Err()
		}
	}
}

func (w *window) Read(p []byte) (int, error) {
	for {
		block, ended := w.first()
		if ended != nil {
			return 0, w.blob.failed(ended)
		}
		if block == nil {
			return 0, io.EOF
		}
		n, err := block.Read(p)
		if err == io.EOF { // itself, which ends the block; a failure may wrap it
			block.Close()
			w.mu.Lock()
			w.blocks, err = w.blocks[1:], nil
			w.mu.Unlock()
			if n == 0 {
				continue
			}
		}
		return n, err
	}
}

// Close ends all downloads, finished or not.
func (w *window) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	for _, block := range w.blocks {
		block.Close()
	}
	w.blocks = nil
	return nil
}

// ahead is a block that is downloaded into memory.
type ahead struct {
	reader  *reader
	cancel  context.CancelFunc
	arrived chan []byte // has room for all of them
	failure error       // to be read when arrived is closed
	taken   []byte      // from arrived
	rest    []byte      // of it
	closed  bool
}

// arrivals are used again, since they are most of what is needed in memory.
var arrivals = sync.Pool{New: func() any { return make([]byte, arrival) }}

// startAhead starts the download, which ends before Close does.
func startAhead(r *reader) io.ReadCloser {
	a := &ahead{reader: r, arrived: make(chan []byte, (r.left+arrival-1)/arrival)}
	r.ctx, a.cancel = context.WithCancel(r.ctx)
	go a.download()
	return a
}

func (a *ahead) download() {
	defer close(a.arrived)
	defer a.reader.blob.client.room.arrived()
	defer a.reader.Close()
	for a.reader.left > 0 {
		data, _ := arrivals.Get().([]byte)
		data = data[:min(a.reader.left, arrival)]
		if _, err := io.ReadFull(a.reader, data); err != nil {
			a.failure = err
			return
		}
		a.arrived <- data
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		a.release()
		var ok bool
		if a.taken, ok = <-a.arrived; !ok {
			if a.failure != nil {
				return 0, a.failure
			}
			return 0, io.EOF
		}
		a.rest = a.taken
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// release gives back what was taken.
func (a *ahead) release() {
	if a.taken != nil {
		arrivals.Put(a.taken[:arrival]) //nolint:staticcheck // a slice's header is nothing beside what it has
		a.taken = nil
	}
}

func (a *ahead) Close() error {
	if a.closed {
		return nil
	}
	a.closed = true
	a.cancel()
	for ok := true; ok; { // until the download has ended
		a.release()
		a.taken, ok = <-a.arrived
	}
	a.reader.blob.client.room.leave()
	return nil
}
