package realise

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
)

// impureHash stands in an impure derivation in place of the hash of its output.
const impureHash = "impure"

// realiseOnce realises outputs, as for Realise, with impure derivations one by one, because only
// their builder learns their output paths. whole says that all outputs were tried.
func (r *realisation) realiseOnce(ctx context.Context, todo []string, emit func(nix.Event)) (whole bool, err error) {
	impure := map[string]bool{}
	for _, t := range r.targets {
		if len(t.OutPaths) < len(t.Outputs) && r.failures.node(t.DrvPath).impure {
			impure[t.DrvPath] = true
		}
	}
	var errs []error
	var pure []string
	var each []string // impure derivations
	for _, output := range todo {
		switch drv, _, _ := strings.Cut(output, "!"); {
		case !impure[drv]:
			pure = append(pure, output)
		case !r.impure[drv] && !slices.Contains(each, drv):
			each = append(each, drv)
		}
	}
	whole = !r.o.Remote
	if len(pure) > 0 {
		err := r.store.Realise(ctx, pure, emit)
		errs = append(errs, err)
		whole = whole && (err == nil || nix.WentThroughAll(err))
	}
	for _, drv := range each {
		if ctx.Err() == nil {
			errs = append(errs, r.realiseImpure(ctx, drv, emit))
		}
	}
	return whole, errors.Join(errs...)
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
