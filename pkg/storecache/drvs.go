package storecache

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/pack"
)

// Nix is what this package needs of Nix.
type Nix interface {
	Requisites(ctx context.Context, paths ...string) ([]string, error)
	FullInfo(ctx context.Context, paths ...string) ([]nix.PathInfo, error)
	Export(ctx context.Context, dst io.Writer, infos []nix.PathInfo) error
	Valid(ctx context.Context, paths ...string) (map[string]bool, error)
}

// drvPackFormat is part of the key: a change of the pack's format must change it.
const drvPackFormat = "nix-matrix drv pack 2"

// A DrvPack is a drv pack in a file.
type DrvPack struct {
	pack.Summary
	seal *pack.Key
	key  func(try int) string
}

// PackDrvs writes a drv pack to file: the closure of the derivations, each path
// once, sealed unless seal is nil. The cache key is made from the paths and the
// seal, prefixed with id. Nothing is left of a file that could not be written to
// its end.
func PackDrvs(ctx context.Context, from Nix, id, file string, drvs []string, seal *pack.Key) (_ *DrvPack, err error) {
	paths, err := from.Requisites(ctx, drvs...)
	if err != nil {
		return nil, err
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, fmt.Errorf("write drv pack: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("write drv pack: %w", cerr)
		}
		if err != nil {
			_ = os.Remove(file)
		}
	}()

	summary, err := packPaths(ctx, from, f, paths, seal)
	if err != nil {
		return nil, fmt.Errorf("write drv pack: %w", err)
	}
	return &DrvPack{Summary: *summary, seal: seal, key: drvPackKey(id, seal.Fingerprint(), paths)}, nil
}

// packPaths writes a pack of valid paths, references before what refers to them.
func packPaths(ctx context.Context, from Nix, dst io.Writer, paths []string, seal *pack.Key) (*pack.Summary, error) {
	infos, err := from.FullInfo(ctx, paths...)
	if err != nil {
		return nil, err
	}
	var summary *pack.Summary
	err = export(ctx, from, infos, seal, func(stream *pack.Stream) error {
		buffered := bufio.NewWriterSize(dst, 1<<20)
		if summary, err = stream.Rest(buffered); err != nil {
			return err
		}
		return errors.Join(buffered.Flush(), intact(summary.Index, infos))
	})
	return summary, err
}

// export has packs made of valid paths, references before what refers to them.
func export(ctx context.Context, from Nix, infos []nix.PathInfo, seal *pack.Key, write func(*pack.Stream) error) error {
	proofs := map[string]pack.Proof{}
	for _, info := range infos {
		proofs[info.Path] = pack.Proof{Signatures: info.Signatures, CA: info.CA}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	var g errgroup.Group
	g.Go(func() error {
		buffered := bufio.NewWriterSize(w, 1<<20)
		err := from.Export(ctx, buffered, infos)
		if err == nil {
			err = buffered.Flush()
		}
		return errors.Join(err, w.CloseWithError(err))
	})
	err := write(pack.NewStream(r, proofs, seal))
	if err != nil {
		cancel()
	}
	_ = r.CloseWithError(err) // so that an exporter nobody reads from ends
	if exported := g.Wait(); err == nil {
		err = exported
	}
	return err
}

// intact makes sure that what was packed is what was once registered: files in a store
// can be changed by who may, or by a disk.
func intact(ix *pack.Index, infos []nix.PathInfo) error {
	registered := make(map[string]string, len(infos))
	for _, info := range infos {
		registered[info.Path] = info.NarHash
	}
	for i := range ix.Records {
		rec := &ix.Records[i]
		if hash := hex.EncodeToString(rec.NarHash[:]); registered[rec.Path] != hash {
			return &nix.PathError{Path: rec.Path, Err: errors.New("it has changed since it was added to the store: repair it with nix-store --repair-path")}
		}
	}
	return nil
}

// sumOf names a set of paths, sealed with the key of a fingerprint or in clear.
func sumOf(format, seal string, paths []string) string {
	h := sha256.New()
	_, _ = fmt.Fprintln(h, format) // a hash takes everything
	if seal != "" {
		_, _ = fmt.Fprintln(h, "sealed", seal)
	}
	for _, path := range slices.Sorted(slices.Values(paths)) {
		_, _ = fmt.Fprintln(h, path)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func drvPackKey(id, seal string, paths []string) func(try int) string {
	sum := sumOf(drvPackFormat, seal, paths)
	return job.DrvsKey(id, sum)
}

// Save puts the pack's file into a cache and gives the key that it is under.
func (p *DrvPack) Save(ctx context.Context, to cache.Cache, file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("save the drv pack: %w", err)
	}
	defer f.Close()
	key, err := cache.SaveOnce(ctx, to, p.key, f, p.Size, func(blob cache.Blob) bool {
		_, err := pack.ReadIndex(ctx, blob, p.SHA256, p.seal)
		return err == nil
	})
	if err != nil {
		return "", fmt.Errorf("save the drv pack: %w", err)
	}
	return key, nil
}

// ErrSource is wrapped by the errors that are a pack's, not the store's: it could
// not be read, or what was read is wrong. Another source may help.
var ErrSource = errors.New("the pack can't be used")

// Restored says what a restore took.
type Restored struct {
	Paths int      // added
	Size  int64    // bytes of their NARs
	Bytes int64    // read from packs
	Packs []string // keys of those that paths came from, if there is an index
	Lost  []string // keys of those that are not there, or have not what they should
}

// RestoreDrvs adds the closures of derivations from a drv pack to the store, with
// signatures and content addresses, leaving out what is valid already. sum is the
// hash of the pack's index from the Plan, seal what the pack is sealed with. A path
// that is needed and not accepted is an error that wraps [ErrUnproven].
func RestoreDrvs(ctx context.Context, to RestoreNix, by engine.Engine, src pack.Source, sum string, drvs []string, seal *pack.Key, accepts Acceptance) (Restored, error) {
	index, err := pack.ReadIndex(ctx, src, sum, seal)
	if err != nil {
		return Restored{}, fmt.Errorf("%w: %w", ErrSource, err)
	}
	numbers, err := index.Closure(drvs...)
	if err != nil {
		return Restored{}, fmt.Errorf("%w: %w", ErrSource, err)
	}
	restored, err := restoreRecords(ctx, to, by, src, index, numbers, accepts)
	if err != nil {
		return restored, fmt.Errorf("restore derivations: %w", err)
	}
	return restored, nil
}

// ErrUnproven is wrapped by the errors that say that a path of a pack is not accepted.
var ErrUnproven = errors.New("it has neither a content address nor a signature by a trusted key")

// restoreRecords adds the records of these numbers to the store, but for those that are
// valid already. What they refer to is among them, or valid.
func restoreRecords(ctx context.Context, to RestoreNix, by engine.Engine, src pack.Source, index *pack.Index, numbers []int, accepts Acceptance) (Restored, error) {
	paths := make([]string, len(numbers))
	for i, n := range numbers {
		paths[i] = index.Records[n].Path
	}
	valid, err := to.Valid(ctx, paths...)
	if err != nil {
		return Restored{}, err
	}
	only := &Pack{Size: src.Size(), Index: index}
	wanted := map[string]place{}
	for _, n := range numbers {
		rec := &index.Records[n]
		if valid[rec.Path] {
			continue
		}
		if !accepts.accepts(rec) {
			return Restored{}, fmt.Errorf("the pack has %s: %w", rec.Path, ErrUnproven)
		}
		wanted[rec.Path] = place{only, n}
	}
	open := func(context.Context, *Pack) (pack.Source, error) { return src, nil }
	got, err := newTransfer(by, open, nil).run(ctx, wanted)
	return Restored{Paths: got.Paths, Size: got.Size, Bytes: got.Bytes}, err
}

// ReadDrvs reads all derivations in a drv pack, by their paths. Those that can't be
// read are left out, and in the error beside the others.
func ReadDrvs(ctx context.Context, src pack.Source, sum string, seal *pack.Key) (map[string]nix.Derivation, error) {
	index, err := pack.ReadIndex(ctx, src, sum, seal)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for n := range index.Records {
		if strings.HasSuffix(index.Records[n].Path, ".drv") {
			numbers = append(numbers, n)
		}
	}
	records, err := index.NewReader(ctx, src, numbers)
	if err != nil {
		return nil, err
	}
	defer records.Close()
	all := make(map[string]nix.Derivation, len(numbers))
	var errs []error
	for range numbers {
		rec, err := records.Next()
		if err != nil {
			return all, errors.Join(append(errs, err)...)
		}
		drv, err := readDrv(records, rec)
		if err != nil {
			errs = append(errs, fmt.Errorf("read %s of the pack: %w", rec.Path, err))
			continue
		}
		all[rec.Path] = drv
	}
	return all, errors.Join(errs...)
}

// readDrv reads a derivation from the NAR of its file.
func readDrv(r io.Reader, rec *pack.Record) (nix.Derivation, error) {
	const most = 64 << 20
	if rec.NarSize > most {
		return nix.Derivation{}, fmt.Errorf("it has %d bytes", rec.NarSize)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nix.Derivation{}, err
	}
	if data, err = nar.Content(data); err != nil {
		return nix.Derivation{}, err
	}
	return nix.ReadDerivation(rec.Path, data)
}

func pathInfo(rec *pack.Record) nix.PathInfo {
	return nix.PathInfo{
		Path: rec.Path, NarHash: hex.EncodeToString(rec.NarHash[:]), NarSize: rec.NarSize,
		Deriver: rec.Deriver, References: rec.References, Signatures: rec.Signatures, CA: rec.CA,
	}
}

// File opens a pack that is a file, such as one from an artifact.
func File(name string) (*PackFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &PackFile{File: f, size: info.Size()}, nil
}

// A PackFile is a pack.Source.
type PackFile struct {
	*os.File
	size int64
}

// Size is in bytes.
func (f *PackFile) Size() int64 { return f.size }

// Range reads from offset on; what lies behind the end is an unexpected EOF for
// who reads it.
func (f *PackFile) Range(_ context.Context, offset, length int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(f, offset, length)), nil
}
