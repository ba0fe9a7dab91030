package pack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/nix-community/go-nix/pkg/wire"
)

// maxWindow bounds the memory for decoding a frame, in bytes. What [Write] makes
// needs 8 MiB.
const maxWindow = 64 << 20

// Extract writes an export stream with the records of these numbers, which must
// be in ascending order. Every NAR is checked against its hash in the index; of
// a path whose NAR is wrong the end of the record is never written, so that
// `nix-store --import` registers nothing of it. It returns how many bytes of the
// pack were read.
func (ix *Index) Extract(ctx context.Context, dst io.Writer, src Source, numbers []int) (int64, error) {
	// Without concurrency the decoder reads from nothing behind our back.
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return 0, err
	}
	defer dec.Close()

	var read int64
	for _, run := range ix.runs(numbers) {
		r, err := src.Range(ctx, run.offset, run.size)
		if err != nil {
			return read, fmt.Errorf("%w: %w", ErrRead, err)
		}
		from, to := &readErr{r: r}, &writeErr{w: dst}
		err = ix.extractRun(to, from, dec, run)
		if cerr := r.Close(); from.err == nil && err == nil {
			from.err = cerr
		}
		switch {
		case from.err != nil:
			return read, fmt.Errorf("%w: %w", ErrRead, from.err)
		case to.err != nil:
			return read, to.err
		case err != nil:
			return read, fmt.Errorf("%w: %w", ErrCorrupt, unexpected(err))
		}
		read += run.size
	}
	return read, wire.WriteUint64(dst, streamEnd)
}

// A run is a byte range of the pack with whole frames, and the wanted records
// in each of them.
type run struct {
	offset, size int64
	frames       []int
	records      map[int][]int // by frame
}

// gap is how many bytes between two wanted frames are rather read than asked
// around, since a request costs as much as these bytes.
const gap = 1 << 20

func (ix *Index) runs(numbers []int) []run {
	var runs []run
	for _, n := range numbers {
		f := ix.Records[n].frame
		fr := ix.frames[f]
		last := len(runs) - 1
		if last < 0 || fr.offset-(runs[last].offset+runs[last].size) > gap {
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

func (ix *Index) extractRun(dst io.Writer, src io.Reader, dec *zstd.Decoder, r run) error {
	for _, f := range r.frames {
		frame := io.LimitReader(src, ix.frames[f].size)
		if records := r.records[f]; len(records) > 0 {
			if err := dec.Reset(frame); err != nil {
				return err
			}
			if err := ix.extractFrame(dst, dec, records); err != nil {
				return err
			}
		}
		if _, err := io.Copy(io.Discard, frame); err != nil {
			return err
		}
	}
	return nil
}

func (ix *Index) extractFrame(dst io.Writer, frame io.Reader, records []int) error {
	var pos int64
	for _, n := range records {
		rec := &ix.Records[n]
		start := rec.offset + 8 // the NAR follows recordStart
		if _, err := io.CopyN(io.Discard, frame, start-pos); err != nil {
			return err
		}
		pos = start + rec.NarSize
		if err := wire.WriteUint64(dst, recordStart); err != nil {
			return err
		}
		sum := sha256.New()
		if _, err := io.CopyN(io.MultiWriter(dst, sum), frame, rec.NarSize); err != nil {
			return err
		}
		if [sha256.Size]byte(sum.Sum(nil)) != rec.NarHash {
			return fmt.Errorf("what it holds as %s has not the hash that the index says", rec.Path)
		}
		if err := rec.writeTrailer(dst); err != nil {
			return err
		}
	}
	return nil
}

// readErr and writeErr remember the errors of what they wrap, to tell a lost
// connection from corrupt bytes.
type readErr struct {
	r   io.Reader
	err error
}

func (r *readErr) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

type writeErr struct {
	w   io.Writer
	err error
}

func (w *writeErr) Write(p []byte) (n int, err error) {
	n, w.err = w.w.Write(p)
	return n, w.err
}
