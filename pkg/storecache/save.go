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

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

// PackSize is about how many bytes a pack has, so that a save creates few cache entries, whose
// rate the service limits, and a restore can read several packs in parallel.
const PackSize = 128 << 20

// firstPack is the size of the first pack, smaller so that its upload begins soon.
const firstPack = 24 << 20

// uploads is the most packs that are uploaded at a time.
const uploads = 3

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
	for i := range infos {
		var err error
		if records[i], err = recordOf(&infos[i]); err != nil {
			return err
		}
	}
	var supports []*Pack
	if s.Base != nil {
		supports = s.Base.Supports()
	}
	known, err := shelfOf(s.Cache, s.Seal).known(ctx, slices.Concat(supports, s.saved))
	if err != nil {
		return err
	}
	return export(ctx, s.Nix, infos, func(stream io.Reader) error {
		packer := pack.NewPacker(stream, records, func(path string) bool { return s.whole[path] }, known, s.Seal)
		defer packer.Close()
		return s.packs(ctx, packer)
	})
}

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

// packs makes packs, and uploads them while the next ones are made.
func (s *Saver) packs(ctx context.Context, packer *pack.Packer) (err error) {
	size := s.Size
	if size <= 0 {
		size = PackSize
	}
	upload, uploading := errgroup.WithContext(ctx)
	upload.SetLimit(uploads)
	var done inOrder
	defer func() { err = errors.Join(upload.Wait(), err) }()
	for next := min(firstPack, size); ; next = size {
		f, err := tempFile()
		if err != nil {
			return err
		}
		summary, err := writePack(packer, f, next)
		if errors.Is(err, io.EOF) { // no paths are left
			return f.Close()
		}
		if err == nil {
			err = uploading.Err()
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
		turn := done.next()
		upload.Go(func() error {
			defer f.Close()
			p, err := s.upload(uploading, f, summary)
			if err != nil {
				return err
			}
			done.finish(turn, func() {
				s.saved = append(s.saved, p)
				if s.Progress != nil {
					s.Progress(p)
				}
			})
			return nil
		})
	}
}

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

func (s *Saver) upload(ctx context.Context, f io.ReaderAt, summary *pack.Summary) (*Pack, error) {
	p := newPack("", summary.Size, summary.Index)
	sum := sumOf(packFormat, s.Seal.Fingerprint(), []string{summary.SHA256})
	key, err := cache.SaveOnce(ctx, s.Cache, job.PackKey(s.ID, sum), f, p.Size, func(blob cache.Blob) bool {
		// Another job saved the same chunks and paths.
		found, err := pack.ReadIndex(ctx, blob, summary.SHA256, s.Seal)
		if err != nil || blob.Size() != summary.Size {
			return false
		}
		p = newPack("", blob.Size(), found)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("cannot upload a pack: %w", err)
	}
	p.Key, p.sums = key, summary.Chunks
	return p, nil
}
