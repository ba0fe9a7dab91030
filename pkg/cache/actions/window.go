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

// window reads the left bytes from offset on in blocks, each with a request of
// its own. It asks for as many ahead of what is read as the client has slots
// for, and hands them out in order. When other windows have all of the slots it
// still reads, one block after the other and nothing ahead, so that no window
// ever waits for another one to be read.
type window struct {
	ctx          context.Context
	blob         *blob
	offset, left int64           // of what was not asked for yet
	blocks       []io.ReadCloser // asked for, in order
	closed       bool
}

func (w *window) Read(p []byte) (int, error) {
	for {
		if w.closed {
			return 0, w.blob.failed(errClosed)
		}
		if err := w.ctx.Err(); err != nil {
			return 0, w.blob.failed(err)
		}
		w.ask()
		if len(w.blocks) == 0 {
			return 0, io.EOF
		}
		n, err := w.blocks[0].Read(p)
		if err == io.EOF { // itself, which ends the block; a failure may wrap it
			w.blocks[0].Close()
			w.blocks, err = w.blocks[1:], nil
			if n == 0 {
				continue
			}
		}
		return n, err
	}
}

// ask starts what may be started, so that there is a block unless all is read.
func (w *window) ask() {
	for w.left > 0 {
		r := &reader{ctx: w.ctx, blob: w.blob, offset: w.offset, left: min(w.left, w.blob.client.config.BlockSize)}
		size := r.left
		select {
		case w.blob.client.slots <- struct{}{}:
			w.blocks = append(w.blocks, startAhead(r))
		default:
			if len(w.blocks) > 0 {
				return
			}
			w.blocks = append(w.blocks, r)
		}
		w.offset += size
		w.left -= size
	}
}

// Close ends all downloads, finished or not.
func (w *window) Close() error {
	w.closed = true
	for _, block := range w.blocks {
		block.Close()
	}
	w.blocks = nil
	return nil
}

// ahead is a block that is downloaded into memory, in a slot of the client's.
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
func startAhead(r *reader) *ahead {
	a := &ahead{reader: r, arrived: make(chan []byte, (r.left+arrival-1)/arrival)}
	r.ctx, a.cancel = context.WithCancel(r.ctx)
	go a.download()
	return a
}

func (a *ahead) download() {
	defer close(a.arrived)
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
	<-a.reader.blob.client.slots
	return nil
}
