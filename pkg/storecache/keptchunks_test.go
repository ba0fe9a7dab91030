package storecache

import (
	"io"
	"testing"
)

// A chunk that a later path needs is kept when its frame is not, so that the frame is not read again, if there is room.
func TestChunksAreKept(t *testing.T) {
	c := open(t)
	s, packs := many(t, c)
	ix := stored(t, c, NewIndex(packs...))
	_, _, err := ix.Closure(t.Context(), pathsOf(t, ix)...)
	must(t, err)
	for _, room := range []int64{64 << 20, 300 << 10, 0} {
		var all []*segment
		var needs [][]frameID
		for _, info := range s.list {
			at, _ := ix.find(info.Path)
			seg := &segment{pack: at.pack, records: []int{at.record}}
			room := maxNeeds
			must(t, ix.findFrames(seg, &room))
			all, needs = append(all, seg), append(needs, seg.frames)
		}
		fs, err := newFrames(needs)
		must(t, err)
		fs.budget = budgets{fetched: 64 << 20, decoded: 1, chunks: room}
		for _, seg := range all {
			must(t, fs.count(seg))
		}
		var once int64
		for id := range fs.all {
			_, size := id.pack.Index.FrameRange(id.number)
			once += size
		}
		for _, seg := range all {
			_, err := io.Copy(io.Discard, seg.pack.Index.NewPlayer(seg.records[0], seg.lengths, func(_, source, number int) ([]byte, error) {
				return fs.get(t.Context(), frameID{seg.sources[source], number})
			}, func(source, number int, start uint32) []byte {
				return fs.chunk(frameID{seg.sources[source], number}, start)
			}))
			must(t, err)
			fs.release(seg.frames)
			if fs.chunks > room {
				t.Errorf("%d bytes of chunks are kept, with room for %d", fs.chunks, room)
			}
		}
		if again := fs.read > once; again != (room < 64<<20) {
			t.Errorf("with room for %d bytes, %d are read of %d", room, fs.read, once)
		}
		if fs.chunks != 0 {
			t.Errorf("%d bytes of chunks are left", fs.chunks)
		}
	}
}
