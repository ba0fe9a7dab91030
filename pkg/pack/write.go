package pack

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"

	"github.com/nix-community/go-nix/pkg/wire"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/internal/storepath"
)

const (
	// FrameSize is about the most bytes of small records in a frame,
	// uncompressed. Larger records have a frame of their own.
	FrameSize = 4 << 20

	maxPath       = 512
	maxReferences = 1 << 20
)

// A Summary describes a written pack.
type Summary struct {
	Size   int64  // bytes of the pack
	Paths  int    // number of records
	SHA256 string // of the index, hex; see [ReadIndex]
	Index  *Index
	Chunks *Sums // of a pack of chunks, for [Known.Add]
}

// Write makes a pack of an export stream, with proofs by store path. Malformed signatures
// and content addresses are left out. With a key the pack is sealed. In clear, the same
// stream and proofs always make the same bytes.
//
// It compresses on all processors, eight at most, and needs about 70 MB of memory
// and 30 MB for each of them, apart from the index, however large the records are.
// After an error the written bytes are useless. An error of dst is returned only when more
// of the stream is read.
func Write(dst io.Writer, export io.Reader, proofs map[string]Proof, key *Key) (*Summary, error) {
	return NewStream(export, proofs, key).Rest(dst)
}

// A Stream makes several packs of an export stream.
type Stream struct {
	export *bufio.Reader
	proofs map[string]Proof
	key    *Key
}

// NewStream returns a Stream. The arguments are those of [Write].
func NewStream(export io.Reader, proofs map[string]Proof, key *Key) *Stream {
	return &Stream{export: bufio.NewReaderSize(export, 1<<20), proofs: proofs, key: key}
}

// Next makes a pack of about size bytes from the next records. It returns io.EOF when no
// records are left.
func (s *Stream) Next(dst io.Writer, size int64) (*Summary, error) {
	if ended, err := s.ended(); err != nil {
		return nil, fmt.Errorf("cannot read the export stream: %w", err)
	} else if ended {
		return nil, io.EOF
	}
	return s.write(dst, size)
}

// Rest makes a pack of all records that are left, even if there are none.
func (s *Stream) Rest(dst io.Writer) (*Summary, error) { return s.write(dst, math.MaxInt64) }

// ended reports whether no records are left.
func (s *Stream) ended() (bool, error) {
	head, err := s.export.Peek(8)
	if err != nil {
		return false, unexpected(err)
	}
	switch n := binary.LittleEndian.Uint64(head); n {
	case nar.StreamEnd:
		return true, nil
	case nar.RecordStart:
		return false, nil
	default:
		return false, fmt.Errorf("%#x where a record should start", n)
	}
}

func (s *Stream) write(dst io.Writer, size int64) (*Summary, error) {
	w := &writer{Stream: s, nar: sha256.New(), salt: newSalt(), out: frameWriter{dst: dst}}
	if s.key != nil {
		seal := s.key.derive("pack", w.salt)
		w.out.seal = &seal
	}
	var err error
	if w.compressor, err = newCompressor(w.out.part, nil); err != nil {
		return nil, err
	}
	err = w.stream(size)
	if failed := w.wait(); failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the export stream: %w", err)
	}
	return w.finish()
}

// writer distributes the bytes of records to frames. A record has a part of its own
// until it is known whether it is small or needs its own frame.
type writer struct {
	*Stream
	*compressor
	salt   salt // of a sealed pack
	ix     Index
	frames int         // whole ones that the compressor has
	out    frameWriter // the compressor's, until wait returns

	shared  *part // whole small records of the next frame
	rec     *part // the bytes of the current record that are not in a frame yet
	open    bool  // the current record has its own frame
	nar     hash.Hash
	narSize int64
	inNar   bool
}

// Write adds bytes of the current record.
func (w *writer) Write(p []byte) (int, error) {
	if w.inNar {
		w.nar.Write(p)
		w.narSize += int64(len(p))
	}
	for rest := p; len(rest) > 0; {
		if len(w.rec.plain) == FrameSize {
			if err := w.cut(); err != nil {
				return 0, err
			}
		}
		n := min(len(rest), FrameSize-len(w.rec.plain))
		w.rec.plain = append(w.rec.plain, rest[:n]...)
		rest = rest[n:]
	}
	return len(p), nil
}

// cut makes room for more of a record that is too large to share a frame: the small records
// before it become a frame, and the record starts the next one.
func (w *writer) cut() (err error) {
	if !w.open {
		if err := w.flush(); err != nil {
			return err
		}
		w.open = true
	}
	w.put(w.rec, false)
	w.rec, err = w.next()
	return err
}

// stream reads records until about size bytes are written, and passes all their frames
// to the compressor.
func (w *writer) stream(size int64) (err error) {
	if w.shared, err = w.next(); err != nil {
		return err
	}
	if w.rec, err = w.next(); err != nil {
		return err
	}
	for w.out.written.Load() < size {
		if ended, err := w.ended(); err != nil {
			return err
		} else if ended {
			break
		}
		if err := w.record(w.export); err != nil {
			return unexpected(err)
		}
	}
	return w.flush()
}

func (w *writer) record(r *bufio.Reader) error {
	w.nar.Reset()
	w.narSize = 0
	tee := io.TeeReader(r, w)
	if _, err := wire.ReadUint64(tee); err != nil { // nar.RecordStart
		return err
	}
	w.inNar = true
	err := nar.Copy(w, r)
	w.inNar = false
	if err != nil {
		return err
	}
	rec := Record{NarSize: w.narSize}
	w.nar.Sum(rec.NarHash[:0])
	if err := rec.readTrailer(tee); err != nil {
		return err
	}
	rec.Proof = w.proofs[rec.Path].wellFormed()
	return w.place(rec)
}

// place ends a record and determines its frame.
func (w *writer) place(rec Record) (err error) {
	if !w.open && len(w.shared.plain)+len(w.rec.plain) > FrameSize {
		if err := w.flush(); err != nil {
			return err
		}
	}
	rec.frame, rec.offset = w.frames, int64(len(w.shared.plain))
	w.ix.Records = append(w.ix.Records, rec)
	if !w.open {
		w.shared.plain = append(w.shared.plain, w.rec.plain...)
		w.rec.plain = w.rec.plain[:0]
		return nil
	}
	w.open = false
	w.put(w.rec, true)
	w.frames++
	w.rec, err = w.next()
	return err
}

// flush makes a frame of the collected small records.
func (w *writer) flush() (err error) {
	if len(w.shared.plain) == 0 {
		return nil
	}
	w.put(w.shared, true)
	w.frames++
	w.shared, err = w.next()
	return err
}

// finish writes the end of the stream and the index.
func (w *writer) finish() (*Summary, error) {
	w.ix.frames = w.out.frames // without the last one, which has no record
	end := &part{plain: binary.LittleEndian.AppendUint64(nil, nar.StreamEnd), last: true}
	w.compress(end)
	if err := w.out.part(end); err != nil {
		return nil, err
	}
	index, err := CompressJSON(w.ix.document())
	if err != nil {
		return nil, err
	}
	if len(index) > maxIndex-sealedHead-chacha20poly1305.Overhead {
		return nil, fmt.Errorf("the index of %d paths is larger than %d bytes", len(w.ix.Records), maxIndex)
	}
	if _, err := w.out.Write(tail(index, w.key, w.salt, w.out.seal)); err != nil {
		return nil, err
	}
	w.ix.find()
	if w.ix.seal = w.out.seal; w.ix.seal != nil {
		w.ix.salt = w.salt[:]
	}
	return &Summary{Size: w.out.off, Paths: len(w.ix.Records), SHA256: hexSum(index), Index: &w.ix}, nil
}

// tail returns the bytes after the frames of a pack.
func tail(index []byte, key *Key, salt salt, seal *seal) []byte {
	var tail []byte
	magic := trailerMagic
	if seal != nil {
		magic = sealedMagic
		tail = append(append(tail, key.id[:]...), salt[:]...)
		index = seal.aead.Seal(tail, nonce(indexFrame, 0, true), index, nil)
		tail = index
	} else {
		tail = binary.LittleEndian.AppendUint32(tail, skippableMagic)
		tail = binary.LittleEndian.AppendUint32(tail, uint32(len(index)+trailerSize)) //nolint:gosec // at most maxIndex
		tail = append(tail, index...)
	}
	tail = binary.LittleEndian.AppendUint64(tail, uint64(len(index)))
	return append(tail, magic...)
}

// readTrailer reads the part of a record after the NAR.
func (rec *Record) readTrailer(r io.Reader) error {
	magic, err := wire.ReadUint64(r)
	if err != nil {
		return err
	}
	if magic != nar.RecordMagic {
		return fmt.Errorf("%#x where a NAR should end", magic)
	}
	if rec.Path, err = readPath(r); err != nil {
		return err
	}
	n, err := wire.ReadUint64(r)
	if err != nil {
		return err
	}
	if n > maxReferences {
		return fmt.Errorf("%s has %d references", rec.Path, n)
	}
	for range n {
		ref, err := readPath(r)
		if err != nil {
			return err
		}
		rec.References = append(rec.References, ref)
	}
	if rec.Deriver, err = wire.ReadString(r, maxPath); err != nil {
		return err
	}
	if n, err = wire.ReadUint64(r); err != nil {
		return err
	}
	if n != nar.RecordEnd {
		return fmt.Errorf("%s has a signature of a form that Nix no longer writes", rec.Path)
	}
	return nil
}

func readPath(r io.Reader) (string, error) {
	path, err := wire.ReadString(r, maxPath)
	if err != nil {
		return "", err
	}
	if !storepath.Valid(path) {
		return "", fmt.Errorf("%q is not a store path", path)
	}
	return path, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
