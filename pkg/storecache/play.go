package storecache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

// findFrames finds the packs and the frames that a path needs, which it takes of room. A path for which there is no room
// leaves none.
func (ix *Index) findFrames(s *segment, room *int) error {
	index := s.pack.Index
	s.sources = []*Pack{s.pack}
	for _, sum := range index.Leans() {
		s.sources = append(s.sources, ix.bySum[sum])
	}
	lengths := make([]*pack.Lengths, len(s.sources))
	for _, source := range index.Sources(s.records[0]) {
		p := s.sources[source]
		switch {
		case p == nil:
			return fmt.Errorf("%w: %s needs a pack that the index does not have", pack.ErrCorrupt, index.Records[s.records[0]].Path)
		case p.tables == nil:
			return &frameError{p, cmp.Or(ix.failed[p], pack.ErrRead)}
		}
		lengths[source] = p.tables.lengths
	}
	needs, err := index.Needs(s.records[0], lengths, *room)
	if errors.Is(err, pack.ErrTooMany) {
		*room = 0
	}
	if err != nil {
		return err
	}
	*room -= len(needs)
	s.lengths = lengths
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
	index, record := s.pack.Index, s.records[0]
	content := index.NewPlayer(record, s.lengths, func(source, number int) ([]byte, error) {
		return w.frames.get(ctx, frameID{s.sources[source], number})
	}, func(source, number int, start uint32) []byte {
		return w.frames.chunk(frameID{s.sources[source], number}, start)
	})
	_, err := w.add(ctx, &index.Records[record], content, s.packs())
	return err
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
