package storecache

import (
	"container/list"
	"context"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/pkg/pack"
)

// The limits of a frame cache, in bytes.
const (
	// plainBudget bounds the memory of decoded frames.
	plainBudget = 48 << 20
	// prefetchSize is about how many bytes a prefetch reads at a time.
	prefetchSize = 4 << 20
	// maxSpill bounds the file, which also leaves most of the disk's room free.
	maxSpill = 4 << 30
	// freeShare is the part of that room which the file may take, as a divisor.
	freeShare = 4
)

// A frameCache has frames of packs that were read or will be. Each is requested once and then kept in a file, as it is
// in the pack, because Nix asks for the paths of a closure in an order of its own. It is safe for concurrent use.
type frameCache struct {
	kept    int64           // plainBudget
	file    *os.File        // nil if there is no room for one
	ctx     context.Context // of the reads
	dec     *pack.Frames
	running sync.WaitGroup // reads

	mu      sync.Mutex
	all     map[frameKey]*cachedFrame // that are being read, or decoded
	plain   lru                       // decoded frames
	memory  buffers                   // of frames without readers
	spilled map[frameKey]span         // in the file
	users   map[frameKey]int          // how many of the prefetched paths need a frame
	size    int64                     // bytes of the file
	room    int64                     // most bytes of the file
	free    *sync.Cond                // of loading
	loading int64                     // bytes that the prefetch is reading
}

// A span is bytes of the file: a frame as it is in the pack, or decoded.
type span struct {
	offset, size int64
	plain        bool
}

// A frameKey is a frame of the pack with a key.
type frameKey struct {
	pack   string
	number int
}

// A cachedFrame is being read while done is open. Then it has plain, or err, or is in the file.
type cachedFrame struct {
	key     frameKey
	done    chan struct{}
	plain   []byte
	err     error
	at      *list.Element
	readers int  // of plain
	dropped bool // from the cache
}

// An lru is a list of frames, of which the first was not used for longest.
type lru struct {
	list.List
	bytes int64
}

// newFrameCache returns a cache whose reads end with the context. The caller must end it and then close
// the cache.
func newFrameCache(ctx context.Context) (*frameCache, error) {
	dec, err := pack.NewHashedFrames(runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, err
	}
	c := &frameCache{kept: plainBudget, ctx: ctx, dec: dec, all: map[frameKey]*cachedFrame{}, spilled: map[frameKey]span{}, users: map[frameKey]int{}}
	c.free = sync.NewCond(&c.mu)
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.free.Broadcast()
	})
	if file, err := tempFile(); err == nil {
		c.file, c.room = file, spillRoom(file)
	}
	return c, nil
}

// spillRoom returns how many bytes a file may have.
func spillRoom(file *os.File) int64 {
	var disk unix.Statfs_t
	if unix.Fstatfs(int(file.Fd()), &disk) != nil {
		return 0
	}
	blocks := min(disk.Bavail, maxSpill)
	return min(int64(blocks)*int64(disk.Bsize)/freeShare, maxSpill) //nolint:unconvert // bounded; its type depends on the system
}

// Close waits for the end of the reads, after that of the prefetches.
func (c *frameCache) Close() {
	c.running.Wait()
	c.dec.Close()
	if c.file != nil {
		_ = c.file.Close() // it has no name any more
	}
}

// get returns a frame of a pack, of which plain is decoded if the pack has chunks. It must not be changed, and not be read
// after put. The error is a *frameError, or that of the context.
func (c *frameCache) get(ctx context.Context, p *Pack, source pack.Source, number int) (*cachedFrame, error) {
	key := frameKey{p.Key, number}
	for {
		c.mu.Lock()
		f := c.all[key]
		switch {
		case f == nil:
			f = &cachedFrame{key: key, done: make(chan struct{})}
			c.all[key] = f
			c.running.Go(func() { c.load(f, p, source) }) // the next reader may want it, should this one go
		case f.plain != nil:
			c.plain.MoveToBack(f.at)
		}
		f.readers++
		c.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			c.put(f)
			return nil, context.Cause(ctx)
		}
		if f.err != nil {
			return nil, &frameError{p, f.err}
		}
		if f.plain != nil {
			return f, nil
		}
	}
}

// put says that a reader of a frame has ended. After the last one, its memory is used again.
func (c *frameCache) put(f *cachedFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.readers--
	c.reuse(f)
}

func (c *frameCache) reuse(f *cachedFrame) {
	if f.dropped && f.readers == 0 {
		c.memory.put(f.plain)
		f.plain = nil
	}
}

// load reads a frame, from the file if it is there, and decodes it.
func (c *frameCache) load(f *cachedFrame, p *Pack, source pack.Source) {
	plain, err := c.read(f, p, source)
	for _, old := range c.loaded(f, plain, err) {
		c.spillPlain(old)
		c.put(old)
	}
}

func (c *frameCache) read(f *cachedFrame, p *Pack, source pack.Source) (data []byte, err error) {
	number := f.key.number
	c.mu.Lock()
	at, spilled := c.spilled[f.key]
	var into []byte
	if p.Index.Chunked() {
		into = c.memory.take(p.Index.FrameLength(number))
	}
	c.mu.Unlock()
	if at.plain {
		plain := slices.Grow(into, int(at.size))[:at.size]
		if _, err := c.file.ReadAt(plain, at.offset); err == nil {
			return plain, nil
		}
		spilled = false
	}
	if spilled {
		data = make([]byte, at.size)
		_, err = c.file.ReadAt(data, at.offset)
	}
	if !spilled || err != nil {
		offset, size := p.Index.FrameRange(number)
		if data, err = readAll(c.ctx, source, offset, size); err == nil {
			c.spill([]*cachedFrame{f}, p, data)
		}
	}
	if err == nil && p.Index.Chunked() {
		return c.dec.Decode(p.Index, number, data, into)
	}
	return data, err
}

// loaded adds a frame that was read. It returns those that had to make room and other paths will need, which the caller
// must put.
func (c *frameCache) loaded(f *cachedFrame, plain []byte, err error) (again []*cachedFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(f.done)
	if err != nil {
		f.err = err
		delete(c.all, f.key)
		return nil
	}
	f.plain = plain
	c.plain.add(f, len(f.plain))
	for c.plain.bytes > c.kept && c.plain.Len() > 1 {
		oldest := c.plain.Front().Value.(*cachedFrame)
		c.plain.drop(oldest, len(oldest.plain))
		delete(c.all, oldest.key)
		oldest.dropped = true
		if at, ok := c.spilled[oldest.key]; ok && !at.plain && c.users[oldest.key] > 1 {
			oldest.readers++
			again = append(again, oldest)
		}
		c.reuse(oldest)
	}
	return again
}

// spillPlain writes a decoded frame to the file, if there is room, because to read it is quicker than to decode it
// again.
func (c *frameCache) spillPlain(f *cachedFrame) {
	if at, ok := c.write(f.plain); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.spilled[f.key] = span{at, int64(len(f.plain)), true}
	}
}

// write appends to the file, and reports whether there was room.
func (c *frameCache) write(data []byte) (at int64, ok bool) {
	c.mu.Lock()
	at = c.size
	ok = c.file != nil && at+int64(len(data)) <= c.room
	if ok {
		c.size += int64(len(data))
	}
	c.mu.Unlock()
	if !ok {
		return 0, false
	}
	if _, err := c.file.WriteAt(data, at); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.room = 0 // the disk is full
		return 0, false
	}
	return at, true
}

// spill writes frames of a pack, given by the bytes from the first to the last, to the file if there is room.
func (c *frameCache) spill(frames []*cachedFrame, p *Pack, data []byte) {
	at, ok := c.write(data)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	start, _ := p.Index.FrameRange(frames[0].key.number)
	for _, f := range frames {
		offset, size := p.Index.FrameRange(f.key.number)
		c.spilled[f.key] = span{at + offset - start, size, false}
	}
}

func (l *lru) add(f *cachedFrame, bytes int) {
	f.at = l.PushBack(f)
	l.bytes += int64(bytes)
}

func (l *lru) drop(f *cachedFrame, bytes int) {
	l.Remove(f.at)
	l.bytes -= int64(bytes)
}

// prefetch reads the frames that paths need into the file, in their order, ahead of their readers.
func (c *frameCache) prefetch(needs [][]frameID) {
	for _, r := range rangesOf(needs, prefetchSize) {
		missing := c.begin(r)
		if len(missing) == 0 {
			continue
		}
		c.running.Go(func() { c.fetch(r, missing) })
	}
}

// begin waits until a range can be read, and marks its frames as loading, except those that are there or are loading
// already. It returns none when the context has ended, or there is no room.
func (c *frameCache) begin(r *frameRange) []*cachedFrame {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.ctx.Err() == nil && c.loading > 0 && c.loading+r.size > rangesAtOnce*prefetchSize {
		c.free.Wait()
	}
	if c.ctx.Err() != nil || c.size+c.loading+r.size > c.room {
		return nil
	}
	var missing []*cachedFrame
	for _, f := range r.frames {
		key := frameKey{f.id.pack.Key, f.id.number}
		c.users[key] += f.users
		if _, spilled := c.spilled[key]; c.all[key] == nil && !spilled {
			one := &cachedFrame{key: key, done: make(chan struct{})}
			c.all[key] = one
			missing = append(missing, one)
		}
	}
	if len(missing) > 0 {
		c.loading += r.size
	}
	return missing
}

// fetch reads the missing frames of a range. An error is that of their readers.
func (c *frameCache) fetch(r *frameRange, missing []*cachedFrame) {
	index := r.pack.Index
	start, _ := index.FrameRange(missing[0].key.number)
	end, last := index.FrameRange(missing[len(missing)-1].key.number)
	data, err := readAll(c.ctx, r.pack.tables.source, start, end+last-start)
	if err == nil {
		c.spill(missing, r.pack, data) // or the reader that wants them reads them again
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range missing {
		delete(c.all, f.key)
		f.err = err
		close(f.done)
	}
	c.loading -= r.size
	c.free.Signal()
}
