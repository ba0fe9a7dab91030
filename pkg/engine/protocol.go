package engine

import (
	"context"
	"errors"
	"io"
	"runtime"

	"github.com/org/nix-matrix/pkg/nix"
)

// Protocol returns the engine that speaks Nix's own protocol: it keeps signatures and
// content addresses, only Nix writes to the store, and memory is bounded. A store that does
// not trust this user refuses paths with neither a signature by a trusted key nor a content
// address.
func Protocol(n *nix.Nix) Engine {
	parallel := min(runtime.GOMAXPROCS(0), maxConnections)
	return Engine{
		// Two more may wait for their references.
		Name: "protocol", Ordered: true, Parallel: parallel + 2, Distrusts: n.RefusesUnproven,
		Begin: func(ctx context.Context, _ []nix.PathInfo) (Sink, error) {
			s := &protocol{nix: n, ctx: ctx, idle: make(chan *nix.Daemon, parallel)}
			first, err := n.Connect(ctx) // so that a failure is known at once
			if err != nil {
				return nil, err
			}
			s.idle <- first
			for range parallel - 1 {
				s.idle <- nil
			}
			return s, nil
		},
	}
}

// maxConnections is the most paths that are added at a time, because Nix writes them to one
// database.
const maxConnections = 4

type protocol struct {
	nix  *nix.Nix
	ctx  context.Context
	idle chan *nix.Daemon // nil for a connection that is not open
}

func (p *protocol) Add(_ context.Context, info nix.PathInfo, nar io.Reader) error {
	return p.use(func(d *nix.Daemon) error {
		return d.AddMultiple([]nix.PathInfo{info}, func(nix.PathInfo) (io.Reader, error) { return nar, nil })
	})
}

// AddStream implements [Streamer].
func (p *protocol) AddStream(next func() (nix.PathInfo, io.Reader, error), added func(nix.PathInfo)) error {
	return p.use(func(d *nix.Daemon) error { return d.AddStream(next, added) })
}

// use adds paths with a connection that is idle.
func (p *protocol) use(add func(*nix.Daemon) error) error {
	d := <-p.idle
	defer func() { p.idle <- d }()
	if d == nil {
		var err error
		if d, err = p.nix.Connect(p.ctx); err != nil {
			return err
		}
	}
	err := add(d)
	if err != nil {
		_ = d.Close() // it is useless now
		d = nil
		switch {
		case p.ctx.Err() != nil:
			err = context.Cause(p.ctx)
		case errors.Is(err, nix.ErrUntrusted):
			err = &RefusedError{err}
		}
	}
	return err
}

// Finish has nothing to do.
func (p *protocol) Finish(context.Context, []nix.PathInfo) error { return nil }

func (p *protocol) Close() error {
	var errs []error
	for range cap(p.idle) {
		if d := <-p.idle; d != nil {
			errs = append(errs, d.Close())
		}
	}
	return errors.Join(errs...)
}
