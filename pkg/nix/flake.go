package nix

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/internal/valid"
)

// A Flake is what a reference to a flake means at the moment.
type Flake struct {
	// Identity has all that an evaluation of the flake can see: the source, with its
	// revision and the time of that, and the locks of all inputs. It is empty if nothing
	// says what is in the source, as for a work tree with changes and lazy trees.
	Identity string
	// Inputs are all inputs that have a lock, each once.
	Inputs []Input
}

// flakeMetadata is what `nix flake metadata` says, with what identifies a flake first.
// Determinate Nix leaves Path out, and from Nix 2.35 on it need not be there.
type flakeMetadata struct {
	Path     string  `json:"path,omitempty"`
	Resolved fetched `json:"resolved"` // with the directory in the source
	Locked   fetched `json:"locked"`
	Locks    struct {
		Nodes json.RawMessage `json:"nodes"`
		Root  json.RawMessage `json:"root"`
	} `json:"locks"`
}

// fetched are the attributes that builtins.fetchTree takes, and some of flakes.
type fetched map[string]json.RawMessage

// text returns an attribute that is a string.
func (f fetched) text(name string) string {
	var text string
	_ = json.Unmarshal(f[name], &text) // another type is no text
	return text
}

// source returns where Nix puts the tree in the store.
func (f fetched) source() (path string, ok bool) {
	nar, ok := storepath.ParseNarHash(f.text("narHash"))
	return storepath.Source(nar), ok
}

func (n *Nix) flakeMetadata(ctx context.Context, ref string, lock literal) (*flakeMetadata, error) {
	out, err := n.output(ctx, "nix", args("flake", "metadata", "--json", lock).operands(flakeRef, ref))
	if err != nil {
		return nil, err
	}
	var m flakeMetadata
	if err := json.Unmarshal(out, &m); err != nil {
		return nil, fmt.Errorf("read nix flake metadata: %w", err)
	}
	return &m, nil
}

// Flake looks a flake up. None of its outputs is evaluated and no input is fetched.
// It is an error when the flake's lock file does not lock all inputs, since what
// they are may then change.
func (n *Nix) Flake(ctx context.Context, ref string) (*Flake, error) {
	m, err := n.flakeMetadata(ctx, ref, "--no-update-lock-file")
	if err != nil {
		return nil, err
	}
	var nodes map[string]struct{ Locked fetched }
	if err := json.Unmarshal(m.Locks.Nodes, &nodes); err != nil {
		return nil, fmt.Errorf("read nix flake metadata: %w", err)
	}
	f := &Flake{}
	if m.Path != "" || m.Locked.text("narHash") != "" || m.Locked.text("rev") != "" {
		identity, err := json.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("read nix flake metadata: %w", err)
		}
		f.Identity = string(identity)
	}
	for _, node := range nodes {
		if path, ok := node.Locked.source(); ok {
			f.Inputs = append(f.Inputs, Input{Path: path, locked: node.Locked})
		}
	}
	f.Inputs = uniqueInputs(f.Inputs)
	return f, nil
}

func uniqueInputs(inputs []Input) []Input {
	slices.SortFunc(inputs, func(a, b Input) int { return strings.Compare(a.Path, b.Path) })
	return slices.CompactFunc(inputs, func(a, b Input) bool { return a.Path == b.Path })
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

// FlakeConfig returns the substituters and public keys that a flake's nixConfig
// names, if the user has accepted such settings (accept-flake-config). What is none of
// them is left out, and named by an error beside the others.
func (n *Nix) FlakeConfig(ctx context.Context, flake string) (substituters, keys []string, err error) {
	accepted := false
	if _ = json.Unmarshal(n.config["accept-flake-config"].Value, &accepted); !accepted {
		return nil, nil, nil
	}
	m, err := n.flakeMetadata(ctx, flake, "--no-write-lock-file")
	if err != nil {
		return nil, nil, err
	}
	source, err := n.flakeSource(ctx, m)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read %s: %w", valid.Quote(flake), err)
	}
	// What the flake says is evaluated purely, so that it sees no credentials.
	out, err := n.output(ctx, "nix", args("eval", "--json", "--expr").checked(expression,
		`(import ("${`+source.tree()+`}/" + `+nixString(m.Locked.text("dir"))+` + "/flake.nix")).nixConfig or { }`))
	if err != nil {
		return nil, nil, err
	}
	config := map[string]json.RawMessage{}
	if err := json.Unmarshal(out, &config); err != nil {
		return nil, nil, fmt.Errorf("read the nixConfig: %w", err)
	}
	var odd error
	accept := func(check func(string) error, settings ...string) (words []string) {
		for _, setting := range settings {
			for _, word := range configWords(config[setting]) {
				if err := check(word); err != nil {
					odd = cmp.Or(odd, fmt.Errorf("%s: %w", setting, err))
				} else {
					words = append(words, word)
				}
			}
		}
		return words
	}
	substituters = accept(valid.Substituter, "substituters", "extra-substituters")
	keys = accept(valid.Key, "trusted-public-keys", "extra-trusted-public-keys")
	return substituters, keys, odd
}

// flakeSource returns a flake's source as a tree in the store, where it is put if it is
// not there.
func (n *Nix) flakeSource(ctx context.Context, m *flakeMetadata) (fetched, error) {
	path := m.Path
	if path != "" {
		if !storepath.Valid(path) {
			return nil, fmt.Errorf("nix flake metadata says that it is at %s, which is no store path", valid.Quote(path))
		}
		there, err := n.Valid(ctx, path)
		if err != nil {
			return nil, err
		}
		if !there[path] {
			path = ""
		}
	}
	if path == "" {
		var err error
		if path, err = n.fetchTree(ctx, m.Locked, "--impure", nil); err != nil {
			return nil, err
		}
	}
	infos, err := n.FullInfo(ctx, path)
	if err != nil {
		return nil, err
	}
	sum, err := hex.DecodeString(infos[0].NarHash)
	if err != nil {
		return nil, fmt.Errorf("read the hash of %s: %w", path, err)
	}
	return fetchedPath(path, sum), nil
}

// configWords reads a value of nixConfig that is a list or a text with words.
func configWords(value json.RawMessage) []string {
	var list []string
	if json.Unmarshal(value, &list) == nil {
		return list
	}
	var text string
	_ = json.Unmarshal(value, &text) // anything else has no words
	return strings.Fields(text)
}
