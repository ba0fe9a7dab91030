package actions

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/org/nix-matrix/pkg/httpcall"
)

var errClosed = errors.New("the reader is closed")

// connection is one download under way. Its watchdog cancels it as stalled.
type connection struct {
	watchdog *httpcall.Watchdog
	body     io.ReadCloser // nil before the answer
}

func (c *connection) Read(p []byte) (int, error) { return c.watchdog.Read(c.body, p) }

func (c *connection) Close() {
	c.watchdog.Pause()
	if c.body != nil {
		c.body.Close()
	}
	c.watchdog.Close()
}

// reader reads left bytes from offset on, over several connections if needed, within the
// retries that the config allows.
type reader struct {
	ctx          context.Context
	blob         *blob
	offset, left int64
	conn         *connection // or nil
	lost         *fault      // the reason why the last one ended
	failures     int
	ended        error // the reason why there is no next one
}

func (r *reader) Read(p []byte) (int, error) {
	for r.left > 0 {
		if err := r.connect(); err != nil {
			return 0, r.blob.failed(err)
		}
		n, err := r.conn.Read(p[:min(int64(len(p)), r.left)])
		r.offset += int64(n)
		r.left -= int64(n)
		if err != nil && r.left > 0 {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			r.lost = &fault{error: err}
		}
		if err != nil || r.left == 0 {
			r.conn.Close()
			r.conn = nil
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
	if r.conn != nil {
		r.conn.Close()
		r.conn = nil
	}
	return nil
}

// connect makes a connection if there is none.
func (r *reader) connect() error {
	for r.ended == nil {
		if r.ended = r.ctx.Err(); r.ended != nil {
			break
		}
		if r.conn != nil {
			return nil
		}
		if r.lost != nil {
			if r.ended = r.recover(r.lost); r.ended != nil {
				break
			}
		}
		r.conn, r.lost = r.blob.get(r.ctx, r.offset, r.left)
	}
	return r.ended
}

// recover applies the remedy of a fault, or returns an error if there is none.
func (r *reader) recover(f *fault) error {
	config := r.blob.client.config
	if f.final {
		return f.error
	}
	if r.failures++; r.failures > config.Retries {
		return fmt.Errorf("given up after %d tries: %w", r.failures, f.error)
	}
	if f.expired == nil && f.resp == nil {
		// The storage did not answer, so the next try gets a fresh connection.
		r.blob.client.download.CloseIdleConnections()
	}
	config.Log.Info("a download from the Actions cache failed", "key", r.blob.key, "offset", r.offset, "error", f.error)
	switch {
	case f.expired != nil:
		return r.blob.renew(r.ctx, f.expired)
	case f.busy:
		pause, ok := httpcall.RetryAfter(f.resp)
		if !ok {
			pause = httpcall.Linear(config.Wait)(r.failures - 1)
		}
		if pause > config.Timeout {
			return fmt.Errorf("%w (try again in %s)", f.error, pause)
		}
		return httpcall.Sleep(r.ctx, pause)
	}
	return nil
}
