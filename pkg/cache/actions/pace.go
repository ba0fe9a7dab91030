package actions

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/org/nix-matrix/pkg/httpcall"
)

// pace holds back the creation of entries after the service has refused one as one too
// many: the pause counts for all goroutines.
type pace struct {
	mu    sync.Mutex
	until time.Time
}

// limit delays all creations by the pause after a refused one.
func (p *pace) limit(resp *http.Response, wait time.Duration) {
	if resp == nil || resp.StatusCode != http.StatusTooManyRequests {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := time.Now().Add(wait); until.After(p.until) {
		p.until = until
	}
}

// wait returns when a creation may be tried. If that is later than the context's
// deadline, it returns an error at once.
func (p *pace) wait(ctx context.Context) error {
	for {
		p.mu.Lock()
		left := time.Until(p.until)
		p.mu.Unlock()
		if left <= 0 {
			return ctx.Err()
		}
		if deadline, ok := ctx.Deadline(); ok && left > time.Until(deadline) {
			return fmt.Errorf("the service takes no more entries for now (try again in %s)", left.Round(time.Second))
		}
		if err := httpcall.Sleep(ctx, left); err != nil {
			return err
		}
	}
}
