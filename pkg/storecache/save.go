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

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

// PackSize is about how many bytes a pack has, so that a save creates few entries of a
// cache, of which the service wants few, and a restore can read several side by side.
const PackSize = 128 << 20

const packFormat = "nix-matrix pack 1"

// A Saver puts paths into a cache as packs.
type Saver struct {
	Nix   Nix
	Cache cache.Cache
	ID    string    // prefixes the keys
	Seal  *pack.Key // nil leaves the packs in clear
	Size  int64     // about how many bytes a pack has; 0 is [PackSize]
	// Progress is told of each pack that lies in the cache, if it is not nil.
	Progress func(*Pack)
	// Lost is told of each path that is left out, and why, if it is not nil.
	Lost func(path string, why error)
}

// maxLost is how many paths may be gone or changed before a save is given up.
const maxLost = 100

// Save puts paths, given with references first, into the cache. The paths that they refer to
// are not saved with them. A path that is gone or has changed is left out, as is each path
// that refers to it. After an error, the packs that are whole in the cache are returned.
func (s *Saver) Save(ctx context.Context, infos []nix.PathInfo) ([]*Pack, error) {
	var all []*Pack
	lost := map[string]bool{}
	for tries := 0; len(infos) > 0; tries++ {
		packs, err := s.save(ctx, infos)
		all = append(all, packs...)
		var bad *nix.PathError
		switch {
		case err == nil:
			return all, nil
		case !errors.As(err, &bad) || lost[bad.Path] || tries == maxLost || ctx.Err() != nil:
			return all, fmt.Errorf("save: %w", err)
		}
		s.lose(lost, bad.Path, bad.Err)
		saved := NewIndex(all...)
		infos = slices.DeleteFunc(slices.Clone(infos), func(info nix.PathInfo) bool {
			return lost[info.Path] || saved.Has(info.Path) || s.refersTo(lost, &info)
		})
	}
	return all, nil
}

func (s *Saver) lose(lost map[string]bool, path string, why error) {
	lost[path] = true
	if s.Lost != nil {
		s.Lost(path, why)
	}
}

// refersTo loses a path that refers to a lost one.
func (s *Saver) refersTo(lost map[string]bool, info *nix.PathInfo) bool {
	for _, reference := range info.References {
		if lost[reference] && reference != info.Path {
			s.lose(lost, info.Path, fmt.Errorf("it refers to %s", reference))
			return true
		}
	}
	return false
}

func (s *Saver) save(ctx context.Context, infos []nix.PathInfo) (packs []*Pack, err error) {
	err = export(ctx, s.Nix, infos, s.Seal, func(stream *pack.Stream) error {
		packs, err = s.packs(ctx, stream, infos)
		return err
	})
	return packs, err
}

// packs makes packs and uploads them, each while the next one is made.
func (s *Saver) packs(ctx context.Context, stream *pack.Stream, infos []nix.PathInfo) (packs []*Pack, err error) {
	size := s.Size
	if size <= 0 {
		size = PackSize
	}
	var upload errgroup.Group
	var uploaded *Pack
	wait := func() error {
		err := upload.Wait()
		if uploaded != nil {
			packs = append(packs, uploaded)
			if s.Progress != nil {
				s.Progress(uploaded)
			}
		}
		upload, uploaded = errgroup.Group{}, nil
		return err
	}
	defer func() { err = errors.Join(err, wait()) }()
	for {
		f, err := tempFile()
		if err != nil {
			return packs, err
		}
		summary, err := writePack(stream, f, size)
		if errors.Is(err, io.EOF) { // there is no more
			return packs, f.Close()
		}
		if err == nil {
			err = errors.Join(intact(summary.Index, infos), wait()) // for the one before
		}
		if err != nil {
			return packs, errors.Join(err, f.Close())
		}
		upload.Go(func() error {
			defer f.Close()
			p, err := s.upload(ctx, f, summary)
			uploaded = p
			return err
		})
	}
}

// tempFile gives a file that is gone when it is closed, or this process ends.
func tempFile() (*os.File, error) {
	f, err := os.CreateTemp("", "nix-matrix-pack-")
	if err != nil {
		return nil, fmt.Errorf("write a pack: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("write a pack: %w", errors.Join(err, f.Close()))
	}
	return f, nil
}

func writePack(stream *pack.Stream, to io.Writer, size int64) (*pack.Summary, error) {
	buffered := bufio.NewWriterSize(to, 1<<20)
	summary, err := stream.Next(buffered, size)
	if err != nil {
		return nil, err
	}
	return summary, buffered.Flush()
}

func (s *Saver) upload(ctx context.Context, f io.ReaderAt, summary *pack.Summary) (*Pack, error) {
	held := make([]string, len(summary.Index.Records))
	for n := range summary.Index.Records {
		rec := &summary.Index.Records[n]
		held[n] = rec.Path + " " + hex.EncodeToString(rec.NarHash[:])
	}
	sum := sumOf(packFormat, s.Seal.Fingerprint(), held)
	p := newPack("", summary.Size, summary.Index)
	var err error
	p.Key, err = cache.SaveOnce(ctx, s.Cache, job.PackKey(s.ID, sum), f, p.Size, func(blob cache.Blob) bool {
		// Somebody has saved the same paths, but where in the pack they lie may differ.
		found, err := pack.ReadIndex(ctx, blob, "", s.Seal)
		if err != nil || !sameRecords(found, summary.Index) {
			return false
		}
		p.Size, p.Index = blob.Size(), found
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("upload a pack: %w", err)
	}
	return p, nil
}

// sameRecords says whether two packs have the same paths with the same contents and
// references.
func sameRecords(a, b *pack.Index) bool {
	if len(a.Records) != len(b.Records) {
		return false
	}
	for n := range a.Records {
		rec := &a.Records[n]
		other, ok := b.Find(rec.Path)
		if !ok || b.Records[other].NarHash != rec.NarHash || !slices.Equal(b.Records[other].References, rec.References) {
			return false
		}
	}
	return true
}
