package actions

import (
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/org/nix-matrix/pkg/httpcall"
)

// uploadStalls ends a try to upload whose body is not read for a time, and which gets no
// answer. The next try gets a connection of its own.
type uploadStalls struct {
	after     time.Duration
	sends     *http.Client
	afterFunc httpcall.AfterFunc
}

func (s *uploadStalls) Do(req *policy.Request) (*http.Response, error) {
	ctx, watchdog := httpcall.Watch(req.Raw().Context(), s.after, s.afterFunc)
	defer watchdog.Close() // the SDK has read the answer by then
	req = req.WithContext(ctx)
	watchdog.Feed(req.Raw())
	resp, err := req.Next()
	if err != nil {
		s.sends.CloseIdleConnections()
		err = watchdog.Cause(err)
	}
	return resp, err
}
