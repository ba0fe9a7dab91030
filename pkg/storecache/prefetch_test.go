package storecache

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/org/nix-matrix/pkg/cache"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
)

// watched is a cache that says when a frame of a pack is read first.
type watched struct {
	cache.Cache
	read func()
}

func (w watched) Open(ctx context.Context, key string, prefixes ...string) (cache.Blob, error) {
	blob, err := w.Cache.Open(ctx, key, prefixes...)
	return watchedBlob{blob, w.read}, err
}

type watchedBlob struct {
	cache.Blob
	read func()
}

func (b watchedBlob) Range(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	if offset < b.Size()/2 { // the tables are at the end
		b.read()
	}
	return b.Blob.Range(ctx, offset, length)
}

// An engine may take its time to begin: frames are read meanwhile.
func TestReadsWhileTheEngineBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		s, packs := many(t, c)
		reading := make(chan struct{})
		from := watched{c, sync.OnceFunc(func() { close(reading) })}
		m := newMemory()
		e := m.engine()
		e.Begin = func(context.Context, []nix.PathInfo) (engine.Sink, error) {
			<-reading // or all goroutines wait, which ends the test
			return m, nil
		}
		ix := stored(t, from, NewIndex(packs...))
		r := &Restorer{Nix: m, Engine: e, Cache: from, Index: ix}
		if got, err := r.Restore(t.Context(), pathsOf(t, ix)...); err != nil || got.Paths != len(s.list) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// An engine that cannot begin ends the reads, also those that wait for room.
func TestEngineCannotBegin(t *testing.T) {
	before := framesBudget
	t.Cleanup(func() { framesBudget = before })
	framesBudget.fetched = 1
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		_, packs := many(t, c)
		m := newMemory()
		e := m.engine()
		e.Begin = func(context.Context, []nix.PathInfo) (engine.Sink, error) { return nil, io.ErrNoProgress }
		ix := stored(t, c, NewIndex(packs...))
		r := &Restorer{Nix: m, Engine: e, Cache: c, Index: ix}
		if got, err := r.Restore(context.WithoutCancel(t.Context()), pathsOf(t, ix)...); err == nil || got.Paths != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	}) // which fails if a goroutine is left
}
