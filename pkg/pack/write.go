package pack

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/nix-community/go-nix/pkg/nar"
	"github.com/nix-community/go-nix/pkg/wire"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/org/nix-matrix/internal/storepath"
)

const (
	// FrameSize is about how many bytes of small records share a frame,
	// uncompressed. Larger records have a frame of their own.
	FrameSize = 4 << 20

	recordStart = 1          // before each record of an export stream
	recordMagic = 0x4558494e // after its NAR
	streamEnd   = 0          // after the last record

	maxPath       = 512
	maxReferences = 1 << 20
)

// Summary says what was written.
type Summary struct {
	Size   int64  // bytes of the pack
	Paths  int    // number of records
	SHA256 string // of the index, hex; see [ReadIndex]
}

// Write makes a pack of an export stream, with proofs by store path of those
// that have one. A signature or content address of a form that Nix does not write
// is left out. With a key the pack is sealed. It needs memory for one frame, not
// for the stream. After an error what was written is of no use.
func Write(dst io.Writer, export io.Reader, proofs map[string]Proof, key *Key) (*Summary, error) {
	w := &writer{dst: dst, proofs: proofs, nar: sha256.New(), key: key, salt: newSalt()}
	if key != nil {
		seal := key.derive("pack", w.salt)
		w.ix.seal = &seal
	}
	var err error
	if w.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault)); err != nil {
		return nil, err
	}
	if err := w.records(bufio.NewReaderSize(export, 1<<20)); err != nil {
		return nil, fmt.Errorf("read export stream: %w", err)
	}
	return w.finish()
}

// writer sorts the bytes of records into frames. Bytes of a record collect in
// buf until it is clear whether the record is small or needs a frame of its own.
type writer struct {
	dst    io.Writer
	proofs map[string]Proof
	key    *Key // nil for a pack in clear
	salt   salt // of a sealed pack
	enc    *zstd.Encoder
	body   io.Closer // what the encoder writes to
	off    int64     // in dst
	ix     Index

	buf     bytes.Buffer // whole small records of the frame to come, then the record that is being read
	start   int          // in buf, of the record that is being read
	open    bool         // the record that is being read streams into a frame of its own
	length  int64        // uncompressed bytes of that frame so far
	nar     hash.Hash
	narSize int64
	inNar   bool
}

// Write takes the bytes of a record, in whatever pieces they are read.
func (w *writer) Write(p []byte) (int, error) {
	if w.inNar {
		w.nar.Write(p)
		w.narSize += int64(len(p))
	}
	if w.open {
		w.length += int64(len(p))
		return w.enc.Write(p)
	}
	w.buf.Write(p)
	if w.buf.Len()-w.start <= FrameSize {
		return len(p), nil
	}
	// Too large to share: what was collected before it makes one frame, the
	// record starts the next.
	large := bytes.Clone(w.buf.Bytes()[w.start:])
	w.buf.Truncate(w.start)
	if err := w.flush(); err != nil {
		return 0, err
	}
	w.open, w.length = true, int64(len(large))
	w.openFrame()
	if _, err := w.enc.Write(large); err != nil {
		return 0, err
	}
	return len(p), nil
}

// counter writes to the pack and keeps the offset.
type counter writer

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.dst.Write(p)
	c.off += int64(n)
	return n, err
}

func (w *writer) records(r *bufio.Reader) error {
	tee := io.TeeReader(r, w)
	for {
		// The closing number belongs to no record: it must not reach the tee.
		head, err := r.Peek(8)
		if err != nil {
			return unexpected(err)
		}
		switch n := binary.LittleEndian.Uint64(head); n {
		case streamEnd:
			return nil
		case recordStart:
		default:
			return fmt.Errorf("%#x where a record should start", n)
		}
		if err := w.record(tee); err != nil {
			return unexpected(err)
		}
	}
}

func (w *writer) record(r io.Reader) error {
	w.start = w.buf.Len()
	w.nar.Reset()
	w.narSize = 0
	if _, err := wire.ReadUint64(r); err != nil { // recordStart
		return err
	}
	w.inNar = true
	err := skipNAR(r)
	w.inNar = false
	if err != nil {
		return err
	}
	rec := Record{NarSize: w.narSize}
	w.nar.Sum(rec.NarHash[:0])
	if err := rec.readTrailer(r); err != nil {
		return err
	}
	rec.Proof = w.proofs[rec.Path].wellFormed()
	return w.place(rec)
}

// place ends a record: it decides in which frame it lies.
func (w *writer) place(rec Record) error {
	if w.open {
		w.open = false
		rec.frame, rec.offset = len(w.ix.frames), 0
		w.ix.Records = append(w.ix.Records, rec)
		return w.closeFrame(w.length)
	}
	if w.start > 0 && w.buf.Len() > FrameSize {
		last := bytes.Clone(w.buf.Bytes()[w.start:])
		w.buf.Truncate(w.start)
		if err := w.flush(); err != nil {
			return err
		}
		w.buf.Write(last)
		w.start = 0
	}
	rec.frame, rec.offset = len(w.ix.frames), int64(w.start)
	w.ix.Records = append(w.ix.Records, rec)
	return nil
}

// flush writes the small records that were collected as a frame.
func (w *writer) flush() error {
	w.start = 0
	if w.buf.Len() == 0 {
		return nil
	}
	w.openFrame()
	if _, err := w.enc.Write(w.buf.Bytes()); err != nil {
		return err
	}
	length := int64(w.buf.Len())
	w.buf.Reset()
	return w.closeFrame(length)
}

// openFrame starts the next frame.
func (w *writer) openFrame() {
	var to io.WriteCloser = unsealed{(*counter)(w)}
	if w.ix.seal != nil {
		to = w.ix.seal.writer((*counter)(w), uint64(len(w.ix.frames)))
	}
	w.body = to
	w.enc.Reset(to)
}

func (w *writer) closeFrame(length int64) error {
	var start int64
	if n := len(w.ix.frames); n > 0 {
		start = w.ix.frames[n-1].offset + w.ix.frames[n-1].size
	}
	if err := w.enc.Close(); err != nil {
		return err
	}
	if err := w.body.Close(); err != nil {
		return err
	}
	w.ix.frames = append(w.ix.frames, frame{offset: start, size: w.off - start, length: length})
	return nil
}

// finish writes the last frame, the end of the stream and the index.
func (w *writer) finish() (*Summary, error) {
	if err := w.flush(); err != nil {
		return nil, err
	}
	w.openFrame()
	if err := wire.WriteUint64(w.enc, streamEnd); err != nil {
		return nil, err
	}
	if err := errors.Join(w.enc.Close(), w.body.Close()); err != nil {
		return nil, err
	}
	index, err := w.ix.marshal()
	if err != nil {
		return nil, err
	}
	if len(index) > maxIndex-sealedHead-chacha20poly1305.Overhead {
		return nil, fmt.Errorf("the index of %d paths is larger than %d bytes", len(w.ix.Records), maxIndex)
	}
	if _, err := (*counter)(w).Write(w.tail(index)); err != nil {
		return nil, err
	}
	return &Summary{Size: w.off, Paths: len(w.ix.Records), SHA256: hexSum(index)}, nil
}

// tail is what follows the frames of the stream.
func (w *writer) tail(index []byte) []byte {
	var tail []byte
	magic := trailerMagic
	if w.ix.seal != nil {
		magic = sealedMagic
		tail = append(append(tail, w.key.id[:]...), w.salt[:]...)
		index = w.ix.seal.aead.Seal(tail, nonce(indexFrame, 0, true), index, nil)
		tail = index
	} else {
		tail = binary.LittleEndian.AppendUint32(tail, skippableMagic)
		tail = binary.LittleEndian.AppendUint32(tail, uint32(len(index)+trailerSize)) //nolint:gosec // at most maxIndex
		tail = append(tail, index...)
	}
	tail = binary.LittleEndian.AppendUint64(tail, uint64(len(index)))
	return append(tail, magic...)
}

// skipNAR reads a NAR to its end.
func skipNAR(r io.Reader) (err error) {
	own := &gate{r: r}
	defer own.shut()
	nr, err := nar.NewReader(own)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, nr.Close()) }()
	for {
		if _, err := nr.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// A gate keeps the reader of a NAR, which may go on behind our back after an error,
// from reading more once it is shut.
type gate struct {
	mu sync.Mutex
	r  io.Reader // nil when shut
}

func (g *gate) Read(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.r == nil {
		return 0, io.ErrClosedPipe
	}
	return g.r.Read(p)
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.r = nil
}

// readTrailer reads what follows the NAR in a record.
func (rec *Record) readTrailer(r io.Reader) error {
	magic, err := wire.ReadUint64(r)
	if err != nil {
		return err
	}
	if magic != recordMagic {
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
	if n != 0 {
		return fmt.Errorf("%s has a signature of the form that Nix no longer writes", rec.Path)
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
