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

// Nix has the methods of *nix.Nix that saving needs.
type Nix interface {
	Requisites(ctx context.Context, paths ...string) ([]string, error)
	FullInfo(ctx context.Context, paths ...string) ([]nix.PathInfo, error)
	Export(ctx context.Context, dst io.Writer, infos []nix.PathInfo) error
	Walks() bool
	Walk(ctx context.Context, path string, to nar.Visitor) error
	Valid(ctx context.Context, paths ...string) (map[string]bool, error)
}

// drvPackFormat is part of the key. It must change with the format of the pack.
const drvPackFormat = "nix-matrix drv pack 2"

// A DrvPack is a drv pack in a file.
type DrvPack struct {
	pack.Summary
	seal *pack.Key
	key  func(try int) string
}

// PackDrvs writes a drv pack to file: the closure of the derivations, each path
// once, sealed unless seal is nil. The cache key has the prefix id and a hash of the paths
// and the seal. After an error, the file is removed.
func PackDrvs(ctx context.Context, from Nix, id, file string, drvs []string, seal *pack.Key) (_ *DrvPack, err error) {
	paths, err := from.Requisites(ctx, drvs...)
	if err != nil {
		return nil, err
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, fmt.Errorf("cannot write the derivations: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("cannot write the derivations: %w", cerr)
		}
		if err != nil {
			_ = os.Remove(file)
		}
	}()

	summary, err := packPaths(ctx, from, f, paths, seal)
	if err != nil {
		return nil, fmt.Errorf("cannot write the derivations: %w", err)
	}
	return &DrvPack{Summary: *summary, seal: seal, key: drvPackKey(id, seal.Fingerprint(), paths)}, nil
}

// packPaths writes a pack of valid paths, which are in reference order.
func packPaths(ctx context.Context, from Nix, dst io.Writer, paths []string, seal *pack.Key) (*pack.Summary, error) {
	infos, err := from.FullInfo(ctx, paths...)
	if err != nil {
		return nil, err
	}
	var summary *pack.Summary
	proofs := map[string]pack.Proof{}
	for _, info := range infos {
		proofs[info.Path] = pack.Proof{Signatures: info.Signatures, CA: info.CA}
	}
	err = export(ctx, from, infos, func(r io.Reader) error {
		stream := pack.NewStream(r, proofs, seal)
		buffered := bufio.NewWriterSize(dst, 1<<20)
		if summary, err = stream.Rest(buffered); err != nil {
			return err
		}
		return errors.Join(buffered.Flush(), intact(summary.Index, infos))
	})
	return summary, err
}

// export calls write with the export stream of valid paths, which are in reference order.
func export(ctx context.Context, from Nix, infos []nix.PathInfo, write func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	var g errgroup.Group
	g.Go(func() error {
		buffered := bufio.NewWriterSize(w, 64<<10)
		err := from.Export(ctx, buffered, infos)
		if err == nil {
			err = buffered.Flush()
		}
		return errors.Join(err, w.CloseWithError(err))
	})
	err := write(r)
	if err != nil {
		cancel()
	}
	_ = r.CloseWithError(err) // so that the exporter ends if it was not read to its end
	if exported := g.Wait(); err == nil {
		err = exported
	}
	return err
}

// intact returns an error if a packed path does not have its registered hash, because root or a
// faulty disk may have changed its files.
func intact(ix *pack.Index, infos []nix.PathInfo) error {
	registered := make(map[string]string, len(infos))
	for _, info := range infos {
		registered[info.Path] = info.NarHash
	}
	for i := range ix.Records {
		rec := &ix.Records[i]
		if hash := hex.EncodeToString(rec.NarHash[:]); registered[rec.Path] != hash {
			return &nix.PathError{Path: rec.Path, Err: errChanged}
		}
	}
	return nil
}

var errChanged = errors.New("it has changed since it was added to the store. Repair it with nix-store --repair-path")

// sumOf returns a hash of a set of paths, sealed with the key of a fingerprint or in clear.
func sumOf(format, seal string, paths []string) string {
	h := sha256.New()
	_, _ = fmt.Fprintln(h, format) // never fails
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

// Save uploads the pack's file to a cache and returns its key.
func (p *DrvPack) Save(ctx context.Context, to cache.Cache, file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("cannot save the derivations: %w", err)
	}
	defer f.Close()
	key, err := cache.SaveOnce(ctx, to, p.key, f, p.Size, func(blob cache.Blob) bool {
		_, err := pack.ReadIndex(ctx, blob, p.SHA256, p.seal)
		return err == nil
	})
	if err != nil {
		return "", fmt.Errorf("cannot save the derivations: %w", err)
	}
	return key, nil
}

// OpenDrvs opens the drv pack of size bytes in a cache. Of a small one all is read with the
// request that reads its index.
func OpenDrvs(ctx context.Context, from cache.Cache, key string, size int64) (pack.Source, error) {
	const small = 4 << 20 // takes less than another request
	tail := int64(pack.IndexGuess)
	if size <= small {
		tail = size
	}
	blob, err := cache.OpenTail(ctx, from, key, size, tail)
	if err != nil {
		return nil, err // an interface that holds nothing
	}
	return blob, nil
}

// ErrSource is wrapped by errors of a pack, as opposed to those of the store: the pack
// could not be read or is corrupt. Another source may help.
var ErrSource = errors.New("cannot use the pack")

// Restored describes a restore.
type Restored struct {
	Paths int      // added
	Size  int64    // bytes of their NARs
	Bytes int64    // read from packs
	Packs []string // keys of the packs with these paths, if there is an index
	Lost  []string // keys of packs that are missing or corrupt
	// Fetched counts the references of these paths that came from substituters, which are not in Paths.
	Fetched nix.Traffic
	// Valid are the paths that are valid now, of those to restore that the packs have and of all that these
	// need. It is nil where that is not known, as after an error.
	Valid map[string]bool
}

// RestoreDrvs adds the closures of derivations from a drv pack to the store, with
// signatures and content addresses. Paths that are valid already are left out. sum is the
// hash of the pack's index from the Plan, seal the key of the pack. If a needed path is
// not accepted, the error wraps [ErrUnproven].
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
		return restored, fmt.Errorf("cannot restore the derivations: %w", err)
	}
	return restored, nil
}

// ErrUnproven is wrapped by errors about a path of a pack that is not accepted.
var ErrUnproven = errors.New("it has neither a content address nor a signature by a trusted key")

// restoreRecords adds the records with these numbers to the store, except paths that are valid
// already. Their references are among them, or valid.
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
	wanted := map[string]location{}
	for _, n := range numbers {
		rec := &index.Records[n]
		if valid[rec.Path] {
			continue
		}
		if !accepts.accepts(rec) {
			return Restored{}, fmt.Errorf("cannot accept %s: %w", rec.Path, ErrUnproven)
		}
		wanted[rec.Path] = location{only, n}
	}
	open := func(context.Context, *Pack) (pack.Source, error) { return src, nil }
	got, err := newTransfer(by, open, nil).run(ctx, wanted)
	return Restored{Paths: got.Paths, Size: got.Size, Bytes: got.Bytes}, err
}

// ReadDrvs returns all derivations of a drv pack by their paths. Unreadable ones are
// left out and are in the error, which is returned with the others.
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
			errs = append(errs, fmt.Errorf("cannot read %s of the pack: %w", rec.Path, err))
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
		return nix.Derivation{}, fmt.Errorf("it has %d bytes, more than %d", rec.NarSize, most)
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

// File opens a pack in a file, such as one from an artifact.
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

// Range reads length bytes from offset on. Beyond the end of the file, the reader returns EOF.
func (f *PackFile) Range(_ context.Context, offset, length int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(f, offset, length)), nil
}
