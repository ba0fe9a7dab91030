package storecache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

// prefetch returns how many segments are asked for before a worker reads them: few where
// they are read as they come, which bounds the memory. Where a path waits for others, its
// bytes and those behind it should come meanwhile.
func prefetch(ordered bool) int {
	const few, many = 4, 16
	if ordered {
		return many
	}
	return few
}

// atOnce is how many packs are looked up at a time.
const atOnce = 8

// A transfer adds paths from packs to a store.
type transfer struct {
	engine   engine.Engine
	open     func(context.Context, *Pack) (pack.Source, error)
	progress func(Restored) // is told of what was added, if it is not nil
	sink     engine.Sink
	became   map[string]*outcome

	mu       sync.Mutex
	restored Restored
	used     map[*Pack]bool
	broken   map[*Pack]bool
	refused  error // the first of a store that does not trust us
	errs     []error
}

func newTransfer(e engine.Engine, open func(context.Context, *Pack) (pack.Source, error), progress func(Restored)) *transfer {
	return &transfer{engine: e, open: open, progress: progress, became: map[string]*outcome{}, used: map[*Pack]bool{}, broken: map[*Pack]bool{}}
}

// run adds the wanted paths, all of whose references are valid or wanted too. It is called
// once.
func (w *transfer) run(ctx context.Context, wanted map[string]place) (restored Restored, err error) {
	all := segments(wanted)
	if len(all) == 0 {
		return Restored{}, nil
	}
	var infos []nix.PathInfo
	for _, s := range all {
		for _, n := range s.records {
			infos = append(infos, pathInfo(&s.pack.Index.Records[n]))
		}
	}
	if !w.engine.Ordered { // so that no reader is left with the largest one
		slices.SortStableFunc(all, func(a, b segment) int { return cmp.Compare(b.size, a.size) })
	}
	if w.sink, err = w.engine.Begin(ctx, infos); err != nil {
		return Restored{}, err
	}
	defer func() { err = errors.Join(err, w.sink.Close()) }()

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	for _, info := range infos {
		w.became[info.Path] = &outcome{done: make(chan struct{})}
	}
	opened := make(chan *fetch, prefetch(w.engine.Ordered))
	var g errgroup.Group
	g.Go(func() error {
		defer close(opened)
		return w.fetch(ctx, all, opened)
	})
	for range w.engine.Parallel {
		g.Go(func() error {
			for f := range opened {
				if err := w.segment(ctx, f); err != nil {
					stop(err)
					for f := range opened {
						f.close()
					}
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return Restored{}, err
	}
	return w.finish(ctx, infos)
}

// An outcome is what became of a path.
type outcome struct {
	done  chan struct{} // closed when it is known
	added bool
}

// settle tells those who wait for the path that it is known. It is for who adds it alone.
func (o *outcome) settle() {
	select {
	case <-o.done:
	default:
		close(o.done)
	}
}

// A fetch is a segment whose bytes were asked for.
type fetch struct {
	segment
	body io.ReadCloser
	err  error // why there is none
}

func (f *fetch) close() {
	if f.body != nil {
		_ = f.body.Close() // nobody wants the rest
	}
}

// fetch asks for the bytes of segments before anybody reads them, and gives them in
// their order.
func (w *transfer) fetch(ctx context.Context, all []segment, to chan<- *fetch) error {
	lookups := map[*Pack]*lookup{}
	packs := make(chan *Pack, len(all))
	for _, s := range all {
		if lookups[s.pack] == nil {
			lookups[s.pack] = &lookup{done: make(chan struct{})}
			packs <- s.pack
		}
	}
	close(packs)
	var g errgroup.Group
	defer func() { _ = g.Wait() }()
	for range min(atOnce, len(lookups)) { // while segments of the first are read already
		g.Go(func() error {
			for p := range packs {
				l := lookups[p]
				l.source, l.err = w.open(ctx, p)
				close(l.done)
			}
			return nil
		})
	}
	for _, s := range all {
		f := &fetch{segment: s}
		l := lookups[s.pack]
		if <-l.done; l.err != nil {
			f.err = l.err
		} else {
			f.body, f.err = l.source.Range(ctx, s.offset, s.size)
		}
		select {
		case to <- f:
		case <-ctx.Done():
			f.close()
			return nil
		}
	}
	return nil
}

// A lookup finds a pack once for all of its segments.
type lookup struct {
	done   chan struct{}
	source pack.Source
	err    error
}

// segment adds the paths of a segment. What is wrong with its bytes is no error.
func (w *transfer) segment(ctx context.Context, f *fetch) error {
	defer func() {
		for _, n := range f.records { // nobody shall wait for what does not come
			w.became[f.pack.Index.Records[n].Path].settle()
		}
	}()
	if f.err != nil {
		return w.lost(ctx, f.pack, f.err)
	}
	records, err := f.pack.Index.NewReader(ctx, &once{size: f.offset + f.size, body: f.body}, f.records)
	if err != nil {
		f.close()
		return err
	}
	defer records.Close()
	for range f.records {
		rec, err := records.Next()
		if err != nil {
			return w.lost(ctx, f.pack, err)
		}
		info := pathInfo(rec)
		if ok, err := w.ready(ctx, &info); err != nil {
			return err
		} else if !ok || w.hopeless(&info) {
			w.became[info.Path].settle()
			continue
		}
		content, err := checked(&info, records)
		if err != nil {
			w.became[info.Path].settle()
			if err := w.lost(ctx, f.pack, err); err != nil {
				return err
			}
			continue
		}
		if err := w.sink.Add(ctx, info, content); err != nil {
			var one *engine.RefusedError
			switch {
			case errors.Is(err, pack.ErrCorrupt), errors.Is(err, pack.ErrRead), errors.Is(err, nar.ErrMalformed):
				return w.lost(ctx, f.pack, err)
			case errors.As(err, &one):
				w.refuse(one)
				w.became[info.Path].settle()
				continue
			}
			return err
		}
		w.added(f.pack, &info)
	}
	w.read(records.BytesRead)
	return nil
}

// ready waits until all references of a path are added, if the engine wants it so, and
// says whether they are.
func (w *transfer) ready(ctx context.Context, info *nix.PathInfo) (bool, error) {
	if !w.engine.Ordered {
		return true, nil
	}
	for _, ref := range info.References {
		o := w.became[ref]
		if o == nil || ref == info.Path {
			continue
		}
		// It is in this segment or one before it, which somebody is at.
		select {
		case <-o.done:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
		if !o.added {
			return false, nil
		}
	}
	return true, nil
}

func (w *transfer) added(from *Pack, info *nix.PathInfo) {
	o := w.became[info.Path]
	o.added = true
	o.settle()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.used[from] {
		w.used[from] = true
		w.restored.Packs = append(w.restored.Packs, from.Key)
	}
	w.restored.Paths++
	w.restored.Size += info.NarSize
	if w.progress != nil {
		w.progress(w.restored)
	}
}

// hopeless says whether a store that does not trust us has nothing to take a path for.
func (w *transfer) hopeless(info *nix.PathInfo) bool {
	if info.CA != "" || len(info.Signatures) > 0 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refused != nil
}

// refuse notes that the store does not take a path. The first time tells why.
func (w *transfer) refuse(err *engine.RefusedError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refused == nil {
		w.refused = err
		w.errs = append(w.errs, err)
	}
}

func (w *transfer) read(bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.restored.Bytes += bytes
}

// lost notes that a pack can't be read, which is an error only when that is because
// nobody waits any more.
func (w *transfer) lost(ctx context.Context, p *Pack, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	gone := errors.Is(err, cache.ErrMiss) || errors.Is(err, pack.ErrCorrupt) || errors.Is(err, nar.ErrMalformed)
	if gone && !slices.Contains(w.restored.Lost, p.Key) {
		w.restored.Lost = append(w.restored.Lost, p.Key)
	}
	if !w.broken[p] { // once is enough
		w.broken[p] = true
		if p.Key != "" {
			err = fmt.Errorf("%s: %w", p.Key, err)
		}
		w.errs = append(w.errs, fmt.Errorf("%w: %w", ErrSource, err))
	}
	return nil
}

// finish makes those paths valid that have come with all that they refer to.
func (w *transfer) finish(ctx context.Context, infos []nix.PathInfo) (Restored, error) {
	whole := infos[:0:0]
	for _, info := range infos {
		o := w.became[info.Path]
		for _, ref := range info.References {
			if needs := w.became[ref]; needs != nil && !needs.added {
				o.added = false
			}
		}
		if o.added {
			whole = append(whole, info)
		}
	}
	if err := w.sink.Finish(ctx, whole); err != nil {
		return Restored{}, err
	}
	slices.Sort(w.restored.Packs)
	w.restored.Paths = len(whole)
	return w.restored, errors.Join(w.errs...)
}

// once is a pack of which one range was asked for already.
type once struct {
	size int64
	body io.ReadCloser
}

func (o *once) Size() int64 { return o.size }

func (o *once) Range(context.Context, int64, int64) (io.ReadCloser, error) {
	if o.body == nil {
		return nil, errors.New("it is read for the second time")
	}
	body := o.body
	o.body = nil
	return body, nil
}
