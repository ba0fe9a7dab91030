package storecache

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

// PackSize is about how many bytes a pack has, so that a save creates few cache entries, whose
// rate the service limits, and a restore can read several packs in parallel.
const PackSize = 128 << 20

// smallPack is how many bytes a pack has before its upload begins while it is written. A smaller one is known by its
// contents, so that equal ones are stored once.
const smallPack = 8 << 20

// uploads is the most packs that are written and uploaded at a time.
const uploads = 4

const packFormat = "nix-matrix pack 2"

// A Saver puts paths into a cache as packs of chunks.
type Saver struct {
	Nix   Nix
	Cache cache.Cache
	ID    string    // prefixes the keys
	Seal  *pack.Key // nil leaves the packs in clear
	Size  int64     // about how many bytes a pack has; 0 is [PackSize]
	// Base has packs whose chunks are not saved again. It may be nil.
	Base *Index
	// Progress is called with each pack that is in the cache, one after the other, if it is not nil.
	Progress func(*Pack)
	// Lost is called with each path that is left out, and the reason, if it is not nil.
	Lost func(path string, why error)

	whole map[string]bool // paths that are stored without a recipe
	saved []*Pack         // complete in the cache
}

// maxLost is how many paths may be missing or changed before a save fails.
const maxLost = 100

// Save puts paths, given in reference order, into the cache, without others that they refer to.
// A path that is missing or has changed is left out, as are its referrers. After an error, Save
// returns the packs that are complete in the cache. It may be called only once.
func (s *Saver) Save(ctx context.Context, infos []nix.PathInfo) ([]*Pack, error) {
	s.whole = map[string]bool{}
	lost := map[string]bool{}
	for tries := 0; len(infos) > 0; tries++ {
		err := s.save(ctx, infos)
		var bad *nix.PathError
		var recipe *pack.RecipeError
		switch {
		case err == nil:
			return s.saved, nil
		case errors.As(err, &recipe) && !s.whole[recipe.Path]:
			s.whole[recipe.Path] = true
		case errors.As(err, &recipe):
			bad = &nix.PathError{Path: recipe.Path, Err: errChanged}
		case errors.As(err, &bad):
		default:
			return s.saved, fmt.Errorf("cannot save: %w", err)
		}
		if bad != nil {
			if lost[bad.Path] || tries >= maxLost {
				return s.saved, fmt.Errorf("cannot save: %w", err)
			}
			s.lose(lost, bad.Path, bad.Err)
		}
		if ctx.Err() != nil {
			return s.saved, fmt.Errorf("cannot save: %w", err)
		}
		saved := NewIndex(s.saved...)
		infos = slices.DeleteFunc(slices.Clone(infos), func(info nix.PathInfo) bool {
			return lost[info.Path] || saved.Has(info.Path) || s.refersTo(lost, &info)
		})
	}
	return s.saved, nil
}

func (s *Saver) lose(lost map[string]bool, path string, why error) {
	lost[path] = true
	if s.Lost != nil {
		s.Lost(path, why)
	}
}

// refersTo marks a path as lost if it refers to a lost one, and reports whether it does.
func (s *Saver) refersTo(lost map[string]bool, info *nix.PathInfo) bool {
	for _, reference := range info.References {
		if lost[reference] && reference != info.Path {
			s.lose(lost, info.Path, fmt.Errorf("it refers to %s", reference))
			return true
		}
	}
	return false
}

func (s *Saver) save(ctx context.Context, infos []nix.PathInfo) error {
	records := make([]pack.Record, len(infos))
	var inputs []string
	for i := range infos {
		var err error
		if records[i], err = recordOf(&infos[i]); err != nil {
			return err
		}
		inputs = append(inputs, infos[i].Path+" "+infos[i].NarHash)
	}
	var supports []*Pack
	if s.Base != nil {
		supports = s.Base.Supports()
	}
	supports = slices.Concat(supports, s.saved)
	for _, p := range supports {
		inputs = append(inputs, p.sum)
	}
	known, err := shelfOf(s.Cache, s.Seal).known(ctx, supports)
	if err != nil {
		return err
	}
	write := func(nars pack.NARs) error {
		packer := pack.NewPacker(nars, records, func(path string) bool { return s.whole[path] }, known, s.Seal)
		defer packer.Close()
		return s.packs(ctx, packer, sumOf(packFormat, "", inputs))
	}
	if s.Nix.Walks() {
		return write(&walk{ctx, s.Nix})
	}
	return export(ctx, s.Nix, infos, func(stream io.Reader) error { return write(pack.FromExport(stream)) })
}

// A walk has the NARs of valid paths.
type walk struct {
	ctx  context.Context
	from Nix
}

func (w *walk) Next(rec *pack.Record, to nar.Visitor) error { return w.from.Walk(w.ctx, rec.Path, to) }
func (w *walk) End() error                                  { return nil }

// recordOf returns the record of a path.
func recordOf(info *nix.PathInfo) (pack.Record, error) {
	rec := pack.Record{
		Path: info.Path, References: info.References, Deriver: info.Deriver, NarSize: info.NarSize,
		Proof: pack.Proof{Signatures: info.Signatures, CA: info.CA},
	}
	sum, err := hex.DecodeString(info.NarHash)
	if err != nil || len(sum) != len(rec.NarHash) {
		return rec, fmt.Errorf("%s has the hash %q", info.Path, info.NarHash)
	}
	copy(rec.NarHash[:], sum)
	return rec, nil
}

// packs makes packs, and uploads them meanwhile. inputs identifies what is packed.
func (s *Saver) packs(ctx context.Context, packer *pack.Packer, inputs string) (err error) {
	size := s.Size
	if size <= 0 {
		size = PackSize
	}
	upload, uploading := errgroup.WithContext(ctx)
	upload.SetLimit(uploads)
	var done inOrder
	defer func() { err = errors.Join(upload.Wait(), err) }()
	for {
		body, err := newGrowing()
		if err != nil {
			return err
		}
		turn := done.next()
		upload.Go(func() error {
			defer body.Close()
			p, err := s.upload(uploading, body, job.PackKey(s.ID, sumOf(packFormat, s.Seal.Fingerprint(), []string{inputs, fmt.Sprint(turn)}))(0))
			if err == nil {
				done.finish(turn, func() {
					s.saved = append(s.saved, p)
					if s.Progress != nil {
						s.Progress(p)
					}
				})
			}
			if errors.Is(err, errNoPack) {
				return nil
			}
			return err
		})
		summary, err := writePack(packer, body, size)
		if err == nil && uploading.Err() == nil {
			body.finish(summary, nil)
			continue
		}
		body.finish(nil, errNoPack)
		switch {
		case errors.Is(err, io.EOF): // no paths are left
			return nil
		case uploading.Err() != nil: // the error of an upload counts, which may have closed the file
			return context.Cause(ctx)
		}
		return err
	}
}

// errNoPack says that a pack will not be complete, for a reason that is known elsewhere.
var errNoPack = errors.New("the pack could not be written")

// inOrder calls functions in the order of their turns, each as soon as all before it are finished: a pack
// counts only with those that it may lean on.
type inOrder struct {
	mu       sync.Mutex
	turns    int
	called   int
	finished map[int]func()
}

func (o *inOrder) next() int {
	o.turns++
	return o.turns - 1
}

func (o *inOrder) finish(turn int, call func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.finished == nil {
		o.finished = map[int]func(){}
	}
	o.finished[turn] = call
	for o.finished[o.called] != nil {
		o.finished[o.called]()
		o.called++
	}
}

// tempFile returns a file that is gone when it is closed, or this process ends.
func tempFile() (*os.File, error) {
	f, err := os.CreateTemp("", "nix-matrix-pack-")
	if err != nil {
		return nil, fmt.Errorf("cannot write a pack: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("cannot write a pack: %w", errors.Join(err, f.Close()))
	}
	return f, nil
}

func writePack(packer *pack.Packer, to io.Writer, size int64) (*pack.Summary, error) {
	buffered := bufio.NewWriterSize(to, 1<<20)
	summary, err := packer.Next(buffered, size)
	if err != nil {
		return nil, err
	}
	return summary, buffered.Flush()
}

// upload puts a pack into the cache: a large one under the early key while it is written.
func (s *Saver) upload(ctx context.Context, body *growing, early string) (*Pack, error) {
	size, _, err := body.Grown(ctx, smallPack)
	if err != nil {
		return nil, err
	}
	err = errors.ErrUnsupported
	if size >= smallPack {
		if err = cache.SaveGrowing(ctx, s.Cache, early, body); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, cache.ErrExists) {
			return nil, fmt.Errorf("cannot upload a pack: %w", err)
		}
	}
	summary, waited := body.whole(ctx)
	if waited != nil {
		return nil, waited
	}
	p := newPack(early, summary.Size, summary.Index)
	if err != nil {
		if p, err = s.uploadWhole(ctx, body, p, errors.Is(err, cache.ErrExists)); err != nil {
			return nil, fmt.Errorf("cannot upload a pack: %w", err)
		}
	}
	p.sums = summary.Chunks
	return p, nil
}

// uploadWhole puts a complete pack into the cache, unless it is there. It is looked for under its key first if that was
// taken.
func (s *Saver) uploadWhole(ctx context.Context, body *growing, p *Pack, taken bool) (_ *Pack, err error) {
	summary, early := body.summary, p.Key
	keys := job.PackKey(s.ID, sumOf(packFormat, s.Seal.Fingerprint(), []string{summary.SHA256}))
	key := func(try int) string {
		switch {
		case !taken:
			return keys(try)
		case try == 0:
			return early
		}
		return keys(try - 1)
	}
	p.Key, err = cache.SaveOnce(ctx, s.Cache, key, body, p.Size, func(blob cache.Blob) bool {
		// Another job saved the same chunks and paths.
		found, err := pack.ReadIndex(ctx, blob, summary.SHA256, s.Seal)
		if err != nil || blob.Size() != summary.Size {
			return false
		}
		p = newPack("", blob.Size(), found)
		return true
	})
	return p, err
}
