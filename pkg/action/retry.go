package action

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/nix-matrix/pkg/httpcall"
)

const (
	requestTimeout = 30 * time.Second // of one try
	maxAnswer      = 32 << 20         // bytes
)

// retrying sends requests again where that may help, and waits for as long as GitHub
// asks if there were too many:
// https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
type retrying struct {
	config GitHubConfig
	client *http.Client
	budget atomic.Int64 // 1 more than the requests that were left of the rate limit; 0 is unknown
}

// remaining returns how many requests the rate limit had left after the last one. known is false
// where there is no limit, as on an Enterprise Server.
func (t *retrying) remaining() (n int64, known bool) {
	n = t.budget.Load() - 1
	return n, n >= 0
}

func newRetrying(c GitHubConfig) *retrying {
	return &retrying{config: c, client: &http.Client{Transport: &httpcall.Transport{
		Next: http.DefaultTransport, Stall: requestTimeout, MaxAnswer: maxAnswer,
	}}}
}

func (t *retrying) RoundTrip(req *http.Request) (*http.Response, error) {
	retryable, err := retryablehttp.FromRequest(req)
	if err != nil {
		return nil, err
	}
	policy := &httpcall.Policy{
		Retries:  t.config.Retries,
		Pause:    httpcall.Linear(t.config.Wait),
		MaxPause: t.config.MaxWait,
		// A request that makes something new may have done so though no answer says it.
		Once:    req.Method == http.MethodPost,
		Limited: t.limited,
		Failed: func(resp *http.Response, _ error, pause time.Duration) {
			if resp != nil && resp.StatusCode < http.StatusInternalServerError {
				t.config.Log("GitHub takes no requests for %v", pause.Round(time.Second))
			}
		},
	}
	resp, err := policy.Do(t.client, retryable)
	if err != nil {
		if resp != nil {
			_ = resp.Body.Close()
		}
		return nil, err
	}
	if resp.StatusCode < http.StatusBadRequest {
		if n, err := strconv.ParseUint(resp.Header.Get("X-RateLimit-Remaining"), 10, 31); err == nil {
			t.budget.Store(int64(n) + 1)
		}
		// The client library would remember the budget and refuse requests by itself, where
		// this transport waits.
		resp.Header.Del("X-RateLimit-Remaining")
		resp.Header.Del("X-RateLimit-Reset")
	}
	return resp, err
}

// limited returns the pause that GitHub asks for in an answer, and whether the request was one
// too many.
func (t *retrying) limited(resp *http.Response, try int) (time.Duration, bool) {
	if resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusTooManyRequests {
		return 0, false
	}
	if pause, ok := httpcall.RetryAfter(resp); ok {
		return pause, true
	}
	if reset, err := strconv.ParseInt(resp.Header.Get("X-RateLimit-Reset"), 10, 64); err == nil && resp.Header.Get("X-RateLimit-Remaining") == "0" {
		return max(0, time.Until(time.Unix(reset+1, 0))), true
	}
	if resp.StatusCode == http.StatusForbidden && !secondary(resp) {
		return 0, false // forbidden for another reason
	}
	return t.config.LimitedWait << try, true
}

// secondary reports whether a refusal is of the kind that comes without a header.
func secondary(resp *http.Response) bool {
	body, err := httpcall.Peek(resp)
	var said struct {
		Message string
		URL     string `json:"documentation_url"`
	}
	return err == nil && json.Unmarshal(body, &said) == nil &&
		(strings.Contains(said.Message, "secondary rate limit") || strings.Contains(said.URL, "secondary-rate-limits") || strings.Contains(said.URL, "abuse-rate-limits"))
}
