package actions

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/httpcall"
)

const (
	callTimeout  = 30 * time.Second // of one try of a call
	blockTimeout = 5 * time.Minute  // of one try to upload a block
	maxAnswer    = 1 << 20          // bytes
)

// caller sends requests to the service, again where that may help.
type caller struct {
	config       Config
	calls, sends *http.Client
	creations    pace
}

func newCaller(config Config) *caller {
	client := func(timeout time.Duration) *http.Client {
		return &http.Client{Transport: &httpcall.Transport{Next: config.Transport, Stall: timeout, MaxAnswer: maxAnswer}}
	}
	return &caller{config: config, calls: client(callTimeout), sends: client(blockTimeout)}
}

// call is a request to the service.
type call struct {
	httpcall.Call
	name    string // for messages
	creates bool   // an entry, whose number per minute the service limits
}

// upload has a call send a block.
func (c *call) upload(block *io.SectionReader) {
	c.Size = block.Size()
	c.Body = func() (io.Reader, error) { return io.NewSectionReader(block, 0, block.Size()), nil }
}

// ask sends a call and decodes the answer into the given pointer, if the
// answer has a body. An answer other than 2xx is a *refusal.
func (c *caller) ask(ctx context.Context, call call, answer any) error {
	if err := c.send(ctx, call, answer); err != nil {
		return fmt.Errorf("%s: %w", call.name, err)
	}
	return nil
}

func (c *caller) send(ctx context.Context, call call, answer any) error {
	client, outer := c.sends, ctx
	if call.Body == nil {
		client = c.calls
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.config.Timeout)
		defer cancel()
	}
	policy := &httpcall.Policy{
		Retries:  c.config.Retries,
		Pause:    httpcall.Linear(c.config.Wait),
		MaxPause: c.config.Timeout,
		Failed: func(resp *http.Response, err error, pause time.Duration) {
			if call.creates {
				c.creations.limit(resp, pause)
			}
			c.config.Log.Info("the Actions cache service failed", "call", call.name, "error", err)
		},
	}
	if call.creates {
		policy.Prepare = c.creations.wait
		if err := c.creations.wait(ctx); err != nil {
			return err
		}
	}
	call.Header.Set("Authorization", "Bearer "+c.config.Token.reveal())
	err := policy.Ask(ctx, client, call.Call, answer, func(resp *http.Response, data []byte) error {
		refused := c.refused(resp, data)
		if call.creates {
			c.creations.limit(resp, refused.Wait)
		}
		return refused
	})
	if err != nil && outer.Err() == nil && ctx.Err() != nil {
		return fmt.Errorf("no answer within %s", c.config.Timeout)
	}
	return err
}

// refusal is an answer of the service that says no. Its code is twirp's, in v2, or the type of
// the server's exception, in v1.
type refusal struct{ *httpcall.StatusError }

// Unwrap returns the answer, and the error of the contract that it stands for, if any. The
// messages that begin with "cache write denied:" and "cache read denied:" are
// matched like that by the official client.
func (r *refusal) Unwrap() []error {
	all := []error{r.StatusError}
	switch {
	case strings.Contains(r.Message, "cache write denied:"), strings.Contains(r.Message, "cache read denied:"):
		all = append(all, cache.ErrReadOnly)
	case r.Status == http.StatusConflict, strings.Contains(r.Code, "AlreadyExists"):
		all = append(all, cache.ErrExists)
	}
	return all
}

func (c *caller) refused(resp *http.Response, data []byte) *refusal {
	var said struct{ Code, Msg, TypeKey, Message string }
	_ = httpcall.Unmarshal(data, &said) // a proxy's answer is not JSON
	return &refusal{httpcall.NewStatusError(resp, said.Code+said.TypeKey, said.Msg+said.Message, c.config.Token.reveal())}
}

// notOK returns the refusal of an answer of 200 that has ok=false.
func (c *caller) notOK(message string) *refusal {
	return &refusal{&httpcall.StatusError{Status: http.StatusOK, Code: "ok=false", Message: httpcall.Quote(message, c.config.Token.reveal())}}
}
