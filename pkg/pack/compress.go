package pack

import (
	"errors"
	"io"
	"runtime"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// maxCompressors is how many parts are compressed at a time at most: a stream is
// not read and hashed faster than these compress it.
const maxCompressors = 8

// errUnwritten is for who has more to write after writing has failed. The cause is
// what [compressor.wait] gives.
var errUnwritten = errors.New("the pack can't be written")

// A part is what is compressed at once: a frame, or [FrameSize] bytes of a larger
// one. Where frames are cut follows from the stream alone, so that it makes the
// same pack whatever the number of processors.
type part struct {
	plain, packed []byte
	last          bool          // of its frame
	done          chan struct{} // says once that it is compressed
}

// A compressor compresses parts side by side, and has them written in the order in
// which they come. There are only so many parts, and whoever wants an empty one
// waits for it, so that memory is bounded; no channel is ever full.
type compressor struct {
	enc    *zstd.Encoder
	group  errgroup.Group
	empty  chan *part
	todo   chan *part    // to compress
	order  chan *part    // to write
	failed chan struct{} // closed once writing has failed
}

// newCompressor starts to compress. It must be waited for, which also is the end of
// the calls of write.
func newCompressor(write func(*part) error) (*compressor, error) {
	n := min(runtime.GOMAXPROCS(0), maxCompressors)
	// No part refers to anything outside of it, so a larger window is of no use.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(FrameSize), zstd.WithEncoderConcurrency(n))
	if err != nil {
		return nil, err
	}
	parts := n + 3 // one is written, two are filled
	c := &compressor{
		enc:   enc,
		empty: make(chan *part, parts), todo: make(chan *part, parts), order: make(chan *part, parts),
		failed: make(chan struct{}),
	}
	for range parts {
		c.empty <- &part{done: make(chan struct{}, 1)}
	}
	for range n {
		c.group.Go(func() error {
			for p := range c.todo {
				c.compress(p)
				p.done <- struct{}{}
			}
			return nil
		})
	}
	c.group.Go(func() error {
		for p := range c.order {
			<-p.done
			if err := write(p); err != nil {
				close(c.failed)
				return err
			}
			c.empty <- p
		}
		return nil
	})
	return c, nil
}

func (c *compressor) compress(p *part) { p.packed = c.enc.EncodeAll(p.plain, p.packed[:0]) }

// next gives an empty part. Its memory grows with what it holds, so that a small
// pack takes little.
func (c *compressor) next() (*part, error) {
	select {
	case p := <-c.empty:
		p.plain = p.plain[:0]
		return p, nil
	case <-c.failed:
		return nil, errUnwritten
	}
}

// put takes a part.
func (c *compressor) put(p *part, last bool) {
	p.last = last
	c.todo <- p
	c.order <- p
}

// wait ends when all parts are written, or with what write has said.
func (c *compressor) wait() error {
	close(c.todo)
	close(c.order)
	return c.group.Wait()
}

// frameWriter writes compressed parts as frames, sealed or in clear.
type frameWriter struct {
	dst    io.Writer
	seal   *seal // nil for a pack in clear
	off    int64 // in dst
	frames []frame
	// written is how many bytes there are of whole frames and parts, for who asks
	// meanwhile.
	written atomic.Int64

	body   io.WriteCloser // of the frame that is open, else nil
	length int64          // its uncompressed bytes so far
}

// Write writes to the pack what is ready to be.
func (w *frameWriter) Write(b []byte) (int, error) {
	n, err := w.dst.Write(b)
	w.off += int64(n)
	return n, err
}

func (w *frameWriter) part(p *part) error {
	if w.body == nil {
		w.body, w.length = unsealed{w}, 0
		if w.seal != nil {
			w.body = w.seal.writer(w, uint64(len(w.frames)))
		}
	}
	if _, err := w.body.Write(p.packed); err != nil {
		return err
	}
	w.length += int64(len(p.plain))
	w.written.Store(w.off)
	if !p.last {
		return nil
	}
	if err := w.body.Close(); err != nil {
		return err
	}
	w.body = nil
	var start int64
	if n := len(w.frames); n > 0 {
		start = w.frames[n-1].offset + w.frames[n-1].size
	}
	w.frames = append(w.frames, frame{offset: start, size: w.off - start, length: w.length})
	return nil
}
