package httpcall

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// A Policy says how often and when a request is sent again.
type Policy struct {
	Retries int // after the first try
	// Pause returns the pause before the next try if the server names none. Tries are counted
	// from 0.
	Pause func(try int) time.Duration
	// Spread makes each pause up to half longer by chance, so that callers who failed together
	// do not come back together.
	Spread bool
	// MaxPause is the longest pause that a server may ask for.
	MaxPause time.Duration

	// Once says that a repetition might do something twice. Then only a request that was one
	// too many is repeated, because it has done nothing.
	Once bool
	// Limited, if set, returns the pause that a server asks for in its own way, and whether it
	// does.
	Limited func(resp *http.Response, try int) (pause time.Duration, ok bool)
	// Final, if set, returns an error that ends the call after a try, or nil.
	Final func() error
	// Failed, if set, is called before the pause after a failed try, with its answer or nil.
	Failed func(resp *http.Response, err error, pause time.Duration)
	// Prepare, if set, is called before each repetition. Its error ends the call.
	Prepare func(ctx context.Context) error
}

// Do sends a request with a client that uses a [Transport], and returns the last answer,
// whatever its status. The error has no address.
func (p *Policy) Do(client *http.Client, req *retryablehttp.Request) (*http.Response, error) {
	var try int
	var pause time.Duration
	var failure error
	check := func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		if p.Final != nil {
			if final := p.Final(); final != nil {
				return false, final
			}
		}
		again, ended := retryablehttp.DefaultRetryPolicy(ctx, resp, err)
		if ended != nil {
			return false, ended
		}
		asked, limited := time.Duration(0), false
		if p.Limited != nil && err == nil {
			asked, limited = p.Limited(resp, try)
		}
		if !limited && (!again || p.Once) {
			return false, nil
		}
		failure = err
		if !limited && resp != nil {
			asked, limited = RetryAfter(resp)
		}
		if pause = asked; !limited {
			pause = p.Pause(try)
		}
		// An answer says more than the end of the context.
		if deadline, ends := ctx.Deadline(); limited && asked > p.MaxPause || ends && pause > time.Until(deadline) && (limited || resp != nil) {
			return false, nil
		}
		if resp != nil {
			failure = &StatusError{Status: resp.StatusCode, Wait: asked}
		}
		return true, nil
	}
	again := &retryablehttp.Client{
		HTTPClient:   client,
		RetryMax:     p.Retries,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		CheckRetry:   check,
		Backoff: func(_, _ time.Duration, attempt int, resp *http.Response) time.Duration {
			try = attempt + 1
			if p.Spread {
				pause += rand.N(pause/2 + 1) //nolint:gosec // no secret
			}
			if p.Failed != nil {
				p.Failed(resp, noAnswer(failure), pause)
			}
			return pause
		},
	}
	if p.Prepare != nil {
		again.PrepareRetry = func(req *http.Request) error { return p.Prepare(req.Context()) }
	}
	resp, err := again.Do(req)
	return resp, noAnswer(err)
}

// Linear returns pauses of 1 to 2 units, then 2 to 4, then 3 to 6.
func Linear(unit time.Duration) func(try int) time.Duration {
	return func(try int) time.Duration {
		return retryablehttp.LinearJitterBackoff(unit, 2*unit, try, nil)
	}
}

// Exponential returns pauses of a unit, then two, then four, but none longer than longest.
func Exponential(unit, longest time.Duration) func(try int) time.Duration {
	return func(try int) time.Duration { return retryablehttp.DefaultBackoff(unit, longest, try, nil) }
}

// RetryAfter returns the pause that the header Retry-After of an answer asks for, in seconds or
// as a date, and whether it asks for one. The answer may be nil.
func RetryAfter(resp *http.Response) (pause time.Duration, ok bool) {
	if resp == nil {
		return 0, false
	}
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(date)), true
	}
	return 0, false
}

// Sleep returns after a pause, or with the context's error when that ends before.
func Sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
