package storecache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/pack"
)

// A Pack is a pack in a cache.
type Pack struct {
	Key  string
	Size int64     // bytes
	Used time.Time // when a path of it was last needed, or it was saved

	// Index is nil until it is loaded, which only that of a pack of chunks may be.
	Index *pack.Index

	sum           string   // of the index of a pack of chunks
	restore, save int64    // bytes at the end, see pack.Tails
	chunks        int64    // bytes of chunks, decompressed
	unpacked      int64    // bytes of the NARs of all paths
	paths         []pathID // that can be restored
	leans         []lean

	loading sync.Mutex
	tables  *tables    // nil until they are loaded
	sums    *pack.Sums // of its chunks; nil until they are loaded
}

// A lean is another pack that has chunks of a pack's paths.
type lean struct {
	sum   string
	bytes int64 // decompressed
}

// tables are what reading a pack of chunks needs.
type tables struct {
	source  pack.Source
	lengths *pack.Lengths
}

// A pathID is the first bytes of the hash of a store path. Those of different paths differ: to find
// two alike, somebody would have to build about 2^32 paths, and would make one of them a cache miss.
type pathID [8]byte

func idOf(path string) (id pathID) {
	const start = len("/nix/store/")
	const hashSize = 32
	if len(path) >= start+hashSize {
		if hash, err := nixbase32.DecodeString(path[start : start+hashSize]); err == nil {
			copy(id[:], hash)
		}
	}
	return id
}

// idsOf returns the paths of a pack's index.
func idsOf(index *pack.Index) []pathID {
	ids := make([]pathID, len(index.Records))
	for n := range index.Records {
		ids[n] = idOf(index.Records[n].Path)
	}
	return ids
}

// newPack returns a pack of which the index is loaded. Its time of use is now.
func newPack(key string, size int64, index *pack.Index) *Pack {
	p := &Pack{Key: key, Size: size, Used: time.Now().UTC().Truncate(time.Second), Index: index, paths: idsOf(index), unpacked: unpacked(index)}
	if index.Chunked() {
		p.sum, p.chunks = index.Sum(), index.Chunks()
		p.restore, p.save = index.Tails()
		for i, sum := range index.Leans() {
			p.leans = append(p.leans, lean{sum, index.Leaned()[i]})
		}
	}
	return p
}

// unpacked returns how many bytes the NARs of the paths of a pack's index have.
func unpacked(index *pack.Index) (size int64) {
	for n := range index.Records {
		size += min(index.Records[n].NarSize, 1<<40) // the sum of foreign numbers must not overflow
	}
	return size
}

// Paths returns the number of paths that can be restored from the pack.
func (p *Pack) Paths() int { return len(p.paths) }

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

// A shelf is where packs are.
type shelf struct {
	// open opens a pack, of which tail bytes at the end are read first.
	open func(ctx context.Context, p *Pack, tail int64) (pack.Source, error)
	seal *pack.Key
}

// load loads the index of a pack, and with tables the positions of its chunks too, unless that was
// done.
func (s *shelf) load(ctx context.Context, p *Pack, withTables bool) error {
	p.loading.Lock()
	defer p.loading.Unlock()
	if p.Index != nil && (p.tables != nil || !withTables || p.sum == "") {
		return nil
	}
	if err := s.read(ctx, p); err != nil {
		return fmt.Errorf("%s: %w", p.Key, err)
	}
	return nil
}

func (s *shelf) read(ctx context.Context, p *Pack) error {
	source, index, table, err := s.table(ctx, p, p.restore, (*pack.Index).LengthsFrame)
	if err != nil {
		return err
	}
	lengths, err := index.DecodeLengths(table)
	if err != nil {
		return err
	}
	if p.tables = (&tables{source, lengths}); p.Index == nil {
		p.Index = index
	}
	return nil
}

// table opens a pack of chunks, reads tail bytes at its end, and decodes a frame in them.
func (s *shelf) table(ctx context.Context, p *Pack, tail int64, number func(*pack.Index) int) (pack.Source, *pack.Index, []byte, error) {
	if s == nil || s.open == nil {
		return nil, nil, nil, errors.New("the pack is in no cache")
	}
	source, err := s.open(ctx, p, tail)
	if err != nil {
		return nil, nil, nil, err
	}
	index, end, err := pack.ReadTail(ctx, source, tail, p.sum, s.seal)
	if err != nil {
		return nil, nil, nil, err
	}
	if !index.Chunked() {
		return nil, nil, nil, fmt.Errorf("%w: it has no chunks", pack.ErrCorrupt)
	}
	frames, err := pack.NewFrames(1)
	if err != nil {
		return nil, nil, nil, err
	}
	defer frames.Close()
	frame := number(index)
	offset, size := index.FrameRange(frame)
	data, err := readAll(ctx, end, offset, size)
	if err != nil {
		return nil, nil, nil, err
	}
	table, err := frames.Decode(index, frame, data, nil)
	return source, index, table, err
}

// readAll reads a range of a pack. After an error it returns the bytes before that.
func readAll(ctx context.Context, from pack.Source, offset, size int64) ([]byte, error) {
	data, err := cache.ReadRange(ctx, from, offset, size)
	if err != nil {
		err = fmt.Errorf("%w: %w", pack.ErrRead, err)
	}
	return data, err
}

// load loads the indexes of packs. A pack that cannot be loaded is left out from then on; the error
// is the end of the context.
func (ix *Index) load(ctx context.Context, packs []*Pack, withTables bool) error {
	errs := make([]error, len(packs))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, p := range packs {
		if ix.failed[p] == nil {
			g.Go(func() error {
				errs[i] = ix.from.load(ctx, p, withTables)
				return nil
			})
		}
	}
	_ = g.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i, p := range packs {
		if errs[i] != nil {
			ix.failed[p] = errs[i]
		}
	}
	return nil
}

// chunkSums returns the hashes of the chunks of a pack, which are kept with it.
func (s *shelf) chunkSums(ctx context.Context, p *Pack) (*pack.Sums, error) {
	p.loading.Lock()
	defer p.loading.Unlock()
	if p.sums != nil {
		return p.sums, nil
	}
	_, index, table, err := s.table(ctx, p, p.save, (*pack.Index).SumsFrame)
	if err != nil {
		return nil, err
	}
	p.sums, err = index.DecodeSums(table)
	return p.sums, err
}

// known returns the chunks of the packs that new packs may lean on. A pack that cannot be read is left
// out: its chunks are saved again.
func (s *shelf) known(ctx context.Context, packs []*Pack) (*pack.Known, error) {
	all := make([]*pack.Sums, len(packs))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, p := range packs {
		if p.sum != "" {
			g.Go(func() error {
				if sums, err := s.chunkSums(ctx, p); err == nil {
					all[i] = sums
				}
				return nil
			})
		}
	}
	_ = g.Wait()
	known := pack.NewKnown()
	for i, p := range packs {
		if all[i] != nil {
			known.Add(p.sum, all[i])
		}
	}
	return known, context.Cause(ctx)
}

// packJSON is a pack in an index. Packs of records have Index, others the rest.
type packJSON struct {
	Key     string      `json:"key"`
	Size    int64       `json:"size"`
	Used    time.Time   `json:"used"`
	Index   *pack.Index `json:"index,omitempty"`
	Sum     string      `json:"sum,omitempty"`
	Restore int64       `json:"restore,omitempty"`
	Save    int64       `json:"save,omitempty"`
	Chunks  int64       `json:"chunks,omitempty"`
	Paths   []byte      `json:"paths,omitempty"`
	NARs    int64       `json:"nars,omitempty"`  // bytes
	Leans   [][2]int64  `json:"leans,omitempty"` // numbers of packs, and bytes
	Outer   []string    `json:"outer,omitempty"` // sums of packs of other indexes, that follow in Leans with the number -1
}

const (
	sumSize = 64 // hex digits
	// maxTail is the most bytes of a pack that are read at once for its tables.
	maxTail = 192 << 20
)

// document returns the pack as in an index, in which packs have numbers by their sums.
func (p *Pack) document(numbers map[string]int) packJSON {
	doc := packJSON{Key: p.Key, Size: p.Size, Used: p.Used}
	if p.sum == "" {
		doc.Index = p.Index
		return doc
	}
	doc.Sum, doc.Restore, doc.Save, doc.Chunks, doc.NARs = p.sum, p.restore, p.save, p.chunks, p.unpacked
	for _, id := range p.paths {
		doc.Paths = append(doc.Paths, id[:]...)
	}
	for _, l := range p.leans {
		n, ok := numbers[l.sum]
		if !ok {
			n = -1
			doc.Outer = append(doc.Outer, l.sum)
		}
		doc.Leans = append(doc.Leans, [2]int64{int64(n), l.bytes})
	}
	return doc
}

// parse returns the pack of a document among all of an index.
func (doc *packJSON) parse(all []packJSON, key *pack.Key) (*Pack, error) {
	p := &Pack{Key: doc.Key, Size: doc.Size, Used: doc.Used, Index: doc.Index}
	bad := func(why string) (*Pack, error) {
		return nil, fmt.Errorf("%w: the index has a pack %s", pack.ErrCorrupt, why)
	}
	if doc.Size <= 0 || cache.CheckKey(doc.Key) != nil {
		return bad("without a key or a size")
	}
	if doc.Index != nil {
		if err := doc.Index.Unseal(key); err != nil {
			return nil, fmt.Errorf("pack %s: %w", doc.Key, err)
		}
		if doc.Index.Chunked() {
			return bad("of chunks with an index")
		}
		p.paths, p.unpacked = idsOf(doc.Index), unpacked(doc.Index)
		return p, nil
	}
	const idSize = len(pathID{})
	if len(doc.Sum) != sumSize || doc.Restore <= 0 || doc.Save < doc.Restore || doc.Save > min(doc.Size, maxTail) || doc.Chunks < 0 || doc.NARs < 0 || len(doc.Paths)%idSize != 0 {
		return bad("without an index")
	}
	p.sum, p.restore, p.save, p.chunks, p.unpacked = doc.Sum, doc.Restore, doc.Save, doc.Chunks, doc.NARs
	for id := range slices.Chunk(doc.Paths, idSize) {
		p.paths = append(p.paths, pathID(id))
	}
	outer := doc.Outer
	for _, l := range doc.Leans {
		var sum string
		switch {
		case l[0] == -1 && len(outer) > 0:
			sum, outer = outer[0], outer[1:]
		case l[0] >= 0 && l[0] < int64(len(all)):
			sum = all[l[0]].Sum
		}
		if len(sum) != sumSize || l[1] < 0 {
			return bad("that leans on another that is not there")
		}
		p.leans = append(p.leans, lean{sum, l[1]})
	}
	return p, nil
}
