package storecache

import (
	"context"
	"math"
	"os"
	"sync"

	"github.com/org/nix-matrix/pkg/pack"
)

// A growing is a pack that is written to a file.
type growing struct {
	*os.File
	mu      sync.Mutex
	changed chan struct{} // closed when the following change
	size    int64
	summary *pack.Summary // once it is complete
	err     error         // why it will never be
}

// newGrowing returns a pack in a file of [tempFile].
func newGrowing() (*growing, error) {
	f, err := tempFile()
	if err != nil {
		return nil, err
	}
	return &growing{File: f, changed: make(chan struct{})}, nil
}

// Write appends to the file.
func (g *growing) Write(p []byte) (int, error) {
	n, err := g.File.Write(p)
	g.change(func() { g.size += int64(n) })
	return n, err
}

func (g *growing) change(by func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	by()
	close(g.changed)
	g.changed = make(chan struct{})
}

// finish says that all of the pack is written, or why it never will be.
func (g *growing) finish(summary *pack.Summary, err error) {
	g.change(func() { g.summary, g.err = summary, err })
}

// Grown is of [cache.Growing].
func (g *growing) Grown(ctx context.Context, least int64) (size int64, complete bool, err error) {
	for {
		g.mu.Lock()
		size, summary, err, changed := g.size, g.summary, g.err, g.changed
		g.mu.Unlock()
		if err != nil || summary != nil || size >= least {
			return size, summary != nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return size, false, context.Cause(ctx)
		}
	}
}

// whole waits until the pack is complete.
func (g *growing) whole(ctx context.Context) (*pack.Summary, error) {
	_, _, err := g.Grown(ctx, math.MaxInt64)
	return g.summary, err
}
