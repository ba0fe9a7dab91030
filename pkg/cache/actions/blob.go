package actions

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/httpcall"
)

const unknown = -1 // size of a blob before the first answer

// blob is read with ranged GET requests without a token: for some minutes, the address
// is the permission.
type blob struct {
	client *client
	key    string

	renewing chan struct{} // holds one while a request for another address is under way

	mu      sync.Mutex
	address *string // a secret; another pointer for another address
	etag    string
	size    int64
	whole   bool // the storage ignores ranges

	// Bytes that were read when the blob was opened, and where they begin.
	known []byte
	from  int64
}

func (b *blob) Key() string { return b.key }
func (b *blob) Size() int64 { return b.size }

// measure learns the size, which only a download has, and reads up to length bytes from an offset on with
// the same request: a request takes longer than these bytes.
func (b *blob) measure(ctx context.Context, from, length int64) error {
	r := &reader{ctx: ctx, blob: b, offset: from, left: max(length, 1)}
	defer r.Close()
	if err := r.connect(); err != nil {
		return b.failed(err)
	}
	r.left = max(min(r.left, b.size-from), 0)
	known := make([]byte, r.left)
	if _, err := io.ReadFull(r, known); err != nil {
		return err
	}
	b.known, b.from = known, from
	return nil
}

func (b *blob) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	if err := cache.CheckRange(offset, length, b.size); err != nil {
		return nil, b.failed(err)
	}
	if err := ctx.Err(); err != nil {
		return nil, b.failed(err)
	}
	if length == 0 {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	if start := offset - b.from; start >= 0 && start+length <= int64(len(b.known)) {
		return io.NopCloser(bytes.NewReader(b.known[start : start+length])), nil
	}
	if !b.whole {
		r := &prefetchReader{ctx: ctx, blob: b, offset: offset, left: length}
		b.client.budget.add(r)
		return r, nil
	}
	r := &reader{ctx: ctx, blob: b, offset: offset, left: length}
	if err := r.connect(); err != nil {
		return nil, b.failed(err)
	}
	return r, nil
}

// failed returns err with the blob that could not be read.
func (b *blob) failed(err error) error { return fmt.Errorf("cannot read %s: %w", b.key, err) }

// fault is the reason why a download failed, with the remedy. Without one, the next
// try follows at once.
type fault struct {
	error
	final   bool           // there is no remedy
	expired *string        // another address than this one
	busy    bool           // a pause, as resp asks for
	resp    *http.Response // or nil
}

func final(format string, a ...any) *fault {
	return &fault{error: fmt.Errorf(format, a...), final: true}
}

// get starts the download of length bytes from offset on.
func (b *blob) get(ctx context.Context, offset, length int64) (*connection, *fault) {
	ctx, watchdog := httpcall.Watch(ctx, b.client.config.Stall, b.client.config.afterFunc)
	conn := &connection{watchdog: watchdog}
	if fault := b.connect(ctx, conn, offset, length); fault != nil {
		conn.Close()
		return nil, fault
	}
	watchdog.Pause()
	return conn, nil
}

func (b *blob) connect(ctx context.Context, conn *connection, offset, length int64) *fault {
	address := b.current()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, *address, nil)
	if err != nil {
		return final("the address of the storage is malformed")
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	req.Header.Set("User-Agent", httpcall.UserAgent)
	resp, err := b.client.download.Do(req) //nolint:bodyclose // the connection closes it
	if err != nil {
		return &fault{error: conn.watchdog.Cause(err), busy: true}
	}
	conn.body = resp.Body
	answers := fmt.Errorf("the storage answers %d", resp.StatusCode)
	size := resp.ContentLength
	switch resp.StatusCode {
	case http.StatusPartialContent:
		var first, last int64
		n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &size)
		if n != 3 || first != offset {
			return final("asked for bytes from %d on, the storage answers with %.60q", offset, resp.Header.Get("Content-Range"))
		}
	case http.StatusOK: // the range was ignored
	case http.StatusUnauthorized, http.StatusForbidden:
		return &fault{error: answers, expired: address}
	case http.StatusNotFound, http.StatusGone:
		return final("evicted: %w", cache.ErrMiss)
	case http.StatusRequestedRangeNotSatisfiable:
		return final("the storage has no bytes at %d: %w", offset, io.ErrUnexpectedEOF)
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return &fault{error: answers, busy: true, resp: resp}
	default:
		return &fault{error: answers, busy: true, resp: resp, final: resp.StatusCode < 500}
	}
	if fault := b.same(size, resp.Header.Get("ETag"), size > length && resp.StatusCode == http.StatusOK); fault != nil {
		return fault
	}
	if resp.StatusCode == http.StatusOK && offset > 0 {
		if _, err := io.CopyN(io.Discard, conn, offset); err != nil {
			return &fault{error: err}
		}
	}
	return nil
}

// same learns the blob's size and ETag, and whether the storage ignores ranges. Later it
// returns a fault if they differ: another address may lead to the entry of another scope
// under the same key.
func (b *blob) same(size int64, etag string, whole bool) *fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case size <= 0:
		return final("the storage does not say the size")
	case b.size == unknown:
		b.size, b.etag, b.whole = size, etag, whole
	case size != b.size, etag != "" && b.etag != "" && etag != b.etag:
		return final("another entry has taken its place: %w", cache.ErrMiss)
	}
	return nil
}

// renew asks the service for another address than the one that has expired, unless
// another reader has done so.
func (b *blob) renew(ctx context.Context, expired *string) error {
	select {
	case b.renewing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-b.renewing }()
	if b.current() != expired {
		return nil
	}
	e, err := b.client.find(ctx, b.key, nil)
	if err != nil {
		return fmt.Errorf("its address has expired: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.address = &e.address
	return nil
}

func (b *blob) current() (address *string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.address
}
