package build

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/org/nix-matrix/pkg/nix"
)

// impureHash is what an impure derivation has in place of the hash of its output.
const impureHash = "impure"

// isImpure reports whether each build of a derivation makes other outputs.
func isImpure(store Store, drv string) bool {
	d, err := store.Derivation(drv)
	if err != nil {
		return false // which the build will tell
	}
	for _, output := range d.Outputs {
		return output.Hash == impureHash // all of them or none
	}
	return false
}

// realiseOnce builds targets, those with impure derivations one by one: only who builds
// such a derivation learns where its outputs are.
func (r *realisation) realiseOnce(ctx context.Context, targets []Target, emit func(nix.Event)) error {
	var errs []error
	var pure []Target
	var impure []string // derivations
	for _, t := range targets {
		switch {
		case len(t.OutPaths) == len(t.Outputs) || !isImpure(r.store, t.DrvPath):
			pure = append(pure, t)
		case !r.impure[t.DrvPath] && !slices.Contains(impure, t.DrvPath):
			impure = append(impure, t.DrvPath)
		}
	}
	if len(pure) > 0 {
		errs = append(errs, r.store.Realise(ctx, Wanted(pure), emit))
	}
	for _, drv := range impure {
		if ctx.Err() == nil {
			errs = append(errs, r.realiseImpure(ctx, drv, emit))
		}
	}
	return errors.Join(errs...)
}

// realiseImpure builds a derivation for all targets that want outputs of it.
func (r *realisation) realiseImpure(ctx context.Context, drv string, emit func(nix.Event)) error {
	built, err := r.store.RealiseImpure(ctx, drv, emit)
	if err != nil {
		return err
	}
	r.impure[drv] = true
	for i, t := range r.targets {
		if t.DrvPath == drv {
			r.outputs[i] = maps.Clone(built)
		}
	}
	return nil
}
