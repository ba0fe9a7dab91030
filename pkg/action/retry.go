package action

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	requestTimeout = 30 * time.Second // of one try
	maxAnswer      = 32 << 20         // bytes
)

// retrying sends requests again where that may help, and waits for as long as GitHub
// wants where there were too many:
// https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
type retrying struct {
	config GitHubConfig
	client *http.Client
}

func newRetrying(c GitHubConfig) *retrying {
	return &retrying{config: c, client: &http.Client{Timeout: requestTimeout}}
}

func (t *retrying) RoundTrip(req *http.Request) (*http.Response, error) {
	// What makes something new may have done so though no answer says it. A request
	// that was one too many has done nothing.
	harmless := req.Method != http.MethodPost
	var wait time.Duration // that GitHub wants, after the try before
	var limited bool
	tries := 0
	client := &retryablehttp.Client{
		HTTPClient:   t.client,
		RetryMax:     t.config.Retries,
		RetryWaitMin: t.config.Wait,
		RetryWaitMax: 2 * t.config.Wait,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		CheckRetry: func(ctx context.Context, resp *http.Response, failure error) (bool, error) {
			if wait, limited = t.limited(resp, tries); limited && failure == nil && ctx.Err() == nil {
				end, ends := ctx.Deadline()
				return wait <= t.config.Patience && (!ends || wait < time.Until(end)), nil
			}
			again, err := retryablehttp.DefaultRetryPolicy(ctx, resp, failure)
			return again && harmless, err
		},
		Backoff: func(least, most time.Duration, attempt int, _ *http.Response) time.Duration {
			tries = attempt + 1
			if !limited {
				return retryablehttp.LinearJitterBackoff(least, most, attempt, nil)
			}
			t.config.Log("GitHub wants no requests for %v", wait.Round(time.Second))
			return wait
		},
	}
	retryable, err := retryablehttp.FromRequest(req)
	if err != nil {
		return nil, err
	}
	// An answer that breaks off is one more reason to try again.
	retryable.SetResponseHandler(func(resp *http.Response) error {
		_, err := peek(resp)
		return err
	})
	resp, err := client.Do(retryable)
	if err == nil && resp.StatusCode < http.StatusBadRequest {
		// The client library would remember the budget and refuse requests by itself, where
		// this transport waits.
		resp.Header.Del("X-RateLimit-Remaining")
		resp.Header.Del("X-RateLimit-Reset")
	}
	return resp, err
}

// limited says whether a request was one too many, and how long GitHub then wants
// to be left alone. tries are those before.
func (t *retrying) limited(resp *http.Response, tries int) (time.Duration, bool) {
	if resp == nil || resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusTooManyRequests {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if reset, err := strconv.ParseInt(resp.Header.Get("X-RateLimit-Reset"), 10, 64); err == nil && resp.Header.Get("X-RateLimit-Remaining") == "0" {
		return max(0, time.Until(time.Unix(reset+1, 0))), true
	}
	if resp.StatusCode == http.StatusForbidden && !secondary(resp) {
		return 0, false // it is just forbidden
	}
	return t.config.LimitedWait << tries, true
}

// secondary says whether a refusal is of the kind that comes without a header.
func secondary(resp *http.Response) bool {
	body, err := peek(resp)
	var said struct {
		Message string
		URL     string `json:"documentation_url"`
	}
	return err == nil && json.Unmarshal(body, &said) == nil &&
		(strings.Contains(said.Message, "secondary rate limit") || strings.Contains(said.URL, "secondary-rate-limits") || strings.Contains(said.URL, "abuse-rate-limits"))
}

// peek reads a body, which can then be read again.
func peek(resp *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return body, err
}
