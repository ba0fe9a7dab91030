package actions

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// A watchdog calls a function unless it is reset or stopped in time.
type watchdog interface {
	Reset(d time.Duration) bool
	Stop() bool
}

// uploadStalls ends one try to upload when for that long nothing was taken of
// its body and no answer came. The next one gets a connection of its own.
type uploadStalls struct {
	after     time.Duration
	sends     *http.Client
	afterFunc func(time.Duration, func()) watchdog
}

func (s *uploadStalls) Do(req *policy.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Raw().Context())
	defer cancel(nil) // an answer to an upload was read by now
	watchdog := s.afterFunc(s.after, func() { cancel(errStalled) })
	defer watchdog.Stop()
	req = req.WithContext(ctx)
	raw := req.Raw()
	if raw.Body != nil {
		raw.Body = &fed{raw.Body, watchdog, s.after}
	}
	if again := raw.GetBody; again != nil {
		raw.GetBody = func() (io.ReadCloser, error) {
			body, err := again()
			return &fed{body, watchdog, s.after}, err
		}
	}
	resp, err := req.Next()
	if err != nil {
		s.sends.CloseIdleConnections()
		if errors.Is(context.Cause(ctx), errStalled) {
			err = errStalled
		}
	}
	return resp, err
}

// fed is a body that keeps a watchdog quiet while it is read.
type fed struct {
	io.ReadCloser
	watchdog watchdog
	after    time.Duration
}

func (f *fed) Read(p []byte) (int, error) {
	f.watchdog.Reset(f.after)
	return f.ReadCloser.Read(p)
}
