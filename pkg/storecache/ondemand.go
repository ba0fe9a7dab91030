package storecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/httpcall"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

// ErrAbsent says that no pack has a path, or none that can be read.
var ErrAbsent = errors.New("no pack has the path")

// pause is how long a pack is not asked for again after a passing error of the cache.
const pause = 30 * time.Second

// maxWaiting is the most closures that wait to be prefetched. Others are not prefetched.
const maxWaiting = 1 << 10

// maxCached is the most bytes of a frame of a pack of records that is read as a whole. A larger one has one path.
const maxCached = 8 << 20

// OnDemandOptions say from where and how an [OnDemand] reads.
type OnDemandOptions struct {
	Cache cache.Cache
	Index *Index // not used otherwise from then on
	// Present reports whether a path needs no prefetch, because the store has it. It may be nil.
	Present func(path string) bool
	// Lost is called with the keys of packs that turn out to be missing or corrupt, one call after the other.
	// It may be nil.
	Lost func(keys ...string)
	// Reload returns the index as it is by now, of which the OnDemand has the packs from then on. It is called after a path
	// was not found, once a minute at most. It may be nil.
	Reload func(context.Context) *Index
}

// reloadPause is the time between two calls of Reload.
var reloadPause = time.Minute

// An OnDemand returns the paths of an index one by one, in whatever order somebody asks for them. It is safe
// for concurrent use.
type OnDemand struct {
	OnDemandOptions
	ctx     context.Context
	stop    context.CancelFunc
	frames  *frameCache
	waiting chan string // hash parts of paths whose closures are to be prefetched
	running sync.WaitGroup

	turn    chan struct{} // holds one while a goroutine uses what follows, and what the index loads
	records map[*pack.Index]map[string]int
	sources map[*Pack]pack.Source // of packs of records
	pauses  map[string]time.Time  // of packs, by their keys
	queued  map[string]bool       // paths that were prefetched
	gone    map[string]bool       // packs that were lost, by their keys

	missed chan struct{} // holds one after a path was not found
}

// NewOnDemand returns an OnDemand. Its reads end with the context. The caller must close it.
func NewOnDemand(ctx context.Context, o OnDemandOptions) (*OnDemand, error) {
	ctx, stop := context.WithCancel(ctx)
	frames, err := newFrameCache(ctx)
	if err != nil {
		stop()
		return nil, err
	}
	if o.Index.from == nil {
		o.Index = o.Index.In(o.Cache, nil)
	}
	d := &OnDemand{
		OnDemandOptions: o, ctx: ctx, stop: stop, frames: frames, waiting: make(chan string, maxWaiting), turn: make(chan struct{}, 1),
		records: map[*pack.Index]map[string]int{}, sources: map[*Pack]pack.Source{}, pauses: map[string]time.Time{}, queued: map[string]bool{}, gone: map[string]bool{}, missed: make(chan struct{}, 1),
	}
	d.running.Go(d.prefetches)
	if o.Reload != nil {
		d.running.Go(d.reloads)
	}
	return d, nil
}

// Close ends all reads. Nobody may use the OnDemand meanwhile, or later.
func (d *OnDemand) Close() {
	d.stop()
	d.running.Wait()
	d.frames.Close()
}

// begin waits for the turn of the caller, who must end it.
func (d *OnDemand) begin(ctx context.Context) error {
	select {
	case d.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (d *OnDemand) end() { <-d.turn }

// Find returns the path with a hash part, the 32 characters after /nix/store/. The error wraps
// [ErrAbsent], or is the end of the context.
func (d *OnDemand) Find(ctx context.Context, hash string) (nix.PathInfo, error) {
	s, err := d.locate(ctx, hash)
	if err != nil {
		return nix.PathInfo{}, err
	}
	return pathInfo(s.record()), nil
}

// locate finds a path and what reading it needs.
func (d *OnDemand) locate(ctx context.Context, hash string) (*segment, error) {
	if err := d.begin(ctx); err != nil {
		return nil, err
	}
	defer d.end()
	s, err := d.find(hash)
	if err != nil {
		select {
		case d.missed <- struct{}{}:
		default:
		}
	}
	return s, err
}

// reloads adds the packs of newer indexes.
func (d *OnDemand) reloads() {
	for httpcall.Sleep(d.ctx, reloadPause) == nil {
		select {
		case <-d.missed:
		case <-d.ctx.Done():
			return
		}
		newest := d.Reload(d.ctx)
		if d.begin(d.ctx) != nil {
			return
		}
		d.Index = d.Index.Join(slices.DeleteFunc(slices.Clone(newest.Packs), func(p *Pack) bool { return d.gone[p.Key] })...)
		d.end()
	}
}

// find does the work of locate. The caller has the turn.
func (d *OnDemand) find(hash string) (*segment, error) {
	id := idOf("/nix/store/" + hash)
	for {
		index := d.Index
		for _, p := range index.paths[id] {
			if !d.ready(p) {
				continue
			}
			if d.Index != index {
				break // a pack is lost
			}
			n, ok := d.number(p.Index, hash)
			if !ok {
				continue
			}
			s := &segment{pack: p, records: []int{n}}
			room := maxNeeds
			if p.Index.Chunked() && index.findFrames(s, &room) != nil {
				continue
			}
			return s, nil
		}
		if d.Index == index {
			return nil, ErrAbsent
		}
	}
}

// number returns the number of the record with a hash part.
func (d *OnDemand) number(index *pack.Index, hash string) (int, bool) {
	all := d.records[index]
	if all == nil {
		all = map[string]int{}
		for n := range index.Records {
			const start = len("/nix/store/")
			all[index.Records[n].Path[start:start+len(hash)]] = n
		}
		d.records[index] = all
	}
	n, ok := all[hash]
	return n, ok
}

// ready loads a pack and those that it leans on, and reports whether the pack can be read. Packs that turn out to be
// lost leave the index. The caller has the turn.
func (d *OnDemand) ready(p *Pack) bool {
	if d.paused(p) {
		return false
	}
	if p.sum == "" {
		if d.sources[p] == nil {
			source, err := d.Cache.Open(d.ctx, p.Key)
			if err != nil {
				d.failed(p, err)
				return false
			}
			d.sources[p] = source
		}
		return true
	}
	missing := slices.DeleteFunc(d.Index.needs(p), func(q *Pack) bool {
		return q.tables != nil || q.sum == "" || d.paused(q)
	})
	if len(missing) > 0 && d.Index.load(d.ctx, missing, true) != nil {
		return false // the end of the context
	}
	index := d.Index
	for _, q := range missing {
		if err := index.failed[q]; err != nil {
			delete(index.failed, q)
			d.failed(q, err)
		}
	}
	return p.tables != nil
}

// failed notes that a pack could not be read. The caller has the turn.
func (d *OnDemand) failed(p *Pack, err error) {
	if d.ctx.Err() != nil {
		return
	}
	if !isGone(err) {
		d.pauses[p.Key] = time.Now().Add(pause)
		return
	}
	if d.Index.packs[p.Key] == nil {
		return // that is known
	}
	if rest, err := d.Index.Without(d.ctx, p.Key); err == nil {
		d.Index, d.gone[p.Key] = rest, true
		if d.Lost != nil {
			d.Lost(p.Key)
		}
	}
}

// Open returns the NAR of the path with a hash part, and the path. The reader returns the last bytes only after it
// has checked the NAR; after an error of it, another call of Open does not read the pack that is to blame. The
// caller must close the reader. The error wraps [ErrAbsent], or is the end of the context.
func (d *OnDemand) Open(ctx context.Context, hash string) (nix.PathInfo, io.ReadCloser, error) {
	s, err := d.locate(ctx, hash)
	if err != nil {
		return nix.PathInfo{}, nil, err
	}
	rec := s.record()
	info := pathInfo(rec)
	r := &narReader{ctx: ctx, d: d, s: s, close: func() {}}
	if s.chunked() {
		r.content = s.read(ctx, func(stream int, id frameID) ([]byte, error) {
			return r.frame(ctx, stream, id.pack, id.pack.tables.source, id.number)
		}, nil)
	} else if err := r.openRecord(); err != nil {
		r.blame(err)
		return info, nil, fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	if r.content, err = checked(&info, r.content); err != nil {
		r.blame(err)
		return info, nil, errors.Join(fmt.Errorf("%w: %w", ErrAbsent, err), r.Close())
	}
	return info, r, nil
}

// Prefetch begins to read what the closure of the path with a hash part needs, ahead of the calls of Open. It
// returns at once.
func (d *OnDemand) Prefetch(hash string) {
	select {
	case d.waiting <- hash:
	default:
	}
}

// prefetches prefetches closures one after the other.
func (d *OnDemand) prefetches() {
	for {
		select {
		case hash := <-d.waiting:
			if needs := d.closure(hash); len(needs) > 0 {
				d.frames.prefetch(needs)
			}
		case <-d.ctx.Done():
			return
		}
	}
}

// errPaused is the error of a pack that is not asked for again yet.
var errPaused = errors.New("the pack was unreadable a moment ago")

// packed returns the paths of a closure that packs have, of those that are not paused. The caller has the
// turn. The error is the end of the context.
func (d *OnDemand) packed(path string) ([]string, error) {
	index := d.Index
	for _, p := range index.Packs {
		if d.paused(p) {
			index.failed[p] = errPaused
		}
	}
	packed, _, err := index.Closure(d.ctx, path)
	for p, err := range index.failed {
		delete(index.failed, p)
		if !errors.Is(err, errPaused) {
			d.failed(p, err)
		}
	}
	return packed, err
}

// paused reports whether a pack had a passing error a moment ago.
func (d *OnDemand) paused(p *Pack) bool { return time.Now().Before(d.pauses[p.Key]) }

// closure returns the frames of the paths in a closure that are not in the store and were not prefetched, in the
// order in which Nix asks for them.
func (d *OnDemand) closure(hash string) [][]frameID {
	if d.begin(d.ctx) != nil {
		return nil
	}
	defer d.end()
	s, err := d.find(hash)
	if err != nil || d.queued[s.record().Path] {
		return nil
	}
	packed, err := d.packed(s.record().Path)
	if err != nil {
		return nil
	}
	wanted := map[string]location{}
	for _, path := range packed {
		if d.queued[path] || d.Present != nil && d.Present(path) {
			continue
		}
		if at, ok := d.Index.find(path); ok && at.pack.Index.Chunked() && d.ready(at.pack) {
			d.queued[path] = true
			wanted[path] = at
		}
	}
	var needs [][]frameID
	room := maxNeeds
	o := newOrder(wanted)
	for at, ok := o.next(); ok; at, ok = o.next() {
		s := &segment{pack: at.pack, records: []int{at.record}}
		if d.Index.findFrames(s, &room) == nil {
			needs = append(needs, s.frames)
		}
	}
	return needs
}
