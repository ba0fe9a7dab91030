package niks3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/httpcall"
)

// maxAnswer is how large an answer may be, in bytes: an address of about 700 for each object and part.
const maxAnswer = 64 << 20

// call is a request to the server.
type call struct {
	method string
	name   string // of the endpoint
	query  url.Values
	json   any  // the body
	open   bool // it needs no token
}

func newClient(o Options) *http.Client {
	return &http.Client{
		Transport:     &httpcall.Transport{Next: o.Transport, Stall: o.Stall, MaxAnswer: maxAnswer},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (c *Cache) policy() *httpcall.Policy {
	return &httpcall.Policy{
		Retries: c.options.Retries, Pause: httpcall.Exponential(c.options.Wait, c.options.MaxWait), Spread: true, MaxPause: c.options.MaxWait,
	}
}

// ask sends a call and decodes the answer into the given pointer. An answer other than 2xx is a *refusal.
func (c *Cache) ask(ctx context.Context, call call, answer any) error {
	address := c.server.JoinPath(call.name)
	address.RawQuery = call.query.Encode()
	request := httpcall.Call{Method: call.method, Address: address.String(), Header: http.Header{}, JSON: call.json}
	token, err := c.token(ctx, call)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	err = c.policy().Ask(ctx, c.client, request, answer, func(resp *http.Response, data []byte) error {
		return &refusal{httpcall.NewStatusError(resp, "", tag().ReplaceAllLiteralString(string(data), " "), token)}
	})
	if errors.Is(err, httpcall.ErrNotJSON) {
		return fmt.Errorf("%w: is the address that of a niks3 server?", err)
	}
	return err
}

// tag is one of HTML, which a proxy answers.
var tag = lazyregexp.New(`<[^>]*>`)

// token returns the token for a call, which is empty if the call needs none.
func (c *Cache) token(ctx context.Context, call call) (string, error) {
	if call.open {
		return "", nil
	}
	audience, err := c.Audience()
	if err != nil {
		return "", err
	}
	return c.options.Token(ctx, audience)
}

// has reports whether the cache has an object.
func (c *Cache) has(ctx context.Context, key string) bool {
	return c.ask(ctx, call{method: http.MethodHead, name: "api/objects/" + key}, nil) == nil
}

// refusal is an answer of the server that says no.
type refusal struct{ *httpcall.StatusError }

func (r *refusal) Error() string {
	text := strings.TrimSuffix(r.StatusError.Error(), ".")
	switch {
	case r.Status == http.StatusUnauthorized:
		return text + ". Let the server's OIDC configuration (bound_claims, bound_subject) accept this repository and ref"
	case r.Status == http.StatusForbidden:
		return text + ". Let the server's OIDC configuration grant the scope write"
	case r.Status == http.StatusNotFound:
		return text + ". Is the address that of a niks3 server?"
	case r.Status >= 500:
		return text + ". The server's log says more"
	}
	return text
}

// Status returns the HTTP status of the server's answer that is the reason of an error, or 0 where the
// server has not answered. What the storage answers does not count.
func Status(err error) int {
	var r *refusal
	if errors.As(err, &r) {
		return r.Status
	}
	return 0
}

// storageError is an answer of the storage to an upload.
type storageError struct {
	*httpcall.StatusError
	host string
}

func (e *storageError) Error() string {
	return "the storage at " + e.host + ": " + e.StatusError.Error()
}

// put uploads an object, or a part of one, to a presigned address, and returns its ETag.
func (c *Cache) put(ctx context.Context, address string, header http.Header, body []byte) (etag string, err error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		return "", errors.New("the server names an address for an upload that is none") // which is a secret
	case c.server.Scheme == "https" && u.Scheme != "https":
		return "", fmt.Errorf("the server names an address at %s for an upload that is not https", u.Host)
	}
	request, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPut, address, body)
	if err != nil {
		return "", httpcall.WithoutAddress(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	request.Header.Set("User-Agent", httpcall.UserAgent)
	resp, err := c.policy().Do(c.client, request)
	if err != nil {
		return "", fmt.Errorf("the storage at %s: %w", u.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // or it says nothing
		var said struct{ Code, Message string }
		_ = xml.Unmarshal(data, &said)
		return "", &storageError{httpcall.NewStatusError(resp, said.Code, said.Message, ""), u.Host}
	}
	return strings.Trim(resp.Header.Get("ETag"), `"`), nil
}

// gone reports whether an error says that an upload is not known.
func gone(err error) bool {
	var stored *storageError
	return Status(err) == http.StatusNotFound || errors.As(err, &stored) && stored.Status == http.StatusNotFound
}

// untilFree repeats a call while another client uploads one of its objects.
func (c *Cache) untilFree(ctx context.Context, ask func() error) error {
	pause := httpcall.Exponential(c.options.Wait, max(c.options.MaxWait/2, c.options.Wait))
	var waited time.Duration
	for try := 0; ; try++ {
		err := ask()
		if Status(err) != http.StatusConflict || waited >= c.options.Busy {
			return err
		}
		var r *refusal
		wait := pause(try)
		if errors.As(err, &r) && r.Wait > 0 {
			wait = min(r.Wait, c.options.MaxWait)
		}
		waited += wait
		if err := httpcall.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}
