package nix

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/valid"
)

// A LockedInputs is a flake's lock file, as Nix reads it: the direct and indirect inputs by their paths from the flake, such
// as "nixpkgs" and "home-manager/nixpkgs". An input that follows another one has no pin of its own.
type LockedInputs struct {
	Inputs []string // direct ones, sorted, followers included
	Pins   map[string]Pin
}

// A Pin is the source of an input. All texts are foreign.
type Pin struct {
	// Address is the input as in flake.nix, without its revision: "github:NixOS/nixpkgs".
	Address string
	// Rev is the revision, Hash that of the source; each may be empty.
	Rev, Hash string
	Modified  time.Time // zero if unknown
}

// maxPins is more than a flake has inputs, and maxInputDepth more than inputs of inputs go deep.
const (
	maxPins       = 2000
	maxInputDepth = 32
)

// LockedInputs returns the locks of a flake. Inputs that its lock file lacks are fetched and locked, and not written.
func (n *Nix) LockedInputs(ctx context.Context, ref string) (*LockedInputs, error) {
	m, err := n.flakeMetadata(ctx, ref, "--no-write-lock-file")
	if err != nil {
		return nil, err
	}
	return readLock(m.Locks.Nodes, m.Locks.Root)
}

// ParseLock reads a lock file.
func ParseLock(data []byte) (*LockedInputs, error) {
	var file struct{ Nodes, Root json.RawMessage }
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("cannot read the flake's lock file: %w", err)
	}
	return readLock(file.Nodes, file.Root)
}

type lockNode struct {
	Inputs           map[string]json.RawMessage // the name of a node, or the path of an input that is followed
	Original, Locked fetched
}

func readLock(nodes, root json.RawMessage) (*LockedInputs, error) {
	var all map[string]lockNode
	var first string
	err := json.Unmarshal(nodes, &all)
	if err == nil {
		err = json.Unmarshal(root, &first)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the locks of the flake: %w", err)
	}
	lock := &LockedInputs{Inputs: slices.Sorted(maps.Keys(all[first].Inputs)), Pins: map[string]Pin{}}
	for _, input := range lock.Inputs {
		if err := inputName(input); err != nil {
			return nil, err
		}
	}
	seen := map[string]bool{first: true} // Nix makes a tree; a lock file that is none has each node once
	var add func(node, path string, depth int)
	add = func(node, path string, depth int) {
		inputs := all[node].Inputs
		for _, name := range slices.Sorted(maps.Keys(inputs)) {
			var to string
			if json.Unmarshal(inputs[name], &to) != nil || seen[to] || len(lock.Pins) == maxPins || depth == maxInputDepth {
				continue
			}
			seen[to] = true
			lock.Pins[path+name] = newPin(all[to])
			add(to, path+name+"/", depth+1)
		}
	}
	add(first, "", 0)
	return lock, nil
}

// newPin returns the pin of a node.
func newPin(n lockNode) Pin {
	p := Pin{Address: address(n.Original), Rev: n.Locked.text("rev"), Hash: n.Locked.text("narHash")}
	if n.Original == nil {
		p.Address = address(n.Locked)
	}
	var seconds int64
	if json.Unmarshal(n.Locked["lastModified"], &seconds) == nil && seconds > 0 {
		p.Modified = time.Unix(seconds, 0).UTC()
	}
	return p
}

// address returns the reference to a source, without credentials.
func address(f fetched) string {
	kind := f.text("type")
	switch kind {
	case "github", "gitlab", "sourcehut":
		return kind + ":" + strings.Trim(f.text("owner")+"/"+f.text("repo")+"/"+f.text("ref"), "/")
	case "path":
		return "path:" + f.text("path")
	case "indirect":
		return strings.Trim(f.text("id")+"/"+f.text("ref"), "/")
	}
	url := Redact(f.text("url"))
	if ref := f.text("ref"); ref != "" {
		url += "?ref=" + ref
	}
	if kind == "git" || kind == "hg" {
		url = kind + "+" + url
	}
	return url
}

// inputName accepts the name of an input, or names with slashes between them.
func inputName(s string) error {
	if s == "" || s[0] == '-' || strings.ContainsAny(s, "\\\"' ") || valid.Line(s, 1024) != nil {
		return fmt.Errorf("invalid name of an input %s", valid.Quote(s))
	}
	return nil
}

// An InputChange is an input whose pin an update has changed. Before is empty for a new input, After for one that is
// gone.
type InputChange struct {
	Name          string
	Before, After Pin
}

// Changes returns the difference between two locks, direct inputs first, each group by name.
func (l *LockedInputs) Changes(after *LockedInputs) []InputChange {
	names := map[string]Pin{}
	maps.Copy(names, l.Pins)
	maps.Copy(names, after.Pins)
	var all []InputChange
	for _, direct := range []bool{true, false} {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			c := InputChange{name, l.Pins[name], after.Pins[name]}
			if strings.Contains(name, "/") != direct && c.Before != c.After {
				all = append(all, c)
			}
		}
	}
	return all
}

// UpdateLock writes newer pins of the named inputs into the lock file of a flake in a directory of this machine; without
// names, of all inputs.
func (n *Nix) UpdateLock(ctx context.Context, ref string, inputs ...string) error {
	with := args("flake", "update")
	switch {
	case n.UpdatesInputs():
		with.add("--flake").checked(flakeRef, ref)
		if len(inputs) > 0 {
			with.operands(inputName, inputs...)
		}
	case len(inputs) == 0:
		with.operands(flakeRef, ref)
	default:
		with = args("flake", "lock")
		for _, input := range inputs {
			with.add("--update-input").checked(inputName, input)
		}
		with.operands(flakeRef, ref)
	}
	_, err := n.output(ctx, "nix", with)
	return err
}
