package nix

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/internal/valid"
)

// Realise builds or fetches the outputs of derivations, given as DRV!OUT[,OUT].
// It starts no evaluator. One that fails does not stop the others. What happens
// is told to emit, one event at a time. Of an impure derivation it builds nothing
// but what others need: see RealiseImpure.
func (n *Nix) Realise(ctx context.Context, outputs []string, emit func(Event)) error {
	return n.realise(n.building(ctx, "nix-store", args("--realise", "--keep-going"), valid.Realisable, outputs...), emit)
}

// RealiseImpure builds an impure derivation and returns the paths of all its outputs by
// name. Each build makes other ones, which the store does not remember.
func (n *Nix) RealiseImpure(ctx context.Context, drv string, emit func(Event)) (map[string]string, error) {
	var out bytes.Buffer
	// Nix 2.26 can't build some of several outputs.
	cmd := n.building(ctx, "nix", args("build", "--no-link", "--json"), copied, n.installable(drv+allOutputs))
	cmd.Stdout = &out
	if err := n.realise(cmd, emit); err != nil {
		return nil, err
	}
	var built []struct {
		Outputs map[string]string `json:"outputs"`
	}
	if err := json.Unmarshal(out.Bytes(), &built); err != nil || len(built) != 1 {
		return nil, fmt.Errorf("read what nix build has built of %s: %.80q, %w", drv, out.String(), err)
	}
	return built[0].Outputs, nil
}

// installable is how `nix build` and `nix copy` call a path, or DRV!* for the outputs of a
// derivation.
func (n *Nix) installable(path string) string {
	drv, ok := strings.CutSuffix(path, allOutputs)
	if ok && n.HasOutputsSyntax() {
		return drv + "^*"
	}
	return drv
}

// building prepares a program that builds and tells about it in JSON.
func (n *Nix) building(ctx context.Context, program literal, with *arguments, check func(string) error, what ...string) *child.Cmd {
	command := n.command
	if slices.ContainsFunc(n.options, func(o Option) bool { return strings.Contains(o.value(), "s3://") }) {
		command = n.commandWithCredentials // which a builder can ask for, where Nix has no daemon
	}
	return command(ctx, program, with.add("--log-format", "internal-json", "-v").operands(check, what...))
}

// realise runs a program that builds.
func (n *Nix) realise(cmd *child.Cmd, emit func(Event)) error {
	var message string
	cmd.Stderr = &logReader{
		now:    time.Now,
		active: map[uint64]Event{},
		counts: map[uint64]*count{},
		emit: func(e Event) {
			if e.Kind == ErrorMessage && message == "" {
				message = e.Text
			}
			emit(e)
		},
	}
	return failure(cmd, cmd.Run(), message)
}
