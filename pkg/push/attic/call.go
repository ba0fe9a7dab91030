package attic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/pkg/httpcall"
)

const maxAnswer = 1 << 20 // bytes

// ErrToken says that the token does not permit the request.
var ErrToken = errors.New("the token is not accepted")

// call is a request to the server.
type call struct {
	method  string
	name    string // below _api/v1/
	header  http.Header
	json    any     // the body,
	upload  *upload // or else
	retries int
	// arrived, if set, reports before a retry whether the last upload arrived although its
	// answer did not.
	arrived func() bool
}

// String is for logs.
func (c call) String() string {
	if c.upload != nil {
		return c.name + " of " + c.upload.path.StorePath
	}
	return c.name
}

// errArrived ends the retries of a call.
var errArrived = errors.New("it has arrived")

// ask sends a call and decodes the answer into the given pointer. An answer other
// than 2xx is a *refusal.
func (c *Cache) ask(ctx context.Context, call call, answer any) error {
	request := httpcall.Call{
		Method: call.method, Address: c.api.JoinPath("_api/v1", call.name).String(), Header: call.header.Clone(), JSON: call.json,
	}
	if request.Header == nil {
		request.Header = http.Header{}
	}
	if *c.token != "" {
		request.Header.Set("Authorization", "bearer "+*c.token)
	}
	if call.upload != nil {
		request.Body, request.Size = call.upload.again, call.upload.length()
	}
	err := c.policy(call).Ask(ctx, c.client, request, answer, c.refused)
	if errors.Is(err, httpcall.ErrNotJSON) {
		return fmt.Errorf("%w: is the address that of an Attic server?", err)
	}
	return err
}

func newClient(o Options) *http.Client {
	return &http.Client{
		Transport:     &httpcall.Transport{Next: o.Transport, Stall: o.Stall, MaxAnswer: maxAnswer},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (c *Cache) policy(call call) *httpcall.Policy {
	limited := false
	p := &httpcall.Policy{
		Retries:  call.retries,
		Pause:    httpcall.Exponential(c.options.Wait, c.options.MaxWait),
		Spread:   true,
		MaxPause: c.options.MaxWait,
		Failed: func(resp *http.Response, err error, _ time.Duration) {
			limited = resp != nil && resp.StatusCode == http.StatusTooManyRequests
			c.options.Log.Info("the Attic server failed", "call", call, "error", err)
		},
		Prepare: func(context.Context) error {
			if call.arrived != nil && !limited && call.arrived() {
				return errArrived
			}
			return nil
		},
	}
	if call.upload != nil {
		p.Final = call.upload.failure
	}
	return p
}

// refusal is an answer of the server that says no.
type refusal struct {
	*httpcall.StatusError // whose code is Attic's name of the error
	advice                string
}

func (r *refusal) Error() string {
	text := r.StatusError.Error()
	if r.advice != "" {
		text = strings.TrimSuffix(text, ".") + ". " + r.advice
	}
	return text
}

func (r *refusal) Unwrap() error {
	if r.Status == http.StatusUnauthorized || r.Status == http.StatusForbidden {
		return ErrToken
	}
	return nil
}

// Status returns the HTTP status of the server's answer that is the reason of an error, or
// 0 where the server has not answered.
func Status(err error) int {
	var r *refusal
	if errors.As(err, &r) {
		return r.Status
	}
	return 0
}

var tag = lazyregexp.New(`<[^>]*>`)

func (c *Cache) refused(resp *http.Response, data []byte) error {
	var said struct{ Error, Message string }
	if httpcall.Unmarshal(data, &said) != nil {
		said.Message = tag().ReplaceAllLiteralString(string(data), " ")
	}
	r := &refusal{StatusError: httpcall.NewStatusError(resp, said.Error, said.Message, *c.token)}
	r.advice = c.advice(r, resp)
	return r
}

// advice returns what a person can do about a refusal.
func (c *Cache) advice(r *refusal, resp *http.Response) string {
	name := c.options.Cache
	switch {
	case errors.Is(r, ErrToken) && *c.token == "":
		return "There was no token. Set one that may pull and push"
	case errors.Is(r, ErrToken):
		return fmt.Sprintf("The token may have expired or may not do this: make one with `atticadm make-token --sub ci --validity 1y --pull %[1]s --push %[1]s`", name)
	case r.Code == "NoSuchCache":
		return fmt.Sprintf("Make it with `attic cache create %s`", name)
	case r.Status == http.StatusNotFound:
		return "Is the address that of an Attic server?"
	case r.Status >= 300 && r.Status < 400:
		return fmt.Sprintf("It has another address now: %s", httpcall.Quote(resp.Header.Get("Location"), *c.token))
	case strings.Contains(r.Message, "Bad NAR"):
		return "Run `nix-store --verify-path` to see whether the path is damaged; else a proxy alters requests"
	case r.Status == http.StatusRequestEntityTooLarge:
		return "A proxy before the server takes no requests this large: raise its limit (nginx: client_max_body_size)"
	case r.Status == http.StatusTooManyRequests:
		return "Push fewer paths at a time, or allow more at the server or its proxy"
	case r.Status >= 500:
		return "The server's log says more"
	}
	return ""
}
