package reuse

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
)

// EngineAuto is the name of the fastest engine that is available.
const EngineAuto = "auto"

// EngineNames are the names of engines that a user may choose.
var EngineNames = []string{EngineAuto, "direct", "protocol", "import"}

// An EngineChoice decides how paths get into the store.
type EngineChoice struct {
	Name   string // one of EngineNames
	Strict bool   // a named engine that is not available is an error
	AsRoot string // this program's command that restores as root
}

// Open returns the chosen engine, or the fastest that is available. Unless the choice is strict, it falls
// back to Nix's protocol if the chosen engine is not available, and logs which paths a store refuses
// because it does not trust this user.
func (e *EngineChoice) Open(ctx context.Context, n *nix.Nix, log Log) (engine.Engine, error) {
	var err error
	switch e.Name {
	case "protocol":
		return engine.Protocol(n), nil
	case "import": // it loses the proofs that an untrusted user needs
		if err = n.RefusesUnproven(ctx); err == nil {
			return engine.Import(n), nil
		}
		err = fmt.Errorf("cannot use the import engine: %w", err)
	default:
		var found engine.Engine
		if found, err = e.direct(ctx, n); err == nil {
			return found, nil
		}
	}
	if ctx.Err() != nil || e.Name != EngineAuto && e.Strict {
		return engine.Engine{}, err
	}
	if distrust := n.RefusesUnproven(ctx); errors.Is(distrust, nix.ErrUntrusted) && !errors.Is(err, nix.ErrUntrusted) {
		err = fmt.Errorf("%w; %w", err, distrust)
	}
	log.Printf("restoring by Nix's own protocol: %v", err)
	return engine.Protocol(n), nil
}

// direct returns the direct engine, with another process of this program as root if that is necessary and
// allowed.
func (e *EngineChoice) direct(ctx context.Context, n *nix.Nix) (engine.Engine, error) {
	found, err := engine.Direct(ctx, n)
	if err == nil || ctx.Err() != nil {
		return found, err
	}
	self, serr := os.Executable()
	if serr != nil {
		return found, err
	}
	found, rerr := engine.DirectAsRoot(ctx, n, self, e.AsRoot)
	if rerr != nil {
		return found, fmt.Errorf("%w; %w", err, rerr)
	}
	return found, nil
}
