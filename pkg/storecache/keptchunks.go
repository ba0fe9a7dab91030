package storecache

import (
	"bytes"

	"github.com/org/nix-matrix/pkg/pack"
)

// maxUses is the most chunks of which the uses are counted, for they may stem from a hostile index.
const maxUses = 1 << 22

// A use is how often a chunk will still be read.
type use struct {
	times int
	size  uint32
	kept  []byte // the chunk, once its frame is not kept any more
}

// count counts the uses of chunks by a path, in frames that others need too.
func (fs *frames) count(s *segment) error {
	return s.pack.Index.EachChunk(s.records[0], s.lengths, func(in pack.Need, start, end uint32) bool {
		f := fs.all[frameID{s.sources[in.Source], in.Frame}]
		if f.users > 1 {
			if f.chunks == nil {
				f.chunks = map[uint32]use{}
			}
			u := f.chunks[start]
			f.chunks[start] = use{times: u.times + 1, size: end - start}
		}
		fs.uses++
		return fs.uses < maxUses
	})
}

// chunk returns a chunk of a frame that begins at start, if it was kept without the frame, or nil. It counts the use.
func (fs *frames) chunk(id frameID, start uint32) []byte {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.all[id]
	if f == nil {
		return nil
	}
	u, ok := f.chunks[start]
	if !ok {
		return nil
	}
	if u.times--; u.times > 0 {
		f.chunks[start] = u
	} else {
		delete(f.chunks, start)
		fs.chunks -= int64(len(u.kept))
	}
	return u.kept
}

// keepChunks keeps the chunks of a decoded frame that will still be read, if there is room for them.
func (fs *frames) keepChunks(f *frame) {
	size := int64(0)
	for _, u := range f.chunks {
		if u.kept == nil {
			size += int64(u.size)
		}
	}
	if fs.chunks+size > fs.budget.chunks {
		return
	}
	fs.chunks += size
	for start, u := range f.chunks {
		if u.kept == nil {
			u.kept = bytes.Clone(f.plain[start : start+u.size])
			f.chunks[start] = u
		}
	}
}

// forgetChunks forgets the chunks of a frame that nobody needs any more, which those of paths that failed still are.
func (fs *frames) forgetChunks(f *frame) {
	for _, u := range f.chunks {
		fs.chunks -= int64(len(u.kept))
	}
	f.chunks = nil
}
