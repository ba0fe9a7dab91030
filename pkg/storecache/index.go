package storecache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/pack"
)

// An Index has the store paths of the packs in a cache. The package's comment specifies the
// document. It is not safe for concurrent use.
type Index struct {
	Packs []*Pack

	from    *shelf // nil if there are no packs of chunks that are not loaded
	packs   map[string]*Pack
	bySum   map[string]*Pack
	paths   map[pathID][]*Pack // that have a path
	accepts Acceptance
	refused map[pathID]bool // paths of packs that are not accepted
	failed  map[*Pack]error // why indexes could not be loaded
	bases   map[*Pack]*bases
}

// A location is the position of a path.
type location struct {
	pack   *Pack
	record int
}

const (
	indexMagic = "nixmidx1"
	// indexVersion is that of the documents that are written, and oldIndexVersion is read, too.
	indexVersion    = 2
	oldIndexVersion = 1
	// maxIndex is the most bytes of memory that an index may need.
	maxIndex = 512 << 20
	// maxStoredIndex is the most bytes of an index in a cache.
	maxStoredIndex = 128 << 20
)

type indexJSON struct {
	Version int        `json:"version"`
	Packs   []packJSON `json:"packs"`
}

// NewIndex returns an index of packs that accepts all of their paths.
func NewIndex(packs ...*Pack) *Index { return newIndex(nil, Everything(), packs) }

func newIndex(from *shelf, accepts Acceptance, packs []*Pack) *Index {
	ix := &Index{from: from, packs: map[string]*Pack{}, bySum: map[string]*Pack{}, paths: map[pathID][]*Pack{}, accepts: accepts, refused: map[pathID]bool{}, failed: map[*Pack]error{}, bases: map[*Pack]*bases{}}
	ix.Add(packs...)
	return ix
}

// In returns an index of the same packs, which are in a cache, sealed with a key.
func (ix *Index) In(from cache.Cache, seal *pack.Key) *Index {
	return newIndex(shelfOf(from, seal), ix.accepts, ix.Packs)
}

// With returns an index of other packs that is read like this one.
func (ix *Index) With(packs ...*Pack) *Index { return newIndex(ix.from, ix.accepts, packs) }

// Join returns an index of the packs of both, this one's first, that is read like this one.
func (ix *Index) Join(packs ...*Pack) *Index { return ix.With(slices.Concat(ix.Packs, packs)...) }

// Accepting returns an index of the same packs without the paths that a does not accept,
// and the number of these. Unless a accepts everything, it loads the indexes of all packs. The error
// is the end of the context.
func (ix *Index) Accepting(ctx context.Context, a Acceptance) (accepting *Index, refused int, err error) {
	if !a.everything {
		err = ix.load(ctx, ix.Packs, false)
	}
	accepting = newIndex(ix.from, a, ix.Packs)
	return accepting, len(accepting.refused), err
}

// Add adds packs. If a pack is there already, the later time of use counts; a path in several
// packs is read from the first that can be read.
func (ix *Index) Add(packs ...*Pack) {
	clear(ix.bases)
	for _, p := range packs {
		if known := ix.packs[p.Key]; known != nil {
			if p.Used.After(known.Used) {
				known.Used = p.Used
			}
			ix.extend(known, p)
			continue
		}
		ix.packs[p.Key] = p
		ix.Packs = append(ix.Packs, p)
		if p.sum != "" {
			ix.bySum[p.sum] = p
		}
		for _, id := range ix.accepted(p) {
			ix.paths[id] = append(ix.paths[id], p)
			delete(ix.refused, id)
		}
	}
}

// extend adds to a pack the paths that another copy of it has. One of them may be there only for its contents.
func (ix *Index) extend(known, other *Pack) {
	has := known.has()
	all := slices.Clone(known.paths)
	for _, id := range other.paths {
		if !has[id] {
			all = append(all, id)
		}
	}
	if len(all) == len(known.paths) {
		return
	}
	p := known.clone()
	if p.paths = all; p.Index == nil {
		p.Index, p.tables = other.Index, other.tables
	}
	ix.packs[p.Key] = p
	ix.Packs[slices.Index(ix.Packs, known)] = p
	if p.sum != "" {
		ix.bySum[p.sum] = p
	}
	for _, id := range ix.accepted(p) {
		if n := slices.Index(ix.paths[id], known); n >= 0 {
			ix.paths[id][n] = p
		} else {
			ix.paths[id] = append(ix.paths[id], p)
		}
		delete(ix.refused, id)
	}
}

// has returns the paths of a pack as a set.
func (p *Pack) has() map[pathID]bool {
	has := make(map[pathID]bool, len(p.paths))
	for _, id := range p.paths {
		has[id] = true
	}
	return has
}

// accepted returns the paths of a pack that are accepted.
func (ix *Index) accepted(p *Pack) []pathID {
	if ix.accepts.everything {
		return p.paths
	}
	if p.Index == nil { // it could not be loaded
		return nil
	}
	var all []pathID
	has := p.has()
	for n := range p.Index.Records {
		rec := &p.Index.Records[n]
		id := idOf(rec.Path)
		switch {
		case !has[id]:
		case ix.accepts.accepts(rec):
			all = append(all, id)
		case ix.paths[id] == nil:
			ix.refused[id] = true
		}
	}
	return all
}

// Len returns the number of paths that packs have and the index accepts.
func (ix *Index) Len() int { return len(ix.paths) }

// HasPack reports whether the index has the pack with a key.
func (ix *Index) HasPack(key string) bool { return ix.packs[key] != nil }

// Having returns the keys of the packs that have one of the paths.
func (ix *Index) Having(paths []string) []string {
	having := map[string]bool{}
	for _, path := range paths {
		for _, p := range ix.paths[idOf(path)] {
			having[p.Key] = true
		}
	}
	return slices.Collect(maps.Keys(having))
}

// Has reports whether a pack has a path and the index accepts it. A pack of chunks may turn out to have lost
// it.
func (ix *Index) Has(path string) bool { return len(ix.paths[idOf(path)]) > 0 }

// saved reports whether a pack has a path, accepted or not.
func (ix *Index) saved(path string) bool { return ix.Has(path) || ix.refused[idOf(path)] }

// Without returns an index without the packs that have these keys, and without the paths that need
// them. For that it loads the indexes of the packs that lean on them. The error is the end of the context.
func (ix *Index) Without(ctx context.Context, keys ...string) (*Index, error) {
	gone := map[string]bool{}
	var packs []*Pack
	for _, p := range ix.Packs {
		if !slices.Contains(keys, p.Key) {
			packs = append(packs, p)
		} else if p.sum != "" {
			gone[p.sum] = true
		}
	}
	return ix.With(packs...).settle(ctx, gone)
}

// settle returns an index without the paths that need packs which are gone. A pack that cannot be read for a
// passing reason stays as it is: what needs those packs is not found in it. The error is the end of the
// context.
func (ix *Index) settle(ctx context.Context, gone map[string]bool) (*Index, error) {
	leaning := slices.DeleteFunc(slices.Clone(ix.Packs), func(p *Pack) bool {
		return !slices.ContainsFunc(p.leans, func(l lean) bool { return gone[l.sum] })
	})
	if len(leaning) == 0 {
		return ix, nil
	}
	if err := ix.load(ctx, leaning, false); err != nil {
		return nil, err
	}
	packs := slices.Clone(ix.Packs)
	for i, p := range packs {
		if err := ix.failed[p]; slices.Contains(leaning, p) && (err == nil || isGone(err)) {
			packs[i] = p.without(gone)
		}
	}
	return ix.With(packs...), nil
}

// absent returns the sums of packs that others lean on and that the index does not have.
func (ix *Index) absent() map[string]bool {
	absent := map[string]bool{}
	for _, p := range ix.Packs {
		for _, l := range p.leans {
			if ix.bySum[l.sum] == nil {
				absent[l.sum] = true
			}
		}
	}
	return absent
}

// without returns a pack without the paths that have chunks in packs that are gone.
func (p *Pack) without(gone map[string]bool) *Pack {
	q := p.clone()
	q.paths = nil
	q.leans = slices.DeleteFunc(slices.Clone(p.leans), func(l lean) bool { return gone[l.sum] })
	if p.Index == nil {
		return q
	}
	leans, has := p.Index.Leans(), p.has()
	for n := range p.Index.Records {
		id := idOf(p.Index.Records[n].Path)
		lost := slices.ContainsFunc(p.Index.Sources(n), func(source int) bool { return source > 0 && gone[leans[source-1]] })
		if !lost && has[id] {
			q.paths = append(q.paths, id)
		}
	}
	return q
}

// At returns the same pack under another key.
func (p *Pack) At(key string) *Pack {
	q := p.clone()
	q.Key = key
	return q
}

// clone returns a copy of a pack.
func (p *Pack) clone() *Pack {
	return &Pack{
		Key: p.Key, Size: p.Size, Used: p.Used, Index: p.Index, sum: p.sum, restore: p.restore, save: p.save, chunks: p.chunks, unpacked: p.unpacked,
		paths: p.paths, leans: p.leans, tables: p.tables, sums: p.sums,
	}
}

// find returns the location of a path in a pack that is loaded, and whose other packs are there.
func (ix *Index) find(path string) (location, bool) {
	for _, p := range ix.paths[idOf(path)] {
		if p.Index == nil {
			continue
		}
		n, ok := p.Index.Find(path)
		if !ok {
			continue
		}
		leans := p.Index.Leans()
		if !slices.ContainsFunc(p.Index.Sources(n), func(source int) bool { return source > 0 && ix.bySum[leans[source-1]] == nil }) {
			return location{p, n}, true
		}
	}
	return location{}, false
}

// Leaning returns the index together with the packs of another that it leans on, without their paths.
func (ix *Index) Leaning(on *Index) *Index {
	absent := ix.absent()
	var bare []*Pack
	for _, p := range on.Packs {
		if absent[p.sum] {
			bare = append(bare, p.bare())
		}
	}
	return ix.Join(bare...)
}

// bare returns a pack without paths.
func (p *Pack) bare() *Pack {
	q := p.clone()
	q.paths = nil
	return q
}

// Paths returns all accepted paths of the packs, for which it loads all indexes. The error is the end of the
// context.
func (ix *Index) Paths(ctx context.Context) ([]string, error) {
	if err := ix.load(ctx, ix.Packs, false); err != nil {
		return nil, err
	}
	var paths []string
	seen := map[string]bool{}
	for _, p := range ix.Packs {
		if p.Index == nil {
			continue
		}
		for n := range p.Index.Records {
			path := p.Index.Records[n].Path
			if _, ok := ix.find(path); ok && !seen[path] {
				seen[path] = true
				paths = append(paths, path)
			}
		}
	}
	return paths, nil
}

// Marshal returns the document, sealed unless the key is nil.
func (ix *Index) Marshal(key *pack.Key) ([]byte, error) {
	numbers := map[string]int{}
	for n, p := range ix.Packs {
		if p.sum != "" {
			numbers[p.sum] = n
		}
	}
	doc := indexJSON{Version: indexVersion}
	for _, p := range ix.Packs {
		doc.Packs = append(doc.Packs, p.document(numbers))
	}
	data, err := pack.CompressJSON(doc)
	if err != nil {
		return nil, fmt.Errorf("cannot write the index: %w", err)
	}
	return key.Seal(indexDocument, wrap(data)), nil
}

// wrap returns a document with compressed JSON.
func wrap(data []byte) []byte {
	sum := sha256.Sum256(data)
	return slices.Concat([]byte(indexMagic), sum[:], data)
}

const indexDocument = "index"

// ParseIndex parses the result of Marshal with the same key. The packs are in a cache. If the data is corrupt or has
// another key, the error wraps [pack.ErrCorrupt], [pack.ErrKey] or [pack.ErrSeal].
func ParseIndex(data []byte, from cache.Cache, key *pack.Key) (*Index, error) {
	data, err := key.Open(indexDocument, data)
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(data, []byte(indexMagic))
	if !ok || len(rest) < sha256.Size || sha256.Sum256(rest[sha256.Size:]) != [sha256.Size]byte(rest) {
		return nil, fmt.Errorf("%w: not an index, or a changed one", pack.ErrCorrupt)
	}
	var doc indexJSON
	if err := pack.DecompressJSON(rest[sha256.Size:], maxIndex, &doc); err != nil {
		return nil, err
	}
	if doc.Version != indexVersion && doc.Version != oldIndexVersion {
		return nil, fmt.Errorf("the index has version %d, but this nix-matrix reads versions %d and %d", doc.Version, oldIndexVersion, indexVersion)
	}
	packs := make([]*Pack, len(doc.Packs))
	for i := range doc.Packs {
		if packs[i], err = doc.Packs[i].parse(doc.Packs, key); err != nil {
			return nil, err
		}
	}
	return newIndex(shelfOf(from, key), Everything(), packs), nil
}

// shelfOf returns the packs of a cache.
func shelfOf(from cache.Cache, key *pack.Key) *shelf {
	return &shelf{seal: key, open: func(ctx context.Context, p *Pack, tail int64) (pack.Source, error) {
		return cache.OpenTail(ctx, from, p.Key, p.Size, tail)
	}}
}
