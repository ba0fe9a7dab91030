package storecache

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/pack"
)

// An Index has the store paths of the packs in a cache. The package's comment specifies the
// document.
type Index struct {
	Packs []*Pack

	packs   map[string]*Pack
	paths   map[string]location
	accepts Acceptance
	refused map[string]bool // paths of packs that are not accepted
}

// A Pack is a pack in a cache.
type Pack struct {
	Key   string      `json:"key"`
	Size  int64       `json:"size"` // bytes
	Used  time.Time   `json:"used"` // when a path of it was last needed, or it was saved
	Index *pack.Index `json:"index"`
}

// A location is the position of a path.
type location struct {
	pack   *Pack
	record int
}

const (
	indexMagic   = "nixmidx1"
	indexVersion = 1
	// maxIndex is the most bytes of memory that an index may need.
	maxIndex = 512 << 20
	// maxStoredIndex is the most bytes of an index in a cache.
	maxStoredIndex = 128 << 20
)

type indexJSON struct {
	Version int     `json:"version"`
	Packs   []*Pack `json:"packs"`
}

// NewIndex returns an index of packs that accepts all of their paths.
func NewIndex(packs ...*Pack) *Index { return newIndex(Everything(), packs) }

func newIndex(accepts Acceptance, packs []*Pack) *Index {
	ix := &Index{packs: map[string]*Pack{}, paths: map[string]location{}, accepts: accepts, refused: map[string]bool{}}
	ix.Add(packs...)
	return ix
}

// Accepting returns an index of the same packs without the paths that a does not accept,
// and the number of these.
func (ix *Index) Accepting(a Acceptance) (accepting *Index, refused int) {
	accepting = newIndex(a, ix.Packs)
	return accepting, len(accepting.refused)
}

// Add adds packs. If a pack is there already, the later time of use counts; a path in several
// packs is read from the first.
func (ix *Index) Add(packs ...*Pack) {
	for _, p := range packs {
		if known := ix.packs[p.Key]; known != nil {
			if p.Used.After(known.Used) {
				known.Used = p.Used
			}
			continue
		}
		ix.packs[p.Key] = p
		ix.Packs = append(ix.Packs, p)
		for n := range p.Index.Records {
			rec := &p.Index.Records[n]
			switch _, twice := ix.paths[rec.Path]; {
			case twice:
			case ix.accepts.accepts(rec):
				ix.paths[rec.Path] = location{p, n}
				delete(ix.refused, rec.Path)
			default:
				ix.refused[rec.Path] = true
			}
		}
	}
}

// Has reports whether a pack has a path and the index accepts it.
func (ix *Index) Has(path string) bool {
	_, ok := ix.paths[path]
	return ok
}

// saved reports whether a pack has a path, accepted or not.
func (ix *Index) saved(path string) bool { return ix.Has(path) || ix.refused[path] }

// Without returns an index without the packs that have these keys.
func (ix *Index) Without(keys ...string) *Index {
	return newIndex(ix.accepts, slices.DeleteFunc(slices.Clone(ix.Packs), func(p *Pack) bool { return slices.Contains(keys, p.Key) }))
}

// Within returns an index of the packs that were needed last and together have at most limit
// bytes. If a pack does not fit, smaller ones may. A limit of 0 means no limit.
func (ix *Index) Within(limit int64) *Index {
	packs := slices.Clone(ix.Packs)
	slices.SortStableFunc(packs, func(a, b *Pack) int { return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.Key, b.Key)) })
	room := limit
	return newIndex(ix.accepts, slices.DeleteFunc(packs, func(p *Pack) bool {
		if limit <= 0 || p.Size <= room {
			room -= p.Size
			return false
		}
		return true
	}))
}

// Closure returns those paths of the closures of paths that packs have, and those that are
// referred to and in no pack.
func (ix *Index) Closure(paths ...string) (packed, outside []string) {
	seen := map[string]bool{}
	todo := slices.Clone(paths)
	for len(todo) > 0 {
		path := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[path] {
			continue
		}
		seen[path] = true
		at, ok := ix.paths[path]
		if !ok {
			outside = append(outside, path)
			continue
		}
		packed = append(packed, path)
		todo = append(todo, at.pack.Index.Records[at.record].References...)
	}
	return packed, outside
}

// Holding returns an index of the packs that have paths of these paths' closures.
func (ix *Index) Holding(paths ...string) *Index {
	packed, _ := ix.Closure(paths...)
	holding := map[*Pack]bool{}
	for _, path := range packed {
		holding[ix.paths[path].pack] = true
	}
	return newIndex(ix.accepts, slices.DeleteFunc(slices.Clone(ix.Packs), func(p *Pack) bool { return !holding[p] }))
}

// Paths returns all accepted paths of the packs.
func (ix *Index) Paths() []string {
	paths := make([]string, 0, len(ix.paths))
	for path := range ix.paths {
		paths = append(paths, path)
	}
	return paths
}

// Marshal returns the document, sealed unless the key is nil.
func (ix *Index) Marshal(key *pack.Key) ([]byte, error) {
	data, err := pack.CompressJSON(indexJSON{indexVersion, ix.Packs})
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

// ParseIndex parses the result of Marshal with the same key. If the data is corrupt or has
// another key, the error wraps [pack.ErrCorrupt], [pack.ErrKey] or [pack.ErrSeal].
func ParseIndex(data []byte, key *pack.Key) (*Index, error) {
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
	if doc.Version != indexVersion {
		return nil, fmt.Errorf("the index has version %d, but this nix-matrix reads version %d", doc.Version, indexVersion)
	}
	for _, p := range doc.Packs {
		if p == nil || p.Index == nil || p.Size <= 0 || cache.CheckKey(p.Key) != nil {
			return nil, fmt.Errorf("%w: the index has a pack without a key, a size or an index", pack.ErrCorrupt)
		}
		if err := p.Index.Unseal(key); err != nil {
			return nil, fmt.Errorf("pack %s: %w", p.Key, err)
		}
	}
	return NewIndex(doc.Packs...), nil
}

// FindPack returns the pack with a key in a cache. Its time of use is now.
func FindPack(ctx context.Context, from cache.Cache, key string, seal *pack.Key) (*Pack, error) {
	blob, err := from.Open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("cannot find the pack: %w", err)
	}
	index, err := pack.ReadIndex(ctx, blob, "", seal)
	if err != nil {
		return nil, fmt.Errorf("cannot read pack %s: %w", key, err)
	}
	return newPack(key, blob.Size(), index), nil
}

func newPack(key string, size int64, index *pack.Index) *Pack {
	return &Pack{Key: key, Size: size, Used: time.Now().UTC().Truncate(time.Second), Index: index}
}

// An IndexKey has the parts of an index's key that don't depend on the run.
type IndexKey struct {
	ID     string
	System string // of the paths, such as x86_64-linux
	Seal   *pack.Key
}

// start returns the prefix of the keys of a ref's indexes. A ref is such as refs/heads/main.
func (k IndexKey) start(ref string) string {
	return fmt.Sprintf("%s%d+%s+%s+%s+", job.IndexPrefix(k.ID), indexVersion, k.Seal.Fingerprint(), cache.Escape(k.System), shortRef(ref))
}

// longRef is the most bytes of a ref in a key. A longer ref is replaced by its hash.
const longRef = 240

func shortRef(ref string) string {
	escaped := cache.Escape(ref)
	if len(escaped) > longRef {
		return fmt.Sprintf("%x", sha256.Sum256([]byte(ref)))
	}
	return escaped
}

// Load reads the newest index of each of the refs, the nearest first, and returns all as
// one, which may be empty. The error, which is returned with it, has those that could not be
// read.
func Load(ctx context.Context, from cache.Cache, key IndexKey, refs ...string) (*Index, error) {
	all := make([]*Index, len(refs))
	errs := make([]error, len(refs))
	var g errgroup.Group
	for i, ref := range refs {
		g.Go(func() error {
			all[i], errs[i] = load(ctx, from, key, key.start(ref))
			return nil
		})
	}
	_ = g.Wait()
	ix := NewIndex()
	for _, one := range all {
		if one != nil {
			ix.Add(one.Packs...)
		}
	}
	return ix, errors.Join(errs...)
}

func load(ctx context.Context, from cache.Cache, key IndexKey, start string) (*Index, error) {
	blob, err := from.Open(ctx, start, start)
	if errors.Is(err, cache.ErrMiss) {
		return nil, nil //nolint:nilnil // a cache miss is no error
	}
	return read(ctx, blob, err, key.Seal)
}

// Read reads the index with a key.
func Read(ctx context.Context, from cache.Cache, key string, seal *pack.Key) (*Index, error) {
	blob, err := from.Open(ctx, key)
	return read(ctx, blob, err, seal)
}

func read(ctx context.Context, blob cache.Blob, err error, seal *pack.Key) (*Index, error) {
	if err != nil {
		return nil, fmt.Errorf("cannot load the index of packs: %w", err)
	}
	data, err := cache.ReadAll(ctx, blob, maxStoredIndex)
	if err != nil {
		return nil, fmt.Errorf("cannot load the index of packs: %w", err)
	}
	ix, err := ParseIndex(data, seal)
	if err != nil {
		return nil, fmt.Errorf("cannot load the index of packs %s: %w", blob.Key(), err)
	}
	return ix, nil
}

// Save saves the index as that of a ref. run is a name that no other run has.
func (ix *Index) Save(ctx context.Context, to cache.Cache, key IndexKey, ref, run string) error {
	data, err := ix.Marshal(key.Seal)
	if err != nil {
		return err
	}
	_, err = cache.SaveOnce(ctx, to, func(try int) string {
		return fmt.Sprintf("%s%s.%d", key.start(ref), cache.Escape(run), try)
	}, bytes.NewReader(data), int64(len(data)), func(blob cache.Blob) bool {
		found, err := cache.ReadAll(ctx, blob, int64(len(data)))
		return err == nil && bytes.Equal(found, data)
	})
	if err != nil {
		return fmt.Errorf("cannot save the index of packs: %w", err)
	}
	return nil
}
