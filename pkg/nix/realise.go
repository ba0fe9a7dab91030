package nix

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"
)

// Realise builds or fetches the outputs of derivations, given as DRV!OUT[,OUT].
// It starts no evaluator. One that fails does not stop the others. What happens
// is told to emit, one event at a time.
func (n *Nix) Realise(ctx context.Context, outputs []string, emit func(Event)) error {
	args := []string{"--realise", "--keep-going", "--log-format", "internal-json", "-v"}
	command := n.command
	if slices.ContainsFunc(n.options, func(o Option) bool { return strings.Contains(o.Value, "s3://") }) {
		command = n.abroad // which a builder can ask for, where Nix has no daemon
	}
	cmd := command(ctx, "nix-store", append(args, outputs...)...)
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
	cmd.Stdout = io.Discard
	return failure(cmd, cmd.Run(), message)
}

// An Option overrides one of Nix's settings.
type Option struct{ Name, Value string }

func arguments(options []Option) []string {
	var args []string
	for _, o := range options {
		args = append(args, "--option", o.Name, o.Value)
	}
	return args
}
