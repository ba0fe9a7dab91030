package pack

import (
	"errors"
	"io"
	"runtime"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// maxCompressors is the most parts that are compressed at a time: a stream can't be
// read and hashed faster than these compress it.
const maxCompressors = 8

// errUnwritten is the error of writes after the first that failed. [compressor.wait]
// returns the cause.
var errUnwritten = errors.New("cannot write the pack")

// A part is compressed as a whole: it is a frame, or [FrameSize] bytes of a larger
// one. Only the stream determines where frames are cut, so that the pack is the
// same with any number of processors.
type part struct {
	plain, packed []byte
	last          bool          // of its frame
	done          chan struct{} // receives once when it is compressed
}

// A compressor compresses parts in parallel, and writes them in the order of put. To
// bound memory there is a fixed number of parts, and next waits for an empty one. No
// channel is ever full.
type compressor struct {
	enc    *zstd.Encoder
	group  errgroup.Group
	empty  chan *part
	todo   chan *part    // to compress
	order  chan *part    // to write
	failed chan struct{} // closed once writing has failed
}

// newCompressor starts a compressor, with the memory of one before it that has ended, or nil. The caller must
// call wait, after which write is not called any more.
func newCompressor(write func(*part) error, before *compressor) (*compressor, error) {
	n := min(runtime.GOMAXPROCS(0), maxCompressors)
	parts := n + 3 // one is written, two are filled
	c := &compressor{todo: make(chan *part, parts), order: make(chan *part, parts), failed: make(chan struct{})}
	if before != nil {
		c.enc, c.empty = before.enc, before.empty
	} else {
		// No part refers to anything outside of it, so a larger window is of no use.
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(FrameSize), zstd.WithEncoderConcurrency(n), zstd.WithZeroFrames(true))
		if err != nil {
			return nil, err
		}
		c.enc, c.empty = enc, make(chan *part, parts)
		for range parts {
			c.empty <- &part{done: make(chan struct{}, 1)}
		}
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

// next returns an empty part. Its memory grows with its content, so that a small
// pack needs little.
func (c *compressor) next() (*part, error) {
	select {
	case p := <-c.empty:
		p.plain = p.plain[:0]
		return p, nil
	case <-c.failed:
		return nil, errUnwritten
	}
}

// put queues a part.
func (c *compressor) put(p *part, last bool) {
	p.last = last
	c.todo <- p
	c.order <- p
}

// wait returns when all parts are written, or writing has failed.
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
	// written counts the bytes of whole parts. The reader of the stream loads it.
	written atomic.Int64

	body   io.WriteCloser // of the open frame, else nil
	length int64          // its uncompressed bytes so far
}

// Write writes bytes to the pack as they are.
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
