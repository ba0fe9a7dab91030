package storecache

import (
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

// prefetch returns how many segments are requested before a worker reads them. It is small, to
// bound memory, unless paths wait for others: then their bytes should arrive meanwhile.
func prefetch(ordered bool) int {
	const few, many = 4, 16
	if ordered {
		return many
	}
	return few
}

// atOnce is the most packs that are looked up at a time.
const atOnce = 8

// A transfer adds paths from packs to a store.
type transfer struct {
	engine   engine.Engine
	open     func(context.Context, *Pack) (pack.Source, error)
	progress func(Restored) // called when a path was added, if it is not nil
	index    *Index         // with the packs that packs of chunks lean on; nil if there are none
	sink     engine.Sink
	frames   *frames // of packs of chunks
	outcomes map[string]*outcome

	mu       sync.Mutex
	restored Restored
	used     map[*Pack]bool
	broken   map[*Pack]bool
	refused  error // the first refusal of a store that does not trust us
	errs     []error
}

func newTransfer(e engine.Engine, open func(context.Context, *Pack) (pack.Source, error), progress func(Restored)) *transfer {
	return &transfer{engine: e, open: open, progress: progress, outcomes: map[string]*outcome{}, used: map[*Pack]bool{}, broken: map[*Pack]bool{}}
}

// run adds the wanted paths, all of whose references are valid or wanted too. It may be called
// only once.
func (w *transfer) run(ctx context.Context, wanted map[string]location) (restored Restored, err error) {
	all := segments(wanted)
	if len(all) == 0 {
		return Restored{}, nil
	}
	var infos []nix.PathInfo // in reference order, which Finish needs
	for _, s := range all {
		for _, n := range s.records {
			infos = append(infos, pathInfo(&s.pack.Index.Records[n]))
		}
	}
	if !w.engine.Ordered {
		largestFirst(all)
	}
	prefetching, err := w.prepare(all)
	if err != nil {
		return Restored{}, err
	}
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer prefetching(working)() // while the engine begins, too
	if w.sink, err = w.engine.Begin(ctx, infos); err != nil {
		return Restored{}, err
	}
	defer func() { err = errors.Join(err, w.sink.Close()) }()
	ctx = working

	for _, info := range infos {
		w.outcomes[info.Path] = &outcome{done: make(chan struct{})}
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

// An outcome says whether a path was added.
type outcome struct {
	done  chan struct{} // closed when it is known
	added bool
}

// settle marks the outcome as known. Only the worker of the path's segment calls it.
func (o *outcome) settle() {
	select {
	case <-o.done:
	default:
		close(o.done)
	}
}

// A fetch is a segment whose bytes were requested.
type fetch struct {
	segment
	body io.ReadCloser
	err  error // why body is nil
}

func (f *fetch) close() {
	if f.body != nil {
		_ = f.body.Close()
	}
}

// fetch requests the bytes of segments before they are read, and sends them in their order.
func (w *transfer) fetch(ctx context.Context, all []segment, to chan<- *fetch) error {
	lookups := map[*Pack]*lookup{}
	packs := make(chan *Pack, len(all))
	for _, s := range all {
		if lookups[s.pack] == nil && !s.chunked() {
			lookups[s.pack] = &lookup{done: make(chan struct{})}
			packs <- s.pack
		}
	}
	close(packs)
	var g errgroup.Group
	defer func() { _ = g.Wait() }()
	for range min(atOnce, len(lookups)) { // segments of the first are read meanwhile
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
		if l := lookups[s.pack]; l != nil {
			if <-l.done; l.err != nil {
				f.err = l.err
			} else {
				f.body, f.err = l.source.Range(ctx, s.offset, s.size)
			}
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

// segment adds the paths of a segment. Corrupt bytes are noted and are no error.
func (w *transfer) segment(ctx context.Context, f *fetch) error {
	defer func() {
		for _, n := range f.records { // so that no worker waits for paths that were not added
			w.outcomes[f.pack.Index.Records[n].Path].settle()
		}
	}()
	if f.err != nil {
		return w.lost(ctx, f.pack, f.err)
	}
	if f.chunked() {
		return w.play(ctx, &f.segment)
	}
	records, err := f.pack.Index.NewReader(ctx, &once{size: f.offset + f.size, body: f.body}, f.records)
	if err != nil {
		f.close()
		return err
	}
	defer records.Close()
	if sink, ok := w.sink.(engine.Streamer); ok && f.addressed() {
		return w.stream(ctx, sink, f, records)
	}
	for range f.records {
		rec, err := records.Next()
		if err != nil {
			return w.lost(ctx, f.pack, err)
		}
		if ok, err := w.add(ctx, rec, records, []*Pack{f.pack}); err != nil {
			return err
		} else if !ok {
			return nil
		}
	}
	w.read(records.BytesRead)
	return nil
}

// add adds a path, and reports whether the content of others can be read after it. The packs have its
// content. The error is that of the store.
func (w *transfer) add(ctx context.Context, rec *pack.Record, content io.Reader, from []*Pack) (bool, error) {
	info := pathInfo(rec)
	defer w.outcomes[info.Path].settle()
	if ok, err := w.ready(ctx, &info, nil); err != nil || !ok {
		return true, err
	}
	if w.refuses(&info) {
		return true, nil
	}
	content, err := checked(&info, content)
	if err != nil {
		return true, w.lost(ctx, from[0], err)
	}
	err = w.sink.Add(ctx, info, content)
	if err == nil {
		w.added(from, &info)
		return true, nil
	}
	return w.failed(ctx, err, from)
}

// failed notes why a path was not added, and reports whether the content of others can be read after it. The
// returned error is that of the store.
func (w *transfer) failed(ctx context.Context, err error, from []*Pack) (bool, error) {
	var one *engine.RefusedError
	switch {
	case errors.Is(err, pack.ErrCorrupt), errors.Is(err, pack.ErrRead), errors.Is(err, nar.ErrMalformed):
		for _, p := range causes(err, from) {
			if err := w.lost(ctx, p, err); err != nil {
				return false, err
			}
		}
		return false, nil
	case errors.As(err, &one):
		w.refuse(one)
	default:
		return false, err
	}
	return true, nil
}

// ready waits for the outcomes of a path's references if the engine is ordered, except those of paths that are
// sent before it, and reports whether all of them were added.
func (w *transfer) ready(ctx context.Context, info *nix.PathInfo, sent map[string]bool) (bool, error) {
	if !w.engine.Ordered {
		return true, nil
	}
	for _, ref := range info.References {
		o := w.outcomes[ref]
		if o == nil || ref == info.Path || sent[ref] {
			continue
		}
		// It is in this segment or an earlier one, which a worker has taken.
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

func (w *transfer) added(from []*Pack, info *nix.PathInfo) {
	o := w.outcomes[info.Path]
	o.added = true
	o.settle()
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := from[0]; !w.used[p] {
		w.used[p] = true
		w.restored.Packs = append(w.restored.Packs, p.Key)
	}
	w.restored.Paths++
	w.restored.Size += info.NarSize
	if w.progress != nil {
		w.progress(w.restored)
	}
}

// refuses reports whether the store is known to refuse a path.
func (w *transfer) refuses(info *nix.PathInfo) bool {
	if info.CA != "" || len(info.Signatures) > 0 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refused != nil
}

// refuse notes that the store refused a path. Only the first refusal becomes an error.
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

// lost notes that a pack could not be read. It returns an error only if the context has ended.
func (w *transfer) lost(ctx context.Context, p *Pack, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if isGone(err) && !slices.Contains(w.restored.Lost, p.Key) {
		w.restored.Lost = append(w.restored.Lost, p.Key)
	}
	if !w.broken[p] { // only the first error of a pack
		w.broken[p] = true
		if p.Key != "" {
			err = fmt.Errorf("%s: %w", p.Key, err)
		}
		w.errs = append(w.errs, fmt.Errorf("%w: %w", ErrSource, err))
	}
	return nil
}

// isGone reports whether a pack is missing or corrupt, as opposed to unreadable for a passing reason.
func isGone(err error) bool {
	return errors.Is(err, cache.ErrMiss) || errors.Is(err, pack.ErrCorrupt) || errors.Is(err, nar.ErrMalformed)
}

// finish makes those paths valid that were added with all their references.
func (w *transfer) finish(ctx context.Context, infos []nix.PathInfo) (Restored, error) {
	whole := infos[:0:0]
	for _, info := range infos {
		o := w.outcomes[info.Path]
		for _, ref := range info.References {
			if needs := w.outcomes[ref]; needs != nil && !needs.added {
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
	if w.frames != nil {
		w.restored.Bytes += w.frames.bytesRead()
	}
	slices.Sort(w.restored.Packs)
	w.restored.Paths = len(whole)
	return w.restored, errors.Join(w.errs...)
}

// once is the source of a pack whose only range was requested already.
type once struct {
	size int64
	body io.ReadCloser
}

func (o *once) Size() int64 { return o.size }

func (o *once) Range(context.Context, int64, int64) (io.ReadCloser, error) {
	if o.body == nil {
		return nil, errors.New("the range was read already")
	}
	body := o.body
	o.body = nil
	return body, nil
}
