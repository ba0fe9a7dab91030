package storecache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/org/nix-matrix/pkg/pack"
)

// maxNeeds is the most frames of the paths of a transfer, each counted for each path, for the recipes may be hostile. Paths
// after that are left out.
var maxNeeds = 1 << 22

// prepare finds the frames of the segments that are paths of packs of chunks. The returned function
// begins to fetch them, and the function that it returns ends that.
func (w *transfer) prepare(all []segment) (func(context.Context) func(), error) {
	var needs [][]frameID
	room := maxNeeds
	for i := range all {
		s := &all[i]
		if !s.chunked() {
			continue
		}
		if s.err = w.index.findFrames(s, &room); s.err == nil {
			needs = append(needs, s.frames)
		}
	}
	nothing := func(context.Context) func() { return func() {} }
	if len(needs) == 0 {
		return nothing, nil
	}
	var err error
	if w.frames, err = newFrames(needs); err != nil {
		return nil, err
	}
	for i := range all {
		if s := &all[i]; s.chunked() && s.err == nil {
			s.err = w.frames.count(s)
		}
	}
	return func(ctx context.Context) func() {
		ctx, stop := context.WithCancel(ctx)
		var running sync.WaitGroup
		running.Go(func() { w.frames.prefetch(ctx) })
		return func() {
			stop()
			running.Wait()
			w.frames.dec.Close()
		}
	}, nil
}

// bases are a pack and those that it leans on, by the numbers in its recipes, and the lengths of the chunks of those that
// were needed. The paths of a pack share them, because it may lean on thousands.
type bases struct {
	sources []*Pack // nil where the index does not have one
	lengths []*pack.Lengths
}

func (ix *Index) basesOf(p *Pack) *bases {
	b := ix.bases[p]
	if b == nil {
		b = &bases{sources: []*Pack{p}}
		for _, sum := range p.Index.Leans() {
			b.sources = append(b.sources, ix.bySum[sum])
		}
		b.lengths = make([]*pack.Lengths, len(b.sources))
		ix.bases[p] = b
	}
	return b
}

// findFrames finds the packs and the frames that a path needs, which it takes of room. A path for which there is no room
// leaves none.
func (ix *Index) findFrames(s *segment, room *int) error {
	index := s.pack.Index
	s.bases = ix.basesOf(s.pack)
	for _, source := range index.Sources(s.records[0]) {
		p := s.sources[source]
		switch {
		case p == nil:
			return fmt.Errorf("%w: %s needs a pack that the index does not have", pack.ErrCorrupt, index.Records[s.records[0]].Path)
		case p.tables == nil:
			return &frameError{p, cmp.Or(ix.failed[p], pack.ErrRead)}
		case s.lengths[source] == nil: // else somebody may read it
			s.lengths[source] = p.tables.lengths
		}
	}
	needs, err := index.Needs(s.records[0], s.lengths, *room)
	if errors.Is(err, pack.ErrTooMany) {
		*room = 0
	}
	if err != nil {
		return err
	}
	*room -= len(needs)
	for _, need := range needs {
		s.frames = append(s.frames, frameID{s.sources[need.Source], need.Frame})
	}
	return nil
}

// play adds the path of a segment of a pack of chunks.
func (w *transfer) play(ctx context.Context, s *segment) error {
	if s.err != nil {
		return w.lost(ctx, causes(s.err, []*Pack{s.pack})[0], s.err)
	}
	defer w.frames.release(s.frames)
	content := s.read(ctx, func(_ int, id frameID) ([]byte, error) { return w.frames.get(ctx, id) }, func(source, number int, start uint32) []byte {
		return w.frames.chunk(frameID{s.sources[source], number}, start)
	})
	_, err := w.add(ctx, s.record(), content, s.packs())
	return err
}

func (s *segment) record() *pack.Record { return &s.pack.Index.Records[s.records[0]] }

// read returns a reader of the NAR of a path of a pack of chunks, from decoded frames, as in [pack.Index.NewPlayer], and,
// unless it is nil, kept chunks.
func (s *segment) read(ctx context.Context, frame func(stream int, id frameID) ([]byte, error), kept func(source, number int, start uint32) []byte) io.Reader {
	return &blamer{ctx, s, s.pack.Index.NewPlayer(s.records[0], s.lengths, func(stream, source, number int) ([]byte, error) {
		return frame(stream, frameID{s.sources[source], number})
	}, kept)}
}

// A blamer is a reader of a NAR. If that does not have its hash, it looks for the frame that has changed since it was
// written, because otherwise all packs that the path needs are to blame.
type blamer struct {
	ctx context.Context
	s   *segment
	nar io.Reader
}

// Read implements io.Reader.
func (b *blamer) Read(p []byte) (int, error) {
	n, err := b.nar.Read(p)
	var known *frameError
	if errors.Is(err, pack.ErrCorrupt) && !errors.As(err, &known) {
		err = cmp.Or(b.s.changed(b.ctx), err)
	}
	return n, err
}

// changed returns the error of the first frame that has changed, as far as frames can be read.
func (s *segment) changed(ctx context.Context) error {
	dec, err := pack.NewFrames(1)
	if err != nil {
		return nil
	}
	defer dec.Close()
	for _, id := range s.frames {
		index := id.pack.Index
		offset, size := index.FrameRange(id.number)
		data, err := readAll(ctx, id.pack.tables.source, offset, size)
		if err != nil {
			continue
		}
		if _, err := dec.Decode(index, id.number, data, nil); err != nil {
			return &frameError{id.pack, err}
		}
	}
	return nil
}

// packs returns the packs with the content of a segment, first that of its records. Only the path of a pack of
// chunks may have several.
func (s *segment) packs() []*Pack {
	all := []*Pack{s.pack}
	if s.chunked() {
		for _, source := range s.pack.Index.Sources(s.records[0]) {
			if source > 0 {
				all = append(all, s.sources[source])
			}
		}
	}
	return all
}
