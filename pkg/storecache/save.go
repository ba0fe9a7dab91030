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

// PackSize is about how many bytes a pack has, so that a save creates few cache entries, whose
// rate the service limits, and a restore can read several packs in parallel.
const PackSize = 128 << 20

const packFormat = "nix-matrix pack 1"

// A Saver puts paths into a cache as packs.
type Saver struct {
	Nix   Nix
	Cache cache.Cache
	ID    string    // prefixes the keys
	Seal  *pack.Key // nil leaves the packs in clear
	Size  int64     // about how many bytes a pack has; 0 is [PackSize]
	// Progress is called with each pack that is in the cache, if it is not nil.
	Progress func(*Pack)
	// Lost is called with each path that is left out, and the reason, if it is not nil.
	Lost func(path string, why error)
}

// maxLost is how many paths may be missing or changed before a save fails.
const maxLost = 100

// Save puts paths, given in reference order, into the cache, without others that they refer to.
// A path that is missing or has changed is left out, as are its referrers. After an error, Save
// returns the packs that are complete in the cache.
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
			return all, fmt.Errorf("cannot save: %w", err)
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

func (s *Saver) save(ctx context.Context, infos []nix.PathInfo) (packs []*Pack, err error) {
	err = export(ctx, s.Nix, infos, s.Seal, func(stream *pack.Stream) error {
		packs, err = s.packs(ctx, stream, infos)
		return err
	})
	return packs, err
}

// packs makes packs, and uploads each while the next one is made.
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
		if errors.Is(err, io.EOF) { // no paths are left
			return packs, f.Close()
		}
		if err == nil {
			err = errors.Join(intact(summary.Index, infos), wait()) // for the previous upload
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

func writePack(stream *pack.Stream, to io.Writer, size int64) (*pack.Summary, error) {
	buffered := bufio.NewWriterSize(to, 1<<20)
	summary, err := stream.Next(buffered, size)
	if err != nil {
		return nil, err
	}
	return summary, buffered.Flush()
}

func (s *Saver) upload(ctx context.Context, f io.ReaderAt, summary *pack.Summary) (*Pack, error) {
	contents := make([]string, len(summary.Index.Records))
	for n := range summary.Index.Records {
		rec := &summary.Index.Records[n]
		contents[n] = rec.Path + " " + hex.EncodeToString(rec.NarHash[:])
	}
	sum := sumOf(packFormat, s.Seal.Fingerprint(), contents)
	p := newPack("", summary.Size, summary.Index)
	var err error
	p.Key, err = cache.SaveOnce(ctx, s.Cache, job.PackKey(s.ID, sum), f, p.Size, func(blob cache.Blob) bool {
		// Another job saved the same paths, perhaps at other positions in the pack.
		found, err := pack.ReadIndex(ctx, blob, "", s.Seal)
		if err != nil || !sameRecords(found, summary.Index) {
			return false
		}
		p.Size, p.Index = blob.Size(), found
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("cannot upload a pack: %w", err)
	}
	return p, nil
}

// sameRecords reports whether two packs have the same paths with the same contents and
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
