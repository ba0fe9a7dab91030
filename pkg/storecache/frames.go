package storecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/pack"
)

// Frames of packs of chunks are requested in the order in which paths need them first, several
// ranges at a time, and decoded once for all paths that need them at about the same time.
const (
	rangesAtOnce = 6
	// ahead is how many of the next frames are looked at for those that lie beside a wanted one.
	ahead = 64
)

// Budgets bound memory, in bytes.
type budgets struct {
	fetched int64 // of frames that are not decoded yet
	decoded int64 // of frames that other paths will need again
	chunks  int64 // of chunks of such frames, once the frames are dropped
}

var framesBudget = budgets{fetched: 52 << 20, decoded: 32 << 20, chunks: 32 << 20}

// A frameID is a frame of a pack.
type frameID struct {
	pack   *Pack
	number int
}

// A frameError says which pack could not be read.
type frameError struct {
	pack *Pack
	err  error
}

func (e *frameError) Error() string { return e.err.Error() }
func (e *frameError) Unwrap() error { return e.err }

// frames are the frames that the paths of a transfer need.
type frames struct {
	dec    *pack.Frames
	budget budgets

	mu      sync.Mutex
	all     map[frameID]*frame
	ranges  []*frameRange // in the order in which they are needed
	room    *sync.Cond    // of fetched
	fetched int64         // bytes
	ended   bool
	decoded []*frame // that are kept, the least recently used first
	kept    int64    // their bytes
	chunks  int64    // bytes of kept chunks
	uses    int      // that were counted
	read    int64    // bytes of packs
	packed  buffers  // of frames as they are in packs
	plain   buffers  // of decoded ones
}

// A frame is wanted by some paths.
type frame struct {
	id     frameID
	in     *frameRange
	users  int // paths that are still to come
	data   []byte
	plain  []byte
	loaded sync.Mutex     // while it is read and decoded
	chunks map[uint32]use // of which paths, by their start; nil if one path alone needs the frame
}

// A frameRange is consecutive bytes of a pack with wanted frames.
type frameRange struct {
	pack         *Pack
	offset, size int64
	frames       []*frame // in ascending order
	reserved     bool
	once         sync.Once
	err          error
}

// newFrames returns the frames that paths need, given in the order in which they are read.
func newFrames(needs [][]frameID) (*frames, error) {
	dec, err := pack.NewHashedFrames(runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, err
	}
	fs := &frames{dec: dec, budget: framesBudget, all: map[frameID]*frame{}}
	fs.room = sync.NewCond(&fs.mu)
	order := fs.order(needs)
	fs.ranges = ranges(order, segmentSize)
	return fs, nil
}

// rangesOf returns the ranges with the frames that paths need, in the order in which they need them, each of about
// size bytes at most.
func rangesOf(needs [][]frameID, size int64) []*frameRange {
	fs := &frames{all: map[frameID]*frame{}}
	return ranges(fs.order(needs), size)
}

// order adds the frames that paths need, and returns them in the order in which they are needed first.
func (fs *frames) order(needs [][]frameID) []*frame {
	var order []*frame
	for _, ids := range needs {
		for _, id := range ids {
			f := fs.all[id]
			if f == nil {
				f = &frame{id: id}
				fs.all[id] = f
				order = append(order, f)
			}
			f.users++
		}
	}
	return order
}

// ranges returns the ranges with frames. The first ones are smaller than size.
func ranges(order []*frame, size int64) []*frameRange {
	var all []*frameRange
	for i, f := range order {
		if f.in != nil {
			continue
		}
		r := &frameRange{pack: f.id.pack}
		r.offset, r.size = f.id.pack.Index.FrameRange(f.id.number)
		f.in, r.frames = r, []*frame{f}
		limit := size * int64(min(len(all)+1, ramp)) / ramp
		for _, next := range order[i+1 : min(len(order), i+ahead)] {
			if next.in == nil && next.id.pack == r.pack {
				r.extend(next, limit)
			}
		}
		all = append(all, r)
	}
	return all
}

// extend adds a frame to the range if it lies after it, near enough.
func (r *frameRange) extend(f *frame, limit int64) {
	offset, size := r.pack.Index.FrameRange(f.id.number)
	end := r.offset + r.size
	if offset < end || offset-end > pack.Gap || offset+size-r.offset > limit {
		return
	}
	f.in = r
	r.frames = append(r.frames, f)
	r.size = offset + size - r.offset
}

// prefetch requests the ranges one after the other, until the context ends.
func (fs *frames) prefetch(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		fs.ended = true
		fs.room.Broadcast()
	})
	defer stop()
	var g errgroup.Group
	g.SetLimit(rangesAtOnce)
	defer func() { _ = g.Wait() }()
	for _, r := range fs.ranges {
		fs.mu.Lock()
		for fs.fetched > 0 && fs.fetched+r.size > fs.budget.fetched && !fs.ended {
			fs.room.Wait()
		}
		ended := fs.ended
		if !ended {
			fs.reserve(r)
		}
		fs.mu.Unlock()
		if ended {
			return
		}
		g.Go(func() error {
			fs.fetch(ctx, r)
			return nil
		})
	}
}

// reserve counts the bytes of a range as fetched, once.
func (fs *frames) reserve(r *frameRange) {
	if !r.reserved {
		r.reserved = true
		fs.fetched += r.size
	}
}

// fetch reads a range, unless that was done or nobody needs it any more.
func (fs *frames) fetch(ctx context.Context, r *frameRange) {
	r.once.Do(func() {
		fs.mu.Lock()
		fs.reserve(r)
		needed := false
		for _, f := range r.frames {
			needed = needed || f.users > 0
		}
		fs.mu.Unlock()
		var err error
		all := make([][]byte, len(r.frames))
		if needed {
			err = fs.readFrames(ctx, r, all)
		}
		fs.mu.Lock()
		defer fs.mu.Unlock()
		fs.fetched -= r.size
		r.err = err
		for i, f := range r.frames {
			if err == nil && f.users > 0 {
				f.data = all[i]
				fs.fetched += int64(len(f.data))
			}
		}
		fs.room.Broadcast()
	})
}

// readFrames reads the frames of a range, without the bytes between them.
func (fs *frames) readFrames(ctx context.Context, r *frameRange, all [][]byte) error {
	body, err := r.pack.tables.source.Range(ctx, r.offset, r.size)
	if err != nil {
		return fmt.Errorf("%w: %w", pack.ErrRead, err)
	}
	defer body.Close()
	at := r.offset
	for i, f := range r.frames {
		offset, size := r.pack.Index.FrameRange(f.id.number)
		skipped, err := io.CopyN(io.Discard, body, offset-at)
		n := 0
		if err == nil {
			fs.mu.Lock()
			all[i] = fs.packed.take(size)
			fs.mu.Unlock()
			if all[i] == nil {
				all[i] = make([]byte, 0, (size+bufferSize-1)/bufferSize*bufferSize)
			}
			all[i] = all[i][:size]
			n, err = io.ReadFull(body, all[i])
		}
		fs.mu.Lock()
		fs.read += skipped + int64(n)
		fs.mu.Unlock()
		if err != nil {
			return fmt.Errorf("%w: %w", pack.ErrRead, err)
		}
		at = offset + size
	}
	return nil
}

// bytesRead returns how many bytes of packs were read.
func (fs *frames) bytesRead() int64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.read
}

// get returns a decoded frame, which must not be changed, and not be read after the caller's path is released: its
// memory is used again after the last one. The error is a *frameError, or that of the context.
func (fs *frames) get(ctx context.Context, id frameID) ([]byte, error) {
	f := fs.all[id]
	if f == nil {
		return nil, &frameError{id.pack, fmt.Errorf("%w: frame %d was not expected", pack.ErrCorrupt, id.number)}
	}
	f.loaded.Lock()
	defer f.loaded.Unlock()
	fs.mu.Lock()
	plain := f.plain
	if plain != nil {
		fs.touch(f)
	}
	fs.mu.Unlock()
	if plain != nil {
		return plain, nil
	}
	plain, err := fs.load(ctx, f)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, &frameError{id.pack, err}
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.keep(f, plain)
	return plain, nil
}

// load reads and decodes a frame.
func (fs *frames) load(ctx context.Context, f *frame) ([]byte, error) {
	fs.fetch(ctx, f.in)
	if f.in.err != nil {
		return nil, f.in.err
	}
	fs.mu.Lock()
	data := f.data
	if f.data = nil; data != nil {
		fs.fetched -= int64(len(data))
		fs.room.Broadcast()
	}
	into := fs.plain.take(f.id.pack.Index.FrameLength(f.id.number))
	fs.mu.Unlock()
	if data == nil { // it was decoded and not kept
		offset, size := f.id.pack.Index.FrameRange(f.id.number)
		var err error
		data, err = readAll(ctx, f.id.pack.tables.source, offset, size)
		fs.mu.Lock()
		fs.read += int64(len(data))
		fs.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	plain, err := fs.dec.Decode(f.id.pack.Index, f.id.number, data, into)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.packed.put(data)
	return plain, err
}

// keep keeps a decoded frame for the paths that need it, as long as there is room.
func (fs *frames) keep(f *frame, plain []byte) {
	f.plain = plain
	fs.kept += int64(len(plain))
	fs.decoded = append(fs.decoded, f)
	for fs.kept > fs.budget.decoded && len(fs.decoded) > 1 {
		fs.keepChunks(fs.decoded[0])
		fs.drop(fs.decoded[0])
	}
}

// touch notes that a decoded frame was used.
func (fs *frames) touch(f *frame) {
	if n := slices.Index(fs.decoded, f); n >= 0 {
		fs.decoded = append(slices.Delete(fs.decoded, n, n+1), f)
	}
}

// drop forgets a decoded frame.
func (fs *frames) drop(f *frame) {
	if n := slices.Index(fs.decoded, f); n >= 0 {
		fs.decoded = slices.Delete(fs.decoded, n, n+1)
		fs.kept -= int64(len(f.plain))
		f.plain = nil
	}
}

// release says that a path needs its frames no more, and that nobody reads them for it.
func (fs *frames) release(ids []frameID) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, id := range ids {
		f := fs.all[id]
		if f.users--; f.users > 0 {
			continue
		}
		fs.forgetChunks(f)
		if f.plain != nil {
			fs.plain.put(f.plain)
			fs.drop(f)
		}
		if f.data != nil {
			fs.fetched -= int64(len(f.data))
			fs.packed.put(f.data)
			f.data = nil
		}
	}
	fs.room.Broadcast()
}

// causes returns the packs that an error of a path is about, which are all of a path whose content is
// wrong.
func causes(err error, all []*Pack) []*Pack {
	var one *frameError
	if errors.As(err, &one) {
		return []*Pack{one.pack}
	}
	return all
}
