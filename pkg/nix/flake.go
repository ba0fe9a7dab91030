package nix

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/org/nix-matrix/internal/storepath"
)

// A Flake is what a reference to a flake means at the moment.
type Flake struct {
	// Identity has all that an evaluation of the flake can see: the source, with its
	// revision and the time of that, and the locks of all inputs.
	Identity string
	// Inputs are the store paths of all inputs that have a lock, each once.
	Inputs []string
}

// Flake looks a flake up. None of its outputs is evaluated and no input is fetched.
// It is an error when the flake's lock file does not lock all inputs, since what
// they are may then change.
func (n *Nix) Flake(ctx context.Context, ref string) (*Flake, error) {
	out, err := n.output(ctx, "nix", "flake", "metadata", "--json", "--no-update-lock-file", ref)
	if err != nil {
		return nil, err
	}
	var metadata struct {
		Path     json.RawMessage `json:"path"`
		Resolved json.RawMessage `json:"resolved"` // with the directory in the source
		Locked   json.RawMessage `json:"locked"`
		Locks    json.RawMessage `json:"locks"`
	}
	var locks struct {
		Nodes map[string]struct{ Locked struct{ NarHash string } }
	}
	err = json.Unmarshal(out, &metadata)
	if err == nil {
		err = json.Unmarshal(metadata.Locks, &locks)
	}
	if err != nil {
		return nil, fmt.Errorf("read nix flake metadata: %w", err)
	}
	identity, err := json.Marshal(metadata)
	if err != nil {
		return nil, fmt.Errorf("read nix flake metadata: %w", err)
	}
	f := &Flake{Identity: string(identity)}
	for _, node := range locks.Nodes {
		if nar, ok := storepath.ParseNarHash(node.Locked.NarHash); ok {
			f.Inputs = append(f.Inputs, storepath.Source(nar))
		}
	}
	slices.Sort(f.Inputs)
	f.Inputs = slices.Compact(f.Inputs)
	return f, nil
}

// evaluating are the settings that decide what a pure evaluation gives.
var evaluating = []string{
	"accept-flake-config", "allow-import-from-derivation", "allowed-uris", "eval-system", "experimental-features",
	"lazy-trees", "pure-eval", "restrict-eval", "system",
}

// Evaluator has all of this Nix that decides what a pure evaluation gives.
func (n *Nix) Evaluator() string {
	text := n.said
	for _, name := range evaluating {
		text += fmt.Sprintf(" %s=%s", name, n.config[name].Value)
	}
	return text
}
