package actions

import (
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/org/nix-matrix/pkg/httpcall"
)

// uploadStalls ends one try to upload when for that long nothing was taken of
// its body and no answer came. The next one gets a connection of its own.
type uploadStalls struct {
	after     time.Duration
	sends     *http.Client
	afterFunc httpcall.AfterFunc
}

func (s *uploadStalls) Do(req *policy.Request) (*http.Response, error) {
	ctx, watchdog := httpcall.Watch(req.Raw().Context(), s.after, s.afterFunc)
	defer watchdog.Close() // an answer to an upload was read by now
	req = req.WithContext(ctx)
	watchdog.Feed(req.Raw())
	resp, err := req.Next()
	if err != nil {
		s.sends.CloseIdleConnections()
		err = watchdog.Cause(err)
	}
	return resp, err
}
