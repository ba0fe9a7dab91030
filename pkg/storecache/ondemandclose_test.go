package storecache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
)

// The frames are there until the last prefetch has ended.
func TestCloseDuringPrefetch(t *testing.T) {
	c := open(t)
	s, packs := many(t, c)
	ctx, stop := context.WithCancel(t.Context())
	asked := make(chan struct{})
	var once sync.Once
	var d *OnDemand
	early := false
	ready := make(chan struct{})
	d, err := NewOnDemand(ctx, OnDemandOptions{Cache: c, Index: stored(t, c, NewIndex(packs...)), Present: func(string) bool {
		once.Do(func() {
			close(asked)
			<-ready
			<-d.ctx.Done()
			for range 1000 { // turns for Close to go too far
				runtime.Gosched()
				if _, err := d.frames.file.Stat(); err != nil {
					early = true
				}
			}
		})
		return false
	}})
	must(t, err)
	close(ready)
	d.Prefetch(hashOf(s.list[30].Path))
	<-asked
	stop()
	d.Close()
	if early {
		t.Error("the frames were closed before the prefetch had ended")
	}
}

// Many requests at once are answered while closures are prefetched, and until the end.
func TestManyRequests(t *testing.T) {
	c := open(t)
	s, packs := many(t, c)
	d, err := NewOnDemand(t.Context(), OnDemandOptions{Cache: c, Index: stored(t, c, NewIndex(packs...)), Present: func(string) bool { return false }})
	must(t, err)
	var g errgroup.Group
	g.SetLimit(64)
	for n := range 10_000 {
		g.Go(func() error {
			if n%4 == 0 {
				if _, err := d.Find(t.Context(), hashOf(pathOf("nothing"))); !errors.Is(err, ErrAbsent) {
					return fmt.Errorf("a path that is not there: %w", err)
				}
				return nil
			}
			want := s.list[n%len(s.list)]
			info, err := d.Find(t.Context(), hashOf(want.Path))
			if err != nil || info.NarHash != want.NarHash {
				return fmt.Errorf("%s: %v, %w", want.Path, info, err)
			}
			d.Prefetch(hashOf(want.Path))
			return nil
		})
	}
	must(t, g.Wait())
	d.Close()
}
