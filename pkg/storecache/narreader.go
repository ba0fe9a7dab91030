package storecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/org/nix-matrix/pkg/pack"
)

// A narReader reads a NAR.
type narReader struct {
	ctx     context.Context
	d       *OnDemand
	s       *segment
	content io.Reader
	close   func()
	held    [pack.Streams]*cachedFrame // that content may read
}

// frame returns a frame, which is held until another one is needed for the same stream.
func (r *narReader) frame(ctx context.Context, stream int, p *Pack, from pack.Source, number int) ([]byte, error) {
	f, err := r.d.frames.get(ctx, p, from, number)
	r.release(stream)
	if err != nil {
		return nil, err
	}
	r.held[stream] = f
	return f.plain, nil
}

func (r *narReader) release(stream int) {
	if f := r.held[stream]; f != nil {
		r.d.frames.put(f)
		r.held[stream] = nil
	}
}

func (r *narReader) Read(p []byte) (int, error) {
	n, err := r.content.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.blame(err)
	}
	return n, err
}

func (r *narReader) Close() error {
	r.close()
	for stream := range r.held {
		r.release(stream)
	}
	return nil
}

// openRecord opens the NAR of a pack of records.
func (r *narReader) openRecord() error {
	p, n := r.s.pack, r.s.records[0]
	if err := r.d.begin(r.ctx); err != nil {
		return err
	}
	whole := r.d.sources[p]
	r.d.end()
	source := whole
	if number, offset, size := p.Index.Frame(n); size <= maxCached {
		source = &frameSource{Source: whole, offset: offset, frame: func(ctx context.Context) ([]byte, error) {
			f, err := r.d.frames.get(ctx, p, whole, number)
			if err != nil {
				return nil, err
			}
			return f.plain, nil // and never put, because the records end at some later time
		}}
	}
	records, err := p.Index.NewReader(r.ctx, source, []int{n})
	if err != nil {
		return err
	}
	if _, err := records.Next(); err != nil {
		records.Close()
		return err
	}
	r.content, r.close = records, func() { records.Close() }
	return nil
}

// A frameSource is a pack of which one frame is read.
type frameSource struct {
	pack.Source
	offset int64 // of the frame
	frame  func(context.Context) ([]byte, error)
}

// Range implements pack.Source.
func (s *frameSource) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	data, err := s.frame(ctx)
	if err != nil {
		return nil, err
	}
	if at := offset - s.offset; at >= 0 && at <= int64(len(data)) && length <= int64(len(data))-at {
		return io.NopCloser(bytes.NewReader(data[at : at+length])), nil
	}
	return nil, fmt.Errorf("%w: %d bytes at %d are in another frame", pack.ErrCorrupt, length, offset)
}

// blame notes the packs that an error of reading is about.
func (r *narReader) blame(err error) {
	if r.ctx.Err() != nil {
		return // of the reader's own end
	}
	if r.d.begin(r.d.ctx) != nil {
		return
	}
	defer r.d.end()
	for _, p := range causes(err, r.s.packs()) {
		r.d.failed(p, err)
	}
}
