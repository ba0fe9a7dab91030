package discover

import (
	"context"
	"errors"
	"fmt"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/nix"
)

// flakeCaches are the binary caches in the nixConfig of flakes.
type flakeCaches struct{ substituters, keys []string }

// decideFlakeConfig decides whether the binary caches in the nixConfig of the flakes are used: the user
// accepts them here or in Nix's own settings, and the job may trust them.
func (d *Discovery) decideFlakeConfig(ctx context.Context) {
	if len(d.Evaluate.Flakes()) == 0 || !d.AcceptFlakeConfig && !d.Env.AcceptsFlakeConfig() {
		return
	}
	if !d.docs.Trust.AcceptsFlakeConfig() {
		d.log.Printf("%s", action.FlakeConfigRefused)
		return
	}
	d.flakeConfig, d.Evaluate.UsesFlakeCaches = true, true
	if !d.AcceptFlakeConfig {
		return
	}
	if err := d.Env.Distrust(ctx); errors.Is(err, nix.ErrUntrusted) {
		d.log.Warn("The input accept_flake_config has no effect", fmt.Errorf("%w: it ignores public keys and substituters that its own settings don't name", err))
	}
}

// readFlakeConfig returns the binary caches in the nixConfig of the flakes, if they are used, and lets Nix
// read them. The error is about some of them.
func (d *Discovery) readFlakeConfig(ctx context.Context) (all flakeCaches, err error) {
	if !d.flakeConfig {
		return all, nil
	}
	if d.Evaluate.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.Evaluate.Timeout)
		defer cancel()
	}
	for _, flake := range d.Evaluate.Flakes() {
		substituters, keys, odd := d.Env.FlakeConfig(ctx, flake)
		all.substituters, all.keys = append(all.substituters, substituters...), append(all.keys, keys...)
		err = errors.Join(err, odd)
	}
	d.Env.Read(all.substituters, all.keys)
	return all, err
}
