package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/httpcall"
)

var errClosed = errors.New("the reader is closed")

// A blob is an object, whose first bytes were read when it was opened.
type blob struct {
	bucket *Bucket
	name   string // of the object
	key    string
	etag   string
	size   int64 // less than 0 before the first answer
	head   []byte
}

func (b *blob) Key() string { return b.key }
func (b *blob) Size() int64 { return b.size }

// measure learns the size, and reads the first bytes: a request takes longer than they do.
func (b *blob) measure(ctx context.Context) error {
	return b.bucket.retry(ctx, "get", func(int) error {
		b.size, b.etag = -1, ""
		body, err := b.get(ctx, 0, b.bucket.config.Small)
		if err != nil {
			return err
		}
		defer body.Close()
		head := make([]byte, min(b.size, b.bucket.config.Small))
		if _, err := io.ReadFull(body, head); err != nil {
			return &lostError{unexpected(err)}
		}
		b.head = head
		return nil
	})
}

// get asks for bytes from offset on, and returns a reader of at least one and at most length of
// them. The first answer sets size and ETag, all others must agree with it.
func (b *blob) get(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	var options minio.GetObjectOptions
	if err := options.SetRange(offset, offset+length-1); err != nil {
		return nil, err
	}
	if b.etag != "" {
		if err := options.SetMatchETag(b.etag); err != nil {
			return nil, err
		}
	}
	body, info, header, err := b.bucket.client.GetObject(ctx, b.bucket.config.Bucket, b.name, options)
	if err != nil {
		return nil, err
	}
	from, size, ok := contentRange(header, info.Size)
	switch {
	case b.size >= 0 && (info.ETag != b.etag || size != b.size):
		err = fmt.Errorf("it was replaced meanwhile: %w", cache.ErrMiss)
	case !ok || from != offset:
		err = errPartial
	case size == 0:
		err = minio.ErrorResponse{StatusCode: http.StatusRequestedRangeNotSatisfiable, Code: "InvalidRange"}
	}
	if err != nil {
		_ = body.Close()
		return nil, err
	}
	if b.size < 0 {
		b.etag, b.size = info.ETag, size
	}
	return body, nil
}

// contentRange returns at which byte an answer begins, and of how many bytes the object is. length
// is that of the answer.
func contentRange(header http.Header, length int64) (from, size int64, ok bool) {
	text := header.Get("Content-Range")
	if text == "" { // the whole object
		return 0, length, length >= 0
	}
	text, ok = strings.CutPrefix(text, "bytes ")
	place, total, cut := strings.Cut(text, "/")
	first, last, dash := strings.Cut(place, "-")
	if !ok || !cut || !dash {
		return 0, 0, false
	}
	var numbers [3]int64
	for i, digits := range []string{first, last, total} {
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil {
			return 0, 0, false
		}
		numbers[i] = int64(n)
	}
	from, to, size := numbers[0], numbers[1], numbers[2]
	return from, size, from <= to && to < size
}

func (b *blob) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	err := cache.CheckRange(offset, length, b.size)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, b.failed(err)
	}
	if offset+length <= int64(len(b.head)) {
		return io.NopCloser(bytes.NewReader(b.head[offset : offset+length])), nil
	}
	r := &reader{ctx: ctx, blob: b, offset: offset, left: length}
	if err := r.connect(); err != nil {
		return nil, b.failed(err)
	}
	return r, nil
}

// failed returns the error of a range.
func (b *blob) failed(err error) error {
	if isMissing(err) || isStatus(err, http.StatusPreconditionFailed) {
		err = fmt.Errorf("it was removed meanwhile: %w", cache.ErrMiss)
	}
	err = b.bucket.named(err)
	final := []error{context.Canceled, context.DeadlineExceeded, cache.ErrMiss, cache.ErrReadOnly, io.ErrUnexpectedEOF, errClosed}
	if !slices.ContainsFunc(final, func(f error) bool { return errors.Is(err, f) }) {
		err = fmt.Errorf("%w: %w", err, io.ErrUnexpectedEOF) // the bytes do not arrive
	}
	return fmt.Errorf("cannot read %s: %w", b.key, err)
}

// unexpected returns the error of a body that ended, which was to have more.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A reader reads left bytes from offset on, over several connections if needed.
type reader struct {
	ctx          context.Context
	blob         *blob
	offset, left int64
	body         io.ReadCloser // nil without a connection
	lost         error         // why the last connection ended
	failures     int
	ended        error // why there is no next one
}

func (r *reader) Read(p []byte) (int, error) {
	for r.left > 0 {
		if err := r.connect(); err != nil {
			return 0, r.blob.failed(err)
		}
		n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
		r.offset += int64(n)
		r.left -= int64(n)
		if err != nil || r.left == 0 {
			r.disconnect()
			if r.left > 0 {
				r.lost = unexpected(err)
			}
		}
		if n > 0 || err == nil {
			return n, nil
		}
	}
	return 0, io.EOF
}

// Close ends the download, finished or not.
func (r *reader) Close() error {
	r.ended = errClosed
	r.disconnect()
	return nil
}

func (r *reader) disconnect() {
	if r.body != nil {
		_ = r.body.Close()
		r.body = nil
	}
}

// connect makes a connection if there is none.
func (r *reader) connect() error {
	for r.ended == nil {
		if r.ended = r.ctx.Err(); r.ended != nil || r.body != nil {
			break
		}
		if r.lost != nil {
			if r.ended = r.wait(); r.ended != nil {
				break
			}
		}
		r.body, r.lost = r.blob.get(r.ctx, r.offset, r.left)
	}
	return r.ended
}

// wait waits before the next connection, or returns an error if there is to be none.
func (r *reader) wait() error {
	config := &r.blob.bucket.config
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if !passes(r.lost) {
		return r.lost
	}
	if r.failures++; r.failures > config.Retries {
		return fmt.Errorf("given up after %d tries: %w", r.failures, r.lost)
	}
	config.Log.Info("a download from the S3 cache failed", "key", r.blob.key, "offset", r.offset, "error", r.blob.bucket.named(r.lost))
	return httpcall.Sleep(r.ctx, httpcall.Linear(config.Wait)(r.failures-1))
}
