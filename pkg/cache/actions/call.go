package actions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/text"
)

const (
	callTimeout  = 30 * time.Second // of one try of a call
	blockTimeout = 5 * time.Minute  // of one try to upload a block
	maxAnswer    = 1 << 20          // bytes
	maxMessage   = 300              // bytes
)

// caller sends requests to the service, again where that may help.
type caller struct {
	config       Config
	calls, sends *http.Client
	creations    pace
}

func newCaller(config Config) *caller {
	return &caller{
		config: config,
		calls:  &http.Client{Transport: config.Transport, Timeout: callTimeout},
		sends:  &http.Client{Transport: config.Transport, Timeout: blockTimeout},
	}
}

func (c *caller) retrying(client *http.Client, call call) *retryablehttp.Client {
	r := &retryablehttp.Client{
		HTTPClient:   client,
		RetryMax:     c.config.Retries,
		RetryWaitMin: c.config.Wait,
		RetryWaitMax: 2 * c.config.Wait,
		Backoff:      backoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		CheckRetry: func(ctx context.Context, resp *http.Response, failure error) (bool, error) {
			again, err := retryablehttp.DefaultRetryPolicy(ctx, resp, failure)
			if !again || err != nil {
				return false, err
			}
			// Not if the service wants a longer pause than there is time for.
			wait, asked := retryAfter(resp)
			if call.creates {
				c.creations.hear(resp, wait)
			}
			if deadline, ok := ctx.Deadline(); asked && (wait > c.config.Patience || ok && wait > time.Until(deadline)) {
				return false, nil
			}
			if resp != nil {
				failure = &refusal{status: resp.StatusCode, wait: wait}
			}
			c.config.Log.Info("the Actions cache service failed", "call", call.name, "error", withoutAddress(failure))
			return true, nil
		},
	}
	if call.creates {
		r.Backoff = func(least, most time.Duration, attempt int, resp *http.Response) time.Duration {
			wait := backoff(least, most, attempt, resp)
			c.creations.hear(resp, wait)
			return wait
		}
		r.PrepareRetry = func(req *http.Request) error { return c.creations.wait(req.Context()) }
	}
	return r
}

// call is one question to the service.
type call struct {
	name    string // for messages
	method  string
	address string // a secret
	header  http.Header
	json    any               // the body,
	block   *io.SectionReader // or else
	creates bool              // an entry, of which the service takes so many a minute
}

// ask sends a call and decodes the answer into the given pointer, if the
// answer has a body. An answer other than 2xx is a *refusal.
func (c *caller) ask(ctx context.Context, call call, answer any) error {
	status, data, err := c.send(ctx, call)
	if err != nil {
		return fmt.Errorf("%s: %w", call.name, err)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if len(data) == 0 || answer == nil {
		return nil
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("%s: the service answers %d with what is no JSON", call.name, status)
	}
	return nil
}

func (c *caller) send(ctx context.Context, call call) (status int, data []byte, err error) {
	client, outer := c.sends, ctx
	var body any = retryablehttp.ReaderFunc(func() (io.Reader, error) {
		return io.NewSectionReader(call.block, 0, call.block.Size()), nil
	})
	if call.block == nil {
		client, body = c.calls, nil
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.config.Patience)
		defer cancel()
		if call.json != nil {
			if body, err = json.Marshal(call.json); err != nil {
				return 0, nil, err
			}
		}
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, call.method, call.address, body)
	if err != nil {
		return 0, nil, withoutAddress(err)
	}
	if call.block != nil {
		req.ContentLength = call.block.Size()
	}
	for name, values := range call.header {
		req.Header[name] = values
	}
	req.Header.Set("Authorization", "Bearer "+c.config.Token.reveal())
	req.Header.Set("User-Agent", "nix-matrix")
	if call.json != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if call.creates {
		if err := c.creations.wait(ctx); err != nil {
			return 0, nil, err
		}
	}
	// An answer that breaks off is one more reason to try again.
	read := false
	req.SetResponseHandler(func(resp *http.Response) (err error) {
		data, err = readAnswer(resp)
		read = err == nil
		return err
	})
	resp, err := c.retrying(client, call).Do(req)
	if err == nil && !read {
		data, err = readAnswer(resp)
	}
	switch {
	case err != nil && outer.Err() == nil && ctx.Err() != nil:
		return 0, nil, fmt.Errorf("no answer within %s", c.config.Patience)
	case err != nil:
		return 0, nil, withoutAddress(err)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return 0, nil, c.refused(resp, data)
	}
	return resp.StatusCode, data, nil
}

func readAnswer(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
}

// refusal is an answer of the service that says no.
type refusal struct {
	status  int
	code    string // twirp's, in v2, or the type of the server's exception, in v1
	message string
	wait    time.Duration // that the service asks for, or 0
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("the service answers %d", r.status)
	if r.code != "" {
		text += " " + r.code
	}
	if r.message != "" {
		text += ": " + r.message
	}
	if r.wait > 0 {
		text += fmt.Sprintf(" (try again in %s)", r.wait)
	}
	return text
}

// Unwrap is the meaning that a refusal has in the contract, if any. The
// messages that begin with "cache write denied:" and "cache read denied:" are
// matched like that by the official client.
func (r *refusal) Unwrap() error {
	switch {
	case strings.Contains(r.message, "cache write denied:"), strings.Contains(r.message, "cache read denied:"):
		return cache.ErrReadOnly
	case r.status == http.StatusConflict, strings.Contains(r.code, "AlreadyExists"):
		return cache.ErrExists
	}
	return nil
}

func (c *caller) refused(resp *http.Response, data []byte) *refusal {
	r := &refusal{status: resp.StatusCode}
	r.wait, _ = retryAfter(resp)
	var said struct{ Code, Msg, TypeKey, Message string }
	if json.Unmarshal(bytes.TrimPrefix(data, []byte("\ufeff")), &said) == nil {
		r.code = c.quote(said.Code + said.TypeKey)
		r.message = c.quote(said.Msg + said.Message)
	}
	return r
}

// quote returns a text of the service's for an error message: one line of bounded length,
// without the token.
func (c *caller) quote(said string) string {
	return text.Message(said, maxMessage, c.config.Token.reveal())
}

// withoutAddress takes addresses out of an error of net/http or the Azure SDK,
// since their query or path is a secret.
func withoutAddress(err error) error {
	var inURL *url.Error
	var fromAzure *azcore.ResponseError
	switch {
	case errors.As(err, &inURL):
		return withoutAddress(inURL.Err)
	case errors.Is(err, io.EOF):
		// The connection was closed before the answer; nobody shall take it for
		// the end of what is read.
		return io.ErrUnexpectedEOF
	case errors.As(err, &fromAzure):
		return fmt.Errorf("the blob storage answers %d %s", fromAzure.StatusCode, fromAzure.ErrorCode)
	}
	return err
}

// backoff is how long to wait after the failed try number attempt, counted
// from 0: as long as the response asks for, else between least and most times
// the number of tries.
func backoff(least, most time.Duration, attempt int, resp *http.Response) time.Duration {
	if wait, ok := retryAfter(resp); ok {
		return wait
	}
	return retryablehttp.LinearJitterBackoff(least, most, attempt, nil)
}

// retryAfter is what the header Retry-After asks for: seconds, or a date.
func retryAfter(resp *http.Response) (time.Duration, bool) {
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

func pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
