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

// Realise builds or fetches the outputs of derivations, given as DRV!OUT[,OUT], without an
// evaluator. A failed derivation does not stop the others. It calls emit with one event at a
// time. An impure derivation is built only where others need it: see RealiseImpure.
func (n *Nix) Realise(ctx context.Context, outputs []string, emit func(Event)) error {
	return n.realise(n.building(ctx, "nix-store", args("--realise", "--keep-going"), valid.Realisable, outputs...), emit)
}

// RealiseImpure builds an impure derivation and returns the paths of all its outputs by
// name. Each build may have other ones, and the store does not record them.
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
		return nil, fmt.Errorf("cannot read the output of nix build for %s: %.80q, %w", drv, out.String(), err)
	}
	return built[0].Outputs, nil
}

// installable returns the argument of `nix build` and `nix copy` for a path, or DRV!* for the
// outputs of a derivation.
func (n *Nix) installable(path string) string {
	drv, ok := strings.CutSuffix(path, allOutputs)
	if ok && n.HasOutputsSyntax() {
		return drv + "^*"
	}
	return drv
}

// building prepares a program that builds and logs in JSON.
func (n *Nix) building(ctx context.Context, program literal, with *arguments, check func(string) error, what ...string) *child.Cmd {
	command := n.command
	if slices.ContainsFunc(n.options, func(o Option) bool { return strings.Contains(o.value(), "s3://") }) {
		command = n.commandWithCredentials // a builder can read them where Nix has no daemon
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
	err := cmd.Run() // which sets the message
	return failure(cmd, err, message)
}
