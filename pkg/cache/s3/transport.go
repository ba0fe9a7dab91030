package s3

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/org/nix-matrix/pkg/httpcall"
)

// maxAnswer is the most bytes of an answer that is not an object's content.
const maxAnswer = 16 << 20

// A lostError says why there is no whole answer. Its text has no address.
type lostError struct{ cause error }

func (e *lostError) Error() string {
	if errors.Is(e.cause, io.ErrUnexpectedEOF) {
		return "the server has closed the connection" // a text that the client does not replace
	}
	return e.cause.Error()
}

func (e *lostError) Unwrap() error { return e.cause }

// transport ends a try that makes no progress, and bounds answers. Answers to requests with a
// range are read by the caller; they last until their body is closed.
type transport struct {
	next  http.RoundTripper
	stall time.Duration
}

// RoundTrip is of [http.RoundTripper].
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	caller := req.Context()
	ctx, watchdog := httpcall.Watch(caller, t.stall, nil)
	req = req.WithContext(ctx)
	watchdog.Feed(req)
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		defer watchdog.Close()
		if caller.Err() == nil { // the next try gets a connection of its own
			(&http.Client{Transport: t.next}).CloseIdleConnections()
		}
		return nil, &lostError{watchdog.Cause(err)}
	}
	watchdog.Pause()
	body := &body{from: resp.Body, watchdog: watchdog, left: -1}
	if req.Method != http.MethodGet || req.Header.Get("Range") == "" || resp.StatusCode >= http.StatusMultipleChoices {
		body.left = maxAnswer
	}
	resp.Body = body
	return resp, nil
}

// body is an answer's.
type body struct {
	from     io.ReadCloser
	watchdog *httpcall.Watchdog
	left     int64 // bytes that may be read; less than 0 for any number
}

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, &lostError{errors.New("the server's answer is too long")}
	}
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.watchdog.Read(b.from, p)
	if b.left > 0 {
		b.left -= int64(n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = &lostError{err}
	}
	return n, err
}

func (b *body) Close() error {
	b.watchdog.Close()
	return b.from.Close()
}
