package reuse

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/store"
)

// EngineAuto is the name of the fastest engine that is available.
const EngineAuto = "auto"

// EngineNames are what users may name.
var EngineNames = []string{EngineAuto, "direct", "protocol", "import"}

// An EngineChoice says how paths get into the store.
type EngineChoice struct {
	Name   string // one of EngineNames
	Strict bool   // a named engine that is not available is an error
	AsRoot string // this program's command that restores as root
}

// Open returns the engine that was asked for, or the fastest that is available. In a
// workflow that asks for one on all of its machines, it is another one where that one is
// not available. What the store won't take because it does not trust this user is told.
func (e *EngineChoice) Open(ctx context.Context, n *nix.Nix, log Log) (store.Engine, error) {
	var err error
	switch e.Name {
	case "protocol":
		return store.Protocol(n), nil
	case "import": // which loses what an untrusted user needs
		if err = n.RefusesUnproven(ctx); err == nil {
			return store.Import(n), nil
		}
		err = fmt.Errorf("the import engine can't be used: %w", err)
	default:
		var engine store.Engine
		if engine, err = e.direct(ctx, n); err == nil {
			return engine, nil
		}
	}
	if ctx.Err() != nil || e.Name != EngineAuto && e.Strict {
		return store.Engine{}, err
	}
	if distrust := n.RefusesUnproven(ctx); errors.Is(distrust, nix.ErrUntrusted) && !errors.Is(err, nix.ErrUntrusted) {
		err = fmt.Errorf("%w; %w", err, distrust)
	}
	log.Printf("restoring by Nix's own protocol: %v", err)
	return store.Protocol(n), nil
}

// direct is the direct engine, for which another process of this program runs as root
// where it may and has to.
func (e *EngineChoice) direct(ctx context.Context, n *nix.Nix) (store.Engine, error) {
	engine, err := store.Direct(ctx, n)
	if err == nil || ctx.Err() != nil {
		return engine, err
	}
	self, serr := os.Executable()
	if serr != nil {
		return engine, err
	}
	engine, rerr := store.DirectAsRoot(ctx, n, self, e.AsRoot)
	if rerr != nil {
		return engine, fmt.Errorf("%w; %w", err, rerr)
	}
	return engine, nil
}
