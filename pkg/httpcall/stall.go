package httpcall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A StalledError says that a connection brought or took nothing for a time.
type StalledError struct{ After time.Duration }

func (e *StalledError) Error() string { return fmt.Sprintf("no progress within %s", e.After) }

// A Timer is what a [Watchdog] needs of time.Timer.
type Timer interface {
	Reset(d time.Duration) bool
	Stop() bool
}

// AfterFunc is time.AfterFunc, or a stand-in of tests.
type AfterFunc func(time.Duration, func()) Timer

// A Watchdog cancels a try that makes no progress.
type Watchdog struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	after  time.Duration
	timer  Timer

	arrived int           // bytes of an answer, since the last trickle
	waited  time.Duration // for them
}

// Watch returns a context for a try, which ends once there is no progress for a time. A nil
// afterFunc is time.AfterFunc. The Watchdog must be closed.
func Watch(ctx context.Context, after time.Duration, afterFunc AfterFunc) (context.Context, *Watchdog) {
	if afterFunc == nil {
		afterFunc = func(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }
	}
	w := &Watchdog{after: after}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = afterFunc(after, func() { w.cancel(&StalledError{after}) })
	return w.ctx, w
}

// Progress begins the time again. This once it is longer by more, which may be negative.
func (w *Watchdog) Progress(more time.Duration) { w.timer.Reset(w.after + more) }

// Pause stops the time until the next Progress.
func (w *Watchdog) Pause() { w.timer.Stop() }

// trickle is how many bytes of an answer must arrive in the time after which a try counts as stalled. A
// line that is always slower is of no use.
const trickle = 64 << 10

// Read reads from the body of an answer. The time counts only during a Read, and begins again with each
// trickle. An error other than io.EOF is that of Cause.
func (w *Watchdog) Read(body io.Reader, p []byte) (int, error) {
	start := time.Now()
	w.Progress(-w.waited)
	n, err := body.Read(p)
	w.Pause()
	w.waited += time.Since(start)
	if w.arrived += n; w.arrived >= trickle {
		w.arrived, w.waited = 0, 0
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = w.Cause(err)
	}
	return n, err
}

// Close ends the try.
func (w *Watchdog) Close() {
	w.timer.Stop()
	w.cancel(nil)
}

// Cause returns the reason of an error of the try: a *StalledError, the context's error, or
// the error itself without an address.
func (w *Watchdog) Cause(err error) error {
	var stalled *StalledError
	switch {
	case errors.As(context.Cause(w.ctx), &stalled):
		return stalled
	case w.ctx.Err() != nil:
		return w.ctx.Err()
	}
	return WithoutAddress(err)
}

// Feed makes each Read of a request's body progress.
func (w *Watchdog) Feed(req *http.Request) {
	if req.Body == nil || req.Body == http.NoBody {
		return
	}
	req.Body = &watchdogBody{req.Body, w}
	if again := req.GetBody; again != nil {
		req.GetBody = func() (io.ReadCloser, error) {
			body, err := again()
			return &watchdogBody{body, w}, err
		}
	}
}

type watchdogBody struct {
	io.ReadCloser
	watchdog *Watchdog
}

func (b *watchdogBody) Read(p []byte) (int, error) {
	b.watchdog.Progress(0)
	return b.ReadCloser.Read(p)
}

// A Body is a request's body that takes part in its try. Its Close may be called during a Read,
// which has to end then.
type Body interface {
	io.ReadCloser
	// Start is called before the first Read with the try's context and [Watchdog.Progress],
	// which the body calls.
	Start(ctx context.Context, progress func(more time.Duration))
}

// A Transport gives up a try that makes no progress: whose body is not read any further, or
// whose answer does not come. It reads all of the answer before it returns.
type Transport struct {
	Next      http.RoundTripper
	Stall     time.Duration
	MaxAnswer int64     // bytes; more are cut off
	AfterFunc AfterFunc // of tests; nil is time.AfterFunc
}

// RoundTrip is of [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, watchdog := Watch(req.Context(), t.Stall, t.AfterFunc)
	defer watchdog.Close()
	req = req.WithContext(ctx)
	if body, ok := req.Body.(Body); ok {
		req.GetBody = nil
		body.Start(ctx, watchdog.Progress)
		// The next transport waits for a Read that is under way before it returns, and may
		// close the body only after that.
		defer context.AfterFunc(ctx, func() { _ = body.Close() })()
		defer body.Close()
	} else {
		watchdog.Feed(req)
	}
	resp, err := t.Next.RoundTrip(req)
	if err != nil {
		return nil, watchdog.Cause(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, t.MaxAnswer))
	if err != nil {
		return nil, watchdog.Cause(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(data))
	return resp, nil
}

// CloseIdleConnections has the next try use a connection of its own.
func (t *Transport) CloseIdleConnections() {
	(&http.Client{Transport: t.Next}).CloseIdleConnections()
}

// HTTP1 returns a transport like http.DefaultTransport, but without HTTP/2, where all requests
// would share one connection.
func HTTP1(connections int) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.MaxIdleConnsPerHost = connections
	return t
}
