package nix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/lazyregexp"
	"github.com/org/nix-matrix/internal/nearest"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/text"
)

// A Lock says which inputs flakes are evaluated with in place of those that their lock files name.
type Lock struct {
	// Overrides replace inputs, each at most once.
	Overrides []Override
	// File is the absolute path of a lock file that is read in place of the flake's own; empty for
	// that. It needs HasReferenceLockFile.
	File string

	of map[string][]Override // by flake, after ResolveLock
}

// An Override replaces an input of a flake by another flake or tree.
type Override struct {
	Input string // its path: nixpkgs, or home-manager/nixpkgs for an input of an input
	Ref   string // what takes its place, as Nix reads it
}

// inputPattern matches the path of an input.
var inputPattern = lazyregexp.New(`^[a-zA-Z][a-zA-Z0-9_-]{0,99}(?:/[a-zA-Z][a-zA-Z0-9_-]{0,99}){0,9}$`)

// ParseOverride reads NAME=FLAKE.
func ParseOverride(text string) (Override, error) {
	input, ref, ok := strings.Cut(text, "=")
	input, ref = strings.TrimSpace(input), strings.TrimSpace(ref)
	if !ok || !inputPattern().MatchString(input) {
		return Override{}, errors.New("must be of the form NAME=FLAKE, such as nixpkgs=github:NixOS/nixpkgs/nixos-26.05; the input of an input is NAME/NAME")
	}
	if _, err := ParseFlakeReference(ref); err != nil || flakeRef(ref) != nil {
		return Override{}, errors.New("must have the reference of a flake after NAME=, such as github:NixOS/nixpkgs/nixos-26.05")
	}
	if u, err := url.Parse(ref); err == nil && u.User != nil {
		if _, has := u.User.Password(); has {
			return Override{}, errors.New("must not have a password in its address, which logs would show. Put it into netrc (NIX_MATRIX_NETRC)")
		}
	}
	return Override{input, ref}, nil
}

// WithLock returns the same Nix that evaluates flakes with other inputs.
func (n *Nix) WithLock(l Lock) *Nix {
	with := *n
	with.lock = l
	return &with
}

// LockFile returns the lock file that is read in place of a flake's own, or an empty text.
func (n *Nix) LockFile() string { return n.lock.File }

// Overrides returns the overrides of a flake.
func (n *Nix) Overrides(flake string) []Override {
	if own, ok := n.lock.of[flake]; ok {
		return own
	}
	return n.lock.Overrides
}

// addLock adds the flags for a flake to arguments.
func (n *Nix) addLock(a *arguments, flake string) *arguments {
	for _, o := range n.Overrides(flake) {
		a.add("--override-input").checked(inputPath, o.Input).checked(overriding, o.Ref)
	}
	if n.lock.File != "" {
		if !n.HasReferenceLockFile() && a.err == nil {
			a.err = fmt.Errorf("%s cannot read another lock file. Update to Nix 2.18 or newer, or leave out --reference-lock-file (input reference_lock_file)", n.Version)
		}
		a.add("--reference-lock-file").checked(fileName, n.lock.File)
	}
	return a
}

// inputPath accepts the path of an input.
func inputPath(s string) error {
	if !inputPattern().MatchString(s) {
		return fmt.Errorf("invalid input %s", valid.Quote(s))
	}
	return nil
}

// overriding accepts the reference of a flake, which may not be taken for a flag.
func overriding(s string) error {
	if strings.ContainsAny(s, " \t") {
		return fmt.Errorf("invalid flake reference %s", valid.Quote(s))
	}
	return flakeRef(s)
}

// An InputError says that a flake has no input of a name.
type InputError struct {
	Flakes []string
	Input  string
	Have   []string // the paths of all inputs
}

func (e *InputError) Error() string {
	message := fmt.Sprintf("cannot override the input %s: %s has no such input%s", e.Input, strings.Join(e.Flakes, " and "), nearest.Hint(e.Input, e.Have))
	if len(e.Have) == 0 {
		return message + ", nor any other. Remove the override"
	}
	return message + "; there are: " + text.Some(e.Have, 20) + ". Correct the override"
}

// ResolveLock returns the same Nix that gives each flake only the overrides of inputs that it has, at the
// commit or hash that they have now, so that all evaluators see the same. A flake that cannot be resolved
// keeps all of them as they are, and its evaluation returns the reason. The error is an *InputError if no
// flake has an input.
func (n *Nix) ResolveLock(ctx context.Context, flakes []string) (*Nix, error) {
	if len(n.lock.Overrides) == 0 {
		return n, nil
	}
	resolved := *n
	resolved.lock.of = map[string][]Override{}
	used, have := map[string]bool{}, map[string]bool{}
	for _, flake := range flakes {
		m, err := n.flakeMetadata(ctx, flake, "--no-write-lock-file")
		var graph *lockGraph
		if err == nil {
			graph, err = m.graph()
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			for _, o := range n.lock.Overrides {
				used[o.Input] = true // perhaps
			}
			continue
		}
		var own []Override
		var locked []fetched
		for _, o := range n.lock.Overrides {
			if node, ok := graph.find(o.Input); ok {
				own, locked = append(own, o), append(locked, node)
				used[o.Input] = true
			}
		}
		for _, path := range graph.paths() {
			have[path] = true
		}
		for i, ref := range n.references(ctx, locked) {
			if ref != "" {
				own[i].Ref = ref
			}
		}
		resolved.lock.of[flake] = own
	}
	for _, o := range n.lock.Overrides {
		if !used[o.Input] {
			return nil, &InputError{flakes, o.Input, slices.Sorted(maps.Keys(have))}
		}
	}
	return &resolved, nil
}

// references returns the references of locked trees, an empty one for a tree that has none that names its
// contents, and for all with a version of Nix that cannot write references.
func (n *Nix) references(ctx context.Context, locked []fetched) []string {
	all := make([]string, len(locked))
	var list strings.Builder
	for _, tree := range locked {
		if !tree.pinned() {
			tree = fetched{}
		}
		attrs := maps.Clone(tree)
		delete(attrs, "__final")
		data, _ := json.Marshal(attrs) // it was unmarshalled, so it can be marshalled
		list.WriteString(" " + nixString(string(data)))
	}
	out, err := n.output(ctx, "nix", args("eval", "--json", "--expr").checked(expression,
		`map (text: let attrs = builtins.fromJSON text; in if attrs == { } || !(builtins ? flakeRefToString) then "" else builtins.flakeRefToString attrs) [`+list.String()+` ]`))
	var refs []string
	if err != nil || json.Unmarshal(out, &refs) != nil || len(refs) != len(all) {
		return all
	}
	for i, ref := range refs {
		if overriding(ref) == nil {
			all[i] = ref
		}
	}
	return all
}

// pinned reports whether a reference with these attributes names the same contents for ever. A work tree of
// git with changes has no commit.
func (f fetched) pinned() bool {
	if kind := f.text("type"); kind == "git" || kind == "hg" {
		return f.text("rev") != ""
	}
	return f.text("narHash") != "" || f.text("rev") != ""
}

// identified reports whether the attributes of a locked input say what its contents are. A relative path is
// a part of the flake that names it.
func (f fetched) identified() bool {
	path := f.text("path")
	return f.text("narHash") != "" || f.text("rev") != "" || f.text("type") == "path" && path != "" && !strings.HasPrefix(path, "/")
}

// A lockGraph is the content of a lock file.
type lockGraph struct {
	root  string
	nodes map[string]struct {
		Inputs map[string]json.RawMessage // the name of a node, or a path from the root that it follows
		Locked fetched
	}
}

func (m *flakeMetadata) graph() (*lockGraph, error) {
	g := &lockGraph{}
	if err := errors.Join(json.Unmarshal(m.Locks.Nodes, &g.nodes), json.Unmarshal(m.Locks.Root, &g.root)); err != nil {
		return nil, fmt.Errorf("cannot read nix flake metadata: %w", err)
	}
	return g, nil
}

// find returns the locked attributes of an input. One that follows another is not found, because Nix does
// not override it.
func (g *lockGraph) find(path string) (locked fetched, ok bool) {
	name, ok := g.node(path)
	return g.nodes[name].Locked, ok
}

// node returns the name of the node of an input.
func (g *lockGraph) node(path string) (name string, ok bool) {
	name = g.root
	for input := range strings.SplitSeq(path, "/") {
		if json.Unmarshal(g.nodes[name].Inputs[input], &name) != nil {
			return "", false
		}
	}
	return name, true
}

// paths returns the paths of the inputs and of their inputs.
func (g *lockGraph) paths() []string {
	var all []string
	inputs := func(node, prefix string) (found []string) {
		for _, input := range slices.Sorted(maps.Keys(g.nodes[node].Inputs)) {
			if path := prefix + input; inputPattern().MatchString(path) {
				if _, ok := g.node(path); ok {
					found = append(found, path)
				}
			}
		}
		return found
	}
	for _, path := range inputs(g.root, "") {
		node, _ := g.node(path)
		all = append(append(all, path), inputs(node, path+"/")...)
	}
	return all
}
