package reuse

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/documents"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/storecache"
)

// inlineSize is the most bytes, not packed, of the outputs that travel with the document of a hand-over, so that
// they take no further entry of the cache. Later runs do not restore from there: the job that has built them
// saves them at its end as well, all together.
const inlineSize = 8 << 20

// Give saves outputs that were built here for the other jobs of the run, with those paths of their
// closures that no substituter and no pack has. It sets the document in done, which names the packs of this
// run with such paths, also those of other jobs, and the hash of each path. Small ones are in done
// too, and the caller stores both. size is that of the new packs, in bytes.
func (e *EntryCache) Give(ctx context.Context, n *nix.Nix, outputs []string, done *job.Done) (size int64, err error) {
	_ = e.loading.Wait()
	known, err := e.known(ctx)
	if err != nil {
		return 0, err
	}
	found, err := storecache.New(ctx, n, known, storecache.Built, outputs)
	if err != nil {
		return 0, err
	}
	fresh := found.Fresh
	inline, packed := e.inline(ctx, n, fresh)
	if inline == nil {
		packs, saved, err := e.cache.save(ctx, n, fresh, known, func(p *storecache.Pack) {
			e.given = append(e.given, job.Pack{Key: p.Key, Size: p.Size, Paths: p.Paths()})
		})
		e.exchanged = append(e.exchanged, packs...)
		if err == nil {
			done.Index, err = e.document(ctx, known, outputs, e.exchanged)
		}
		return saved.Size, err
	}
	document, err := e.document(ctx, known, outputs, append(slices.Clip(e.exchanged), inline))
	if err != nil {
		return 0, err
	}
	done.Index, done.Inline, done.Packed = document, inline.Key, packed
	for i := range fresh {
		if path := fresh[i].Path; !e.others[path] {
			e.small[path] = true
		}
	}
	return inline.Size, nil
}

// document returns that of a hand-over. Packs of known may have contents of the others.
func (e *EntryCache) document(ctx context.Context, known *storecache.Index, outputs []string, packs []*storecache.Pack) ([]byte, error) {
	holding, err := known.With(packs...).Leaning(known).Holding(ctx, outputs...)
	if err != nil {
		return nil, err
	}
	return holding.Marshal(e.cache.Docs.Seal)
}

// inline returns a pack of paths for the document, nil if they are too large or cannot be packed into one.
func (e *EntryCache) inline(ctx context.Context, n *nix.Nix, paths []nix.PathInfo) (*storecache.Pack, []byte) {
	size := int64(0)
	for i := range paths {
		size += paths[i].NarSize
	}
	if len(paths) == 0 || size > inlineSize {
		return nil, nil
	}
	var held holder
	to := &storecache.Saver{Nix: n, Cache: &held, ID: e.cache.Docs.ID, Seal: e.cache.Docs.Seal}
	packs, err := to.Save(ctx, paths)
	if err != nil || len(packs) != 1 || packs[0].Paths() != len(paths) || len(held.data) > documents.MaxPacked {
		return nil, nil // what is wrong is seen once more, and said
	}
	return packs[0], held.data
}

// A holder is a cache for one pack.
type holder struct{ data []byte }

func (*holder) Open(context.Context, string, ...string) (cache.Blob, error) {
	return nil, cache.ErrMiss
}

func (h *holder) Save(_ context.Context, _ string, body io.ReaderAt, size int64) (err error) {
	h.data, err = io.ReadAll(io.NewSectionReader(body, 0, size))
	return err
}

// known returns the index of all packs, of earlier runs and of this one, except those with these keys.
func (e *EntryCache) known(ctx context.Context, except ...string) (*storecache.Index, error) {
	rest, err := e.index.Without(ctx, except...)
	if err != nil {
		return nil, err
	}
	return rest.Join(e.exchanged...), nil
}

// A Handover is what Take takes: outputs that another job has built, with what Give has set.
type Handover struct {
	Done    *job.Done
	Outputs []string
	Err     error // why not all outputs are valid now
	Bytes   int64 // about how many were read
}

// Take makes outputs valid that other jobs have built, from the packs of their documents or from a
// substituter, and counts what came in the Result. named reports whether a path belongs to the Plan: outputs
// that need any other path of a pack are refused. The error is that of the store.
func (e *EntryCache) Take(ctx context.Context, n *nix.Nix, all []Handover, named func(path string) bool, result *job.Result) error {
	_ = e.loading.Wait()
	indexes := make([]*storecache.Index, len(all))
	var outputs []string
	var packs []*storecache.Pack
	from := inlined{e.cache.Docs.Cache, map[string]job.Place{}}
	for i := range all {
		h := &all[i]
		if h.Done.Inline != "" {
			from.places[h.Done.Place.Key] = h.Done.Place
		}
	}
	var reading errgroup.Group
	reading.SetLimit(8)
	for i := range all {
		reading.Go(func() error {
			indexes[i], all[i].Err = e.read(ctx, &all[i], from, named)
			return nil
		})
	}
	_ = reading.Wait()
	for i := range all {
		if all[i].Err == nil {
			outputs, packs = append(outputs, all[i].Outputs...), append(packs, indexes[i].Packs...)
		}
	}
	if len(outputs) == 0 {
		return nil
	}
	if err := e.openEngine(ctx, n); err != nil {
		return err
	}
	index, _, err := storecache.NewIndex(slices.Concat(packs, e.index.Packs, e.exchanged)...).In(from, e.cache.Docs.Seal).Accepting(ctx, e.Accept)
	if err != nil {
		return err
	}
	got, restoring := e.cache.restoreFrom(ctx, from, n, *e.opened, index, outputs)
	valid, err := got.Valid, error(nil)
	if valid == nil {
		valid, err = n.Valid(ctx, outputs...)
	}
	lacks := func(path string) bool { return !valid[path] }
	if lacking := slices.DeleteFunc(slices.Clone(outputs), func(path string) bool { return valid[path] }); err == nil && len(lacking) > 0 {
		_ = n.Substitute(ctx, got.Fetched.Add, lacking...) // from a binary cache to which the other job has pushed; what it lacks is named below
		valid, err = n.Valid(ctx, outputs...)
	}
	inline := func(key string) bool { _, is := from.places[key]; return is } // a document is no pack
	got.Packs, got.Lost = slices.DeleteFunc(got.Packs, inline), slices.DeleteFunc(got.Lost, inline)
	count(got, result)
	if err != nil {
		return err
	}
	for i := range all {
		h := &all[i]
		if n := slices.IndexFunc(h.Outputs, lacks); h.Err == nil && n >= 0 {
			h.Err = cmp.Or(restoring, fmt.Errorf("neither the packs nor a substituter has %s", h.Outputs[n]))
		}
		if h.Err == nil { // else they may be lost, and what they had is to be saved again
			e.took(indexes[i].Packs, h.Done.Place)
		}
		h.Bytes = got.Bytes / int64(len(all))
	}
	return nil
}

// took notes packs of other jobs. What came with a document is nowhere else in this run: who needs it for another
// hand-over gives it again, and the job that has built it saves it for later runs.
func (e *EntryCache) took(packs []*storecache.Pack, inline job.Place) {
	for _, p := range packs {
		if p.Key != inline.Key {
			e.exchanged = append(e.exchanged, p)
			continue
		}
		if p.Index == nil {
			continue
		}
		for i := range p.Index.Records {
			if path := p.Index.Records[i].Path; !e.small[path] { // else it is in the pack because others need it with their own
				e.others[path] = true
			}
		}
	}
}

// inlined is a cache in which the packs behind documents are found under the keys of these.
type inlined struct {
	cache.Cache
	places map[string]job.Place
}

func (c inlined) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	blob, err := c.Cache.Open(ctx, key, prefixes...)
	if place, ok := c.places[key]; err == nil && ok {
		if size := blob.Size(); size != place.Offset+place.Size {
			return nil, fmt.Errorf("%s has %d bytes, and had %d: %w", key, size, place.Offset+place.Size, io.ErrUnexpectedEOF)
		}
		return part{blob, place}, nil
	}
	return blob, err
}

// OpenTail is of [cache.OpenTail].
func (c inlined) OpenTail(ctx context.Context, key string, size, tail int64) (cache.Blob, error) {
	if _, inline := c.places[key]; inline {
		return cache.OpenTail(ctx, struct{ cache.Cache }{c}, key, size, tail) // calls Open, since this method is hidden
	}
	return cache.OpenTail(ctx, c.Cache, key, size, tail)
}

// part is a part of a blob.
type part struct {
	cache.Blob
	place job.Place
}

func (p part) Size() int64 { return p.place.Size }

func (p part) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	if err := cache.CheckRange(offset, length, p.place.Size); err != nil {
		return nil, err
	}
	return p.Blob.Range(ctx, p.place.Offset+offset, length)
}

// count adds store paths that came to those of a Result.
func count(got storecache.Restored, result *job.Result) {
	result.Fetched += got.Fetched.Paths
	result.FetchedBytes += got.Fetched.Bytes
	r := result.Restored
	if r == nil {
		r = &job.Restored{}
		result.Restored = r
	}
	r.Paths, r.Size, r.Read = r.Paths+got.Paths, r.Size+got.Size, r.Read+got.Bytes
	add := func(to *[]string, keys []string) {
		for _, key := range keys {
			if !slices.Contains(*to, key) {
				*to = append(*to, key)
			}
		}
	}
	add(&r.Packs, got.Packs)
	add(&r.Lost, got.Lost)
}

// openEngine opens the engine that puts paths into the store, once; it ends with the context.
func (e *EntryCache) openEngine(ctx context.Context, n *nix.Nix) error {
	if e.opened != nil {
		return nil
	}
	engine, err := e.choice.Open(ctx, n, e.cache.Log)
	if err == nil {
		e.opened = &engine
	}
	return err
}

// read reads the document of a hand-over. A pack may have paths that its outputs do not need: these are not
// taken.
func (e *EntryCache) read(ctx context.Context, h *Handover, from cache.Cache, named func(path string) bool) (*storecache.Index, error) {
	ix, err := storecache.ParseIndex(h.Done.Index, from, e.cache.Docs.Seal)
	if err != nil {
		return nil, err
	}
	if ix, err = placed(ix, h.Done); err != nil {
		return nil, err
	}
	packed, _, err := ix.Closure(ctx, h.Outputs...)
	if _, unread := ix.Unread(); err == nil {
		err = unread
	}
	if err != nil {
		return nil, err
	}
	for _, path := range packed {
		if !named(path) {
			return nil, fmt.Errorf("it needs %s, which no derivation of the plan makes", path)
		}
	}
	return ix.Holding(ctx, h.Outputs...)
}

// placed returns an index of a hand-over in which the pack behind the document, if any, has the key of that.
func placed(ix *storecache.Index, done *job.Done) (*storecache.Index, error) {
	if done.Inline == "" {
		return ix, nil
	}
	packs := slices.Clone(ix.Packs)
	n := slices.IndexFunc(packs, func(p *storecache.Pack) bool { return p.Key == done.Inline })
	switch {
	case n < 0:
		return nil, fmt.Errorf("its document does not name the pack that comes with it, %q", done.Inline)
	case packs[n].Size != done.Place.Size:
		return nil, fmt.Errorf("the pack that comes with it has %d bytes, want %d", done.Place.Size, packs[n].Size)
	}
	packs[n] = packs[n].At(done.Place.Key)
	return ix.With(packs...), nil
}
