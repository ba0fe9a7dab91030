package attic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/nix-matrix/pkg/text"
)

const (
	maxAnswer  = 1 << 20 // bytes
	maxMessage = 300     // bytes
)

// ErrToken says that the server does not permit the token what was asked for.
var ErrToken = errors.New("the token is not accepted")

// call is one question to the server.
type call struct {
	method  string
	name    string // below _api/v1/
	header  http.Header
	json    any     // the body,
	upload  *upload // or else
	retries int
	// arrived, if set, says before a repetition whether the last try got through
	// although its answer did not.
	arrived func() bool
}

// String is for logs.
func (c call) String() string {
	if c.upload != nil {
		return c.name + " of " + c.upload.path.StorePath
	}
	return c.name
}

// errArrived ends the repetitions of a call.
var errArrived = errors.New("it has arrived")

// ask sends a call and decodes the answer into the given pointer. An answer other
// than 2xx is a *refusal.
func (c *Cache) ask(ctx context.Context, call call, answer any) error {
	var body any
	switch {
	case call.upload != nil:
		body = retryablehttp.ReaderFunc(call.upload.again)
	case call.json != nil:
		data, err := json.Marshal(call.json)
		if err != nil {
			return err
		}
		body = data
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, call.method, c.api.JoinPath("_api/v1", call.name).String(), body)
	if err != nil {
		return err
	}
	for name, values := range call.header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", "nix-matrix")
	if call.json != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if *c.token != "" {
		req.Header.Set("Authorization", "bearer "+*c.token)
	}
	if call.upload != nil {
		req.ContentLength = call.upload.length()
	}
	resp, err := c.client(call).Do(req)
	if err != nil {
		return withoutAddress(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body) // of what patient has read
	switch {
	case err != nil:
		return err
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return c.refused(resp, data)
	case len(data) == 0: // of servers before 2023, to an upload
		return nil
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("the server answers %d with what is not Attic's JSON: is the address that of an Attic server?", resp.StatusCode)
	}
	return nil
}

func (c *Cache) client(call call) *retryablehttp.Client {
	limited := false
	return &retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport:     patient{c.options.Transport, c.options.Stall},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		RetryMax:     call.retries,
		RetryWaitMin: c.options.Wait,
		RetryWaitMax: c.options.MaxWait,
		Backoff: func(least, most time.Duration, try int, resp *http.Response) time.Duration {
			wait := retryablehttp.DefaultBackoff(least, most, try, resp)
			return wait + rand.N(wait/2+1) //nolint:gosec // no secret: only not all at once
		},
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		CheckRetry: func(ctx context.Context, resp *http.Response, failure error) (bool, error) {
			if call.upload != nil && call.upload.failure() != nil {
				return false, call.upload.failure()
			}
			again, err := retryablehttp.DefaultRetryPolicy(ctx, resp, failure)
			if !again || err != nil {
				return false, err
			}
			limited = false
			if resp != nil {
				limited = resp.StatusCode == http.StatusTooManyRequests
				if askedFor(resp) > c.options.MaxWait {
					return false, nil
				}
				failure = fmt.Errorf("the server answers %d", resp.StatusCode)
			}
			c.options.Log.Info("the Attic server failed", "call", call, "error", withoutAddress(failure))
			return true, nil
		},
		PrepareRetry: func(*http.Request) error {
			if call.arrived != nil && !limited && call.arrived() {
				return errArrived
			}
			return nil
		},
	}
}

// askedFor is the pause that the server asks for, or 0.
func askedFor(resp *http.Response) time.Duration {
	return retryablehttp.DefaultBackoff(0, 0, 0, resp)
}

// refusal is an answer of the server that says no.
type refusal struct {
	status  int
	kind    string // Attic's name of the error, or empty
	message string
	wait    time.Duration // that the server asks for, or 0
	advice  string
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("the server answers %d", r.status)
	if r.kind != "" {
		text += " " + r.kind
	}
	if r.message != "" {
		text += ": " + r.message
	}
	if r.wait > 0 {
		text += fmt.Sprintf(" (try again in %s)", r.wait)
	}
	if r.advice != "" {
		text = strings.TrimSuffix(text, ".") + ". " + r.advice
	}
	return text
}

func (r *refusal) Unwrap() error {
	if r.status == http.StatusUnauthorized || r.status == http.StatusForbidden {
		return ErrToken
	}
	return nil
}

// Status returns the HTTP status of the server's answer that is the reason of an error, or
// 0 where the server has not answered.
func Status(err error) int {
	var r *refusal
	if errors.As(err, &r) {
		return r.status
	}
	return 0
}

var tag = regexp.MustCompile(`<[^>]*>`)

func (c *Cache) refused(resp *http.Response, data []byte) *refusal {
	r := &refusal{status: resp.StatusCode, wait: askedFor(resp)}
	var said struct{ Error, Message string }
	if json.Unmarshal(data, &said) == nil {
		r.kind, r.message = c.quote(said.Error), c.quote(said.Message)
	} else {
		r.message = c.quote(tag.ReplaceAllLiteralString(string(data), " "))
	}
	r.advice = c.advice(r, resp)
	return r
}

// advice is what a person can do about a refusal.
func (c *Cache) advice(r *refusal, resp *http.Response) string {
	name := c.options.Cache
	switch {
	case errors.Is(r, ErrToken) && *c.token == "":
		return "There was no token: give one that may pull and push"
	case errors.Is(r, ErrToken):
		return fmt.Sprintf("The token may have expired or may not do this: make one with `atticadm make-token --sub ci --validity 1y --pull %[1]s --push %[1]s`", name)
	case r.kind == "NoSuchCache":
		return fmt.Sprintf("Make it with `attic cache create %s`", name)
	case r.status == http.StatusNotFound:
		return "Is the address that of an Attic server?"
	case r.status >= 300 && r.status < 400:
		return fmt.Sprintf("Its address is another now: %s", c.quote(resp.Header.Get("Location")))
	case strings.Contains(r.message, "Bad NAR"):
		return "`nix-store --verify-path` tells whether the path is damaged; a proxy that alters requests is the other possibility"
	case r.status == http.StatusRequestEntityTooLarge:
		return "A proxy before the server takes no requests this large: raise its limit (nginx: client_max_body_size)"
	case r.status == http.StatusTooManyRequests:
		return "Push fewer paths at a time, or allow more at the server or its proxy"
	case r.status >= 500:
		return "The server's log says more"
	}
	return ""
}

// quote returns a text of the server's for an error message: one line of bounded length,
// without the token.
func (c *Cache) quote(said string) string { return text.Message(said, maxMessage, *c.token) }

// withoutAddress takes the address out of an error of net/http: the caller says
// what it was about.
func withoutAddress(err error) error {
	var inURL *url.Error
	if errors.As(err, &inURL) {
		return fmt.Errorf("the server does not answer: %w", inURL.Err)
	}
	return err
}

// patient is a transport that gives up a request which makes no progress: whose
// body is not read any further, or whose answer does not come. It reads the
// answer before it returns.
type patient struct {
	next  http.RoundTripper
	stall time.Duration
}

type stalledError struct{ stall time.Duration }

func (e stalledError) Error() string { return fmt.Sprintf("no progress within %s", e.stall) }

func (p patient) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	defer cancel(nil)
	timer := time.AfterFunc(p.stall, func() { cancel(stalledError{p.stall}) })
	defer timer.Stop()

	body, _ := req.Body.(*narBody)
	if body != nil {
		body.start(ctx, func(more time.Duration) { timer.Reset(p.stall + more) })
		// The transport waits for a Read that is under way before it returns, and
		// may close the body only after that.
		defer context.AfterFunc(ctx, func() { _ = body.Close() })()
		defer body.Close()
	}
	req = req.WithContext(ctx)
	req.GetBody = nil // repetitions are the caller's
	resp, err := p.next.RoundTrip(req)
	if err == nil {
		var data []byte
		data, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		_ = resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(data))
	}
	var stalled stalledError
	switch {
	case err != nil && errors.As(context.Cause(ctx), &stalled):
		return nil, stalled
	case err != nil:
		return nil, err
	}
	return resp, nil
}
