package engine

import (
	"context"
	"io"

	"github.com/org/nix-matrix/pkg/nix"
)

// An Engine adds paths to a Nix store.
type Engine struct {
	Name string
	// Ordered says that a path may be added only after those that it refers to.
	Ordered bool
	// Parallel is how many paths it takes at a time.
	Parallel int
	// Distrusts returns an error that wraps nix.ErrUntrusted if the store is known to take
	// only paths that have a content address or a signature. It is nil for an engine that
	// needs nobody's trust.
	Distrusts func(ctx context.Context) error
	// Begin starts to add paths, given in reference order, of which none was valid a
	// moment ago.
	Begin func(ctx context.Context, infos []nix.PathInfo) (Sink, error)
}

// A Sink is what paths are added to. It must be closed.
type Sink interface {
	// Add adds one of the paths that the engine began with. The NAR has NarSize bytes
	// and then ends; its reader checks it against the hash before it gives the last of
	// them. After an error of the reader, which is wrapped by that of Add, nothing is
	// left of the path and others can still be added, as they can after a [RefusedError].
	// After any other error the sink is of no more use. The goroutines that call it are
	// as many as the engine takes paths at a time.
	Add(ctx context.Context, info nix.PathInfo, nar io.Reader) error
	// Finish makes valid, at the latest, those of the added paths that are given, in
	// reference order: a path whose references did not come is not among them. It is
	// called once, after all Adds have returned.
	Finish(ctx context.Context, infos []nix.PathInfo) error
	// Close removes what was added and not made valid.
	Close() error
}

// A RefusedError is the error of a store that does not take this one path from us.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap returns what the store said.
func (e *RefusedError) Unwrap() error { return e.Err }
