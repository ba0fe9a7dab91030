package pack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory for decoding a frame, in bytes. The frames of [Write]
// need [FrameSize].
const maxWindow = 64 << 20

// A Reader reads records of a pack one after the other: Next goes to the next record,
// Read reads its NAR. It reads only byte ranges with wanted records. All calls after an
// error return the error.
type Reader struct {
	// BytesRead counts the bytes that were read of the pack.
	BytesRead int64

	ctx  context.Context // of the source's ranges
	ix   *Index
	src  Source
	dec  *zstd.Decoder
	runs []run // to come; the first is open if body is not nil

	body  io.ReadCloser // the open run
	lost  error         // of its source
	next  int           // in its frames
	frame *io.LimitedReader
	queue []int // wanted records of the frame, to come
	pos   int64 // in the decompressed frame

	rec  *Record // nil before the first and after the last
	left int64   // bytes of its NAR
	sum  hash.Hash
	err  error
}

// NewReader returns a reader of the records with these numbers, which must be in ascending
// order. The caller must close it.
func (ix *Index) NewReader(ctx context.Context, src Source, numbers []int) (*Reader, error) {
	// Without concurrency the decoder reads only when it is asked to. The checksums of frames
	// are ignored, because NARs are checked against better hashes.
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.IgnoreChecksum(true))
	if err != nil {
		return nil, err
	}
	return &Reader{ctx: ctx, ix: ix, src: src, dec: dec, runs: ix.runs(numbers), sum: sha256.New()}, nil
}

// Next goes to the next record, or returns io.EOF. The unread rest of the previous NAR is
// skipped and not checked.
func (r *Reader) Next() (*Record, error) {
	if r.err == nil {
		r.err = r.advance()
	}
	if r.err != nil {
		return nil, r.err
	}
	return r.rec, nil
}

func (r *Reader) advance() error {
	r.rec, r.left = nil, 0
	for len(r.queue) == 0 {
		if err := r.nextFrame(); err != nil {
			return err
		}
	}
	rec := &r.ix.Records[r.queue[0]]
	r.queue = r.queue[1:]
	start := rec.offset + 8 // the NAR follows nar.RecordStart
	if _, err := io.CopyN(io.Discard, r.dec, start-r.pos); err != nil {
		return r.corrupt(err)
	}
	r.pos = start
	r.rec, r.left = rec, rec.NarSize
	r.sum.Reset()
	if r.left == 0 {
		return r.check()
	}
	return nil
}

// nextFrame goes to the next frame, which is wanted or lies between wanted ones.
func (r *Reader) nextFrame() error {
	if r.frame != nil {
		if _, err := io.Copy(io.Discard, r.frame); err != nil {
			return r.corrupt(err)
		}
		r.frame = nil
	}
	if r.body != nil && r.next == len(r.runs[0].frames) {
		body := r.body
		r.body, r.runs = nil, r.runs[1:]
		if err := body.Close(); err != nil {
			return fmt.Errorf("%w: %w", ErrRead, err)
		}
	}
	if len(r.runs) == 0 {
		return io.EOF
	}
	current := &r.runs[0]
	if r.body == nil {
		body, err := r.src.Range(r.ctx, current.offset, current.size)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRead, err)
		}
		r.body, r.next = body, 0
	}
	number := current.frames[r.next]
	r.next++
	r.frame = &io.LimitedReader{R: (*ranged)(r), N: r.ix.frames[number].size}
	r.queue, r.pos = current.records[number], 0
	if len(r.queue) == 0 {
		return nil
	}
	var frame io.Reader = r.frame
	if r.ix.seal != nil {
		frame = r.ix.seal.reader(r.frame, uint64(number)) //nolint:gosec // it counts frames
	}
	if err := r.dec.Reset(frame); err != nil {
		return r.corrupt(err)
	}
	return nil
}

// Read reads from the NAR of the record that Next returned, which ends with io.EOF.
// The NAR is checked against its hash in the index before its last bytes are
// returned, so that the caller never gets the whole of a wrong one.
func (r *Reader) Read(p []byte) (int, error) {
	switch {
	case r.err != nil:
		return 0, r.err
	case r.left == 0:
		return 0, io.EOF
	}
	n, err := r.dec.Read(p[:min(int64(len(p)), r.left)])
	r.sum.Write(p[:n])
	r.left -= int64(n)
	r.pos += int64(n)
	switch {
	case r.left == 0:
		r.err = r.check()
	case err != nil:
		r.err = r.corrupt(err)
	}
	if r.err != nil {
		return 0, r.err
	}
	return n, nil
}

func (r *Reader) check() error {
	if [sha256.Size]byte(r.sum.Sum(nil)) != r.rec.NarHash {
		return fmt.Errorf("%w: the NAR of %s does not have its hash in the index", ErrCorrupt, r.rec.Path)
	}
	return nil
}

// corrupt returns [ErrRead] with an error of the source, such as a lost connection, if there
// was one; else err is an error of the data and becomes [ErrCorrupt].
func (r *Reader) corrupt(err error) error {
	if r.lost != nil {
		return fmt.Errorf("%w: %w", ErrRead, r.lost)
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, unexpected(err))
}

// ranged reads from the open run.
type ranged Reader

func (r *ranged) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	r.BytesRead += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.lost = err
	}
	return n, err
}

// Close closes the source's range.
func (r *Reader) Close() {
	r.dec.Close()
	if r.body != nil {
		_ = r.body.Close()
		r.body = nil
	}
	if r.err == nil {
		r.err = errors.New("the reader of the pack is closed")
	}
}

// A run is a byte range of the pack with whole frames, and the wanted records
// in each of them.
type run struct {
	offset, size int64
	frames       []int
	records      map[int][]int // by frame
}

// Gap is the most bytes between two wanted frames that are read with them, because another
// request takes as long as these bytes.
const Gap = 2 << 20

func (ix *Index) runs(numbers []int) []run {
	var runs []run
	for _, n := range numbers {
		f := ix.Records[n].frame
		fr := ix.frames[f]
		last := len(runs) - 1
		if last < 0 || fr.offset-(runs[last].offset+runs[last].size) > Gap {
			runs = append(runs, run{offset: fr.offset, records: map[int][]int{}})
			last++
		}
		r := &runs[last]
		first := f
		if len(r.frames) > 0 {
			first = r.frames[len(r.frames)-1] + 1
		}
		for between := first; between <= f; between++ {
			r.frames = append(r.frames, between)
		}
		r.size = fr.offset + fr.size - r.offset
		r.records[f] = append(r.records[f], n)
	}
	return runs
}

// Verify reads a whole pack and checks everything in it. sum and key are as for
// [ReadIndex].
func Verify(ctx context.Context, src Source, sum string, key *Key) error {
	ix, err := ReadIndex(ctx, src, sum, key)
	if err != nil {
		return err
	}
	numbers := make([]int, len(ix.Records))
	for n := range numbers {
		numbers[n] = n
	}
	r, err := ix.NewReader(ctx, src, numbers)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
	}
}
