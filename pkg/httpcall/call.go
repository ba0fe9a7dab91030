package httpcall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/nix-matrix/pkg/text"
)

// UserAgent is the name that all requests carry.
const UserAgent = "nix-matrix"

// ErrNotJSON says that an answer of 2xx is not JSON of the form that was expected: it is
// another server's.
var ErrNotJSON = errors.New("something other than the expected JSON")

// A Call is a request whose answer is JSON.
type Call struct {
	Method  string
	Address string // may be a secret
	Header  http.Header
	JSON    any                       // the body,
	Body    func() (io.Reader, error) // or else, called for each try
	Size    int64                     // of Body, in bytes
}

// Ask sends a call and decodes the answer into the given pointer, unless that is nil or the
// answer has no body. refused makes the error of an answer other than 2xx.
func (p *Policy) Ask(ctx context.Context, client *http.Client, call Call, answer any, refused func(*http.Response, []byte) error) error {
	req, err := call.request(ctx)
	if err != nil {
		return WithoutAddress(err)
	}
	resp, err := p.Do(client, req)
	if err != nil {
		return err
	}
	data, err := Peek(resp)
	switch {
	case err != nil:
		return err
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return refused(resp, data)
	case len(trimMark(data)) == 0 || answer == nil:
		return nil
	}
	if Unmarshal(data, answer) != nil {
		return fmt.Errorf("the server answers %d with %w", resp.StatusCode, ErrNotJSON)
	}
	return nil
}

func (c *Call) request(ctx context.Context) (*retryablehttp.Request, error) {
	var body any
	switch {
	case c.Body != nil:
		body = retryablehttp.ReaderFunc(c.Body)
	case c.JSON != nil:
		data, err := json.Marshal(c.JSON)
		if err != nil {
			return nil, err
		}
		body = data
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, c.Method, c.Address, body)
	if err != nil {
		return nil, err
	}
	for name, values := range c.Header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", UserAgent)
	if c.JSON != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Body != nil {
		req.ContentLength = c.Size
	}
	return req, nil
}

// Unmarshal decodes the JSON of an answer, before which there may be a byte order mark.
func Unmarshal(data []byte, answer any) error { return json.Unmarshal(trimMark(data), answer) }

func trimMark(data []byte) []byte { return bytes.TrimPrefix(data, []byte("\ufeff")) }

// Peek returns the body of an answer, which can then be read again.
func Peek(resp *http.Response) ([]byte, error) {
	data, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(data))
	return data, err
}

// A StatusError is an answer of a server that says no.
type StatusError struct {
	Status  int
	Code    string        // the server's name of the error, or empty
	Message string        // empty if the server says no more
	Wait    time.Duration // that the server asks for, or 0
}

// NewStatusError returns the error of an answer with the code and the message that the server
// gives, both without the secret.
func NewStatusError(resp *http.Response, code, message, secret string) *StatusError {
	wait, _ := RetryAfter(resp)
	return &StatusError{Status: resp.StatusCode, Code: Quote(code, secret), Message: Quote(message, secret), Wait: wait}
}

func (r *StatusError) Error() string {
	text := fmt.Sprintf("the server answers %d", r.Status)
	if r.Code != "" {
		text += " " + r.Code
	}
	if r.Message != "" {
		text += ": " + r.Message
	}
	if r.Wait > 0 {
		text += fmt.Sprintf(" (try again in %s)", r.Wait)
	}
	return text
}

// Quote returns a text of a server for a message: one line of bounded length, without the
// secret.
func Quote(said, secret string) string {
	const longest = 300 // bytes
	return text.Message(said, longest, secret)
}

// noAnswer returns an error without an address, which says so if it is a client's.
func noAnswer(err error) error {
	var inURL *url.Error
	if errors.As(err, &inURL) {
		return fmt.Errorf("the server does not answer: %w", WithoutAddress(err))
	}
	return err
}

// WithoutAddress returns an error of net/http without the address of the request. Of a
// connection that was closed before the answer, it is io.ErrUnexpectedEOF, because io.EOF
// would be taken for the end of a body.
func WithoutAddress(err error) error {
	var inURL *url.Error
	switch {
	case errors.As(err, &inURL):
		return WithoutAddress(inURL.Err)
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}
