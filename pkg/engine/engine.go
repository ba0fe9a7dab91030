package engine

import (
	"context"
	"io"

	"github.com/org/nix-matrix/pkg/nix"
)

// An Engine adds paths to a Nix store.
type Engine struct {
	Name string
	// Ordered means that a path may be added only after its references.
	Ordered bool
	// Parallel is the most paths that may be added at a time.
	Parallel int
	// Distrusts returns an error that wraps nix.ErrUntrusted if the store is known to accept
	// only paths that have a content address or a signature. It is nil for an engine that
	// does not depend on trust.
	Distrusts func(ctx context.Context) error
	// Begin starts to add paths, given in reference order, none of which was valid a
	// moment ago.
	Begin func(ctx context.Context, infos []nix.PathInfo) (Sink, error)
}

// A Sink adds paths to a store. The caller must close it.
type Sink interface {
	// Add adds one of the paths of Begin. The NAR has NarSize bytes and then ends; its
	// reader checks it against the hash before it returns the last of them. After an error
	// of the reader, which Add's error wraps, nothing is left of the path and others can
	// still be added, as they can after a [RefusedError]. After any other error the sink is
	// useless. At most Parallel goroutines call it at a time.
	Add(ctx context.Context, info nix.PathInfo, nar io.Reader) error
	// Finish makes the given paths, in reference order, valid unless Add did. They were
	// added, and so were their references. It is called once, after all calls of Add have
	// returned.
	Finish(ctx context.Context, infos []nix.PathInfo) error
	// Close removes paths that were added and not made valid.
	Close() error
}

// A Streamer is a Sink that adds several paths without waiting for the store after each.
type Streamer interface {
	// AddStream adds paths of Begin that have a content address, as next returns them, until its error is
	// [io.EOF]. References that are among them come first. added is called for each path that was added,
	// side by side with next. Errors are those of [Sink.Add], and wrap those of next; the paths after one
	// are not added.
	AddStream(next func() (nix.PathInfo, io.Reader, error), added func(nix.PathInfo)) error
}

// A RefusedError is the error of a store that refuses this one path.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap returns the store's error.
func (e *RefusedError) Unwrap() error { return e.Err }
