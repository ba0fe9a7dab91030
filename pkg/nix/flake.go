package nix

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/internal/valid"
)

// A Flake is a flake as its reference resolves at the moment.
type Flake struct {
	// Identity has everything that an evaluation of the flake can see: the source, its
	// revision and the time of that, and the locks of all inputs. It is empty if nothing
	// identifies the source, as for a work tree with changes and lazy trees.
	Identity string
	// Inputs are all locked inputs, each once.
	Inputs []Input
}

// flakeMetadata is the output of `nix flake metadata`. Determinate Nix leaves Path out, and from
// Nix 2.35 on that path need not exist.
type flakeMetadata struct {
	Path     string  `json:"path,omitempty"`
	Resolved fetched `json:"resolved"` // with the directory in the source
	Locked   fetched `json:"locked"`
	Locks    struct {
		Nodes json.RawMessage `json:"nodes"`
		Root  json.RawMessage `json:"root"`
	} `json:"locks"`
}

// fetched has the attributes of builtins.fetchTree, and some of flakes.
type fetched map[string]json.RawMessage

// text returns an attribute that is a string.
func (f fetched) text(name string) string {
	var text string
	_ = json.Unmarshal(f[name], &text) // another type is no text
	return text
}

// source returns the store path of the tree.
func (f fetched) source() (path string, ok bool) {
	nar, ok := storepath.ParseNarHash(f.text("narHash"))
	return storepath.Source(nar), ok
}

func (n *Nix) flakeMetadata(ctx context.Context, ref string, lock literal) (*flakeMetadata, error) {
	out, err := n.output(ctx, "nix", n.addLock(args("flake", "metadata", "--json", lock), ref).operands(flakeRef, ref))
	if err != nil {
		return nil, err
	}
	var m flakeMetadata
	if err := json.Unmarshal(out, &m); err != nil {
		return nil, fmt.Errorf("cannot read nix flake metadata: %w", err)
	}
	return &m, nil
}

// Flake resolves a reference to a flake. It evaluates no output and fetches no input. It is an
// error if the flake's lock file does not lock all inputs, because these may then change.
func (n *Nix) Flake(ctx context.Context, ref string) (*Flake, error) {
	m, err := n.flakeMetadata(ctx, ref, "--no-update-lock-file")
	if err != nil {
		return nil, err
	}
	var nodes map[string]struct{ Locked fetched }
	if err := json.Unmarshal(m.Locks.Nodes, &nodes); err != nil {
		return nil, fmt.Errorf("cannot read nix flake metadata: %w", err)
	}
	f := &Flake{}
	if m.Path != "" || m.Locked.text("narHash") != "" || m.Locked.text("rev") != "" {
		identity, err := json.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("cannot read nix flake metadata: %w", err)
		}
		f.Identity = string(identity)
	}
	for _, node := range nodes {
		if len(n.lock.Overrides) > 0 && node.Locked != nil && !node.Locked.identified() {
			f.Identity = ""
		}
		if path, ok := node.Locked.source(); ok {
			f.Inputs = append(f.Inputs, Input{Path: path, locked: node.Locked})
		}
	}
	f.Inputs = uniqueInputs(f.Inputs)
	return f, nil
}

func uniqueInputs(inputs []Input) []Input {
	slices.SortStableFunc(inputs, func(a, b Input) int { return strings.Compare(a.Path, b.Path) })
	return slices.CompactFunc(inputs, func(a, b Input) bool { return a.Path == b.Path })
}

// evaluating are the settings that affect the result of a pure evaluation.
var evaluating = []string{
	"accept-flake-config", "allow-import-from-derivation", "allowed-uris", "eval-system", "experimental-features",
	"lazy-trees", "pure-eval", "restrict-eval", "system",
}

// Evaluator returns the version and settings of this Nix that affect the result of a pure
// evaluation.
func (n *Nix) Evaluator() string {
	text := n.printed
	for _, name := range evaluating {
		text += fmt.Sprintf(" %s=%s", name, n.config[name].Value)
	}
	return text
}

// AcceptsFlakeConfig reports whether the user's own settings accept all settings in the nixConfig
// of a flake.
func (n *Nix) AcceptsFlakeConfig() bool {
	accepted := false
	_ = json.Unmarshal(n.config["accept-flake-config"].Value, &accepted) // without the setting, none is accepted
	return accepted
}

// maxFlakeConfig is the most substituters, and the most keys, that a flake may name.
const maxFlakeConfig = 100

// FlakeConfig returns the binary caches and their public keys in a flake's nixConfig, and nothing
// else that it sets. Invalid ones are left out, and the error, which is returned with the others,
// names the first of these.
func (n *Nix) FlakeConfig(ctx context.Context, flake string) (substituters, keys []string, err error) {
	m, err := n.flakeMetadata(ctx, flake, "--no-write-lock-file")
	if err != nil {
		return nil, nil, err
	}
	source, err := n.flakeSource(ctx, m)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read %s: %w", valid.Quote(flake), err)
	}
	// The flake's code is evaluated purely, so that it sees no credentials.
	out, err := n.output(ctx, "nix", args("eval", "--json", "--expr").checked(expression,
		`builtins.intersectAttrs { substituters = 0; extra-substituters = 0; trusted-public-keys = 0; extra-trusted-public-keys = 0; } `+
			`((import ("${`+source.tree()+`}/" + `+nixString(m.Locked.text("dir"))+` + "/flake.nix")).nixConfig or { })`))
	if err != nil {
		return nil, nil, err
	}
	config := map[string]json.RawMessage{}
	if err := json.Unmarshal(out, &config); err != nil {
		return nil, nil, fmt.Errorf("cannot read nixConfig: %w", err)
	}
	var odd error
	accept := func(check func(string) error, settings ...string) (words []string) {
		for _, setting := range settings {
			for _, word := range configWords(config[setting]) {
				switch err := check(word); {
				case err != nil:
					odd = cmp.Or(odd, fmt.Errorf("%s: %w", setting, err))
				case len(words) == maxFlakeConfig:
					odd = cmp.Or(odd, fmt.Errorf("%s: there are more than %d", setting, maxFlakeConfig))
				default:
					words = append(words, word)
				}
			}
		}
		return words
	}
	substituters = accept(binaryCache, "substituters", "extra-substituters")
	keys = accept(valid.Key, "trusted-public-keys", "extra-trusted-public-keys")
	return substituters, keys, odd
}

// binaryCache accepts the address of a binary cache that a flake may name. Other kinds of stores
// run ssh or read the databases of this machine, and other parameters do without signatures or
// write files.
func binaryCache(address string) error {
	if err := valid.Substituter(address); err != nil {
		return err
	}
	scheme, _, _ := strings.Cut(address, "://")
	if !slices.Contains([]string{"https", "http", "s3", "file"}, scheme) {
		return fmt.Errorf("%s is not a binary cache", valid.Quote(Redact(address)))
	}
	_, query, _ := strings.Cut(address, "?")
	parameters, err := url.ParseQuery(query)
	for name := range parameters {
		if err == nil && !slices.Contains([]string{"priority", "want-mass-query", "region", "endpoint", "scheme"}, name) {
			err = fmt.Errorf("the parameter %s is not accepted", valid.Quote(name))
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", valid.Quote(Redact(address)), err)
	}
	return nil
}

// flakeSource returns a flake's source as a tree in the store, to which it is added if
// necessary.
func (n *Nix) flakeSource(ctx context.Context, m *flakeMetadata) (fetched, error) {
	path := m.Path
	if path != "" {
		if !storepath.Valid(path) {
			return nil, fmt.Errorf("nix flake metadata prints the invalid store path %s", valid.Quote(path))
		}
		isValid, err := n.Valid(ctx, path)
		if err != nil {
			return nil, err
		}
		if !isValid[path] {
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
		return nil, fmt.Errorf("cannot read the hash of %s: %w", path, err)
	}
	return fetchedPath(path, sum), nil
}

// configWords returns the words of a value of nixConfig, which is a list or a string.
func configWords(value json.RawMessage) []string {
	var list []string
	if json.Unmarshal(value, &list) == nil {
		return list
	}
	var text string
	_ = json.Unmarshal(value, &text) // anything else has no words
	return strings.Fields(text)
}
