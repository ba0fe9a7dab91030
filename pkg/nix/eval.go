package nix

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
)

// An Evaluation applies a function to a value of the user's.
type Evaluation struct {
	// Flake and Attr name a value of a flake; an empty Attr is all its outputs,
	// which needs EvaluatesWholeFlakes. No prefix is tried before Attr except by
	// versions of Nix that can't do without.
	Flake, Attr string
	// Expr is a Nix expression, evaluated impurely, used when Flake is empty.
	Expr string
	// Apply is a Nix function of the value. It must give something small.
	Apply string
}

// EvaluatesWholeFlakes says whether an Evaluation may be of all outputs of a
// flake. Older versions have no name for them.
func (n *Nix) EvaluatesWholeFlakes() bool { return n.atLeast(2, 26) && !n.lix }

// Eval evaluates. What it instantiates is in the store afterwards. Each line
// that the evaluator writes to stderr is given to line as it comes; those that
// line does not take for its own are what an error is made from.
func (n *Nix) Eval(ctx context.Context, e Evaluation, line func(string) bool) error {
	args := []string{"eval", "--json"}
	if e.Flake == "" {
		args = append(args, "--impure", "--expr", "("+e.Apply+"\n) ("+e.Expr+"\n)")
	} else {
		installable := e.Flake + "#" + e.Attr
		if n.EvaluatesWholeFlakes() {
			installable = e.Flake + "#." + e.Attr
		}
		args = append(args, "--no-write-lock-file", installable, "--apply", e.Apply)
	}
	cmd := n.command(ctx, "nix", args...)
	cmd.Stdout = io.Discard
	said := &tail{limit: 16 << 10}
	cmd.Stderr = &lineWriter{line: func(text string) {
		if !line(text) {
			_, _ = said.Write([]byte(text + "\n")) // which takes everything
		}
	}}
	err := cmd.Run()
	return failure(cmd, err, said.String())
}

// FlakeConfig gives the substituters and public keys that a flake's nixConfig
// names, if the user has accepted such settings (accept-flake-config).
func (n *Nix) FlakeConfig(ctx context.Context, flake string) (substituters, keys []string, err error) {
	accepted := false
	if _ = json.Unmarshal(n.config["accept-flake-config"].Value, &accepted); !accepted {
		return nil, nil, nil
	}
	out, err := n.output(ctx, "nix", "flake", "metadata", "--json", "--no-write-lock-file", flake)
	if err != nil {
		return nil, nil, err
	}
	var metadata struct {
		Path   string
		Locked struct{ Dir string }
	}
	if err := json.Unmarshal(out, &metadata); err != nil {
		return nil, nil, fmt.Errorf("read nix flake metadata: %w", err)
	}
	file := filepath.Join(metadata.Path, metadata.Locked.Dir, "flake.nix")
	if out, err = n.output(ctx, "nix", "eval", "--json", "--file", file, "--apply", `flake: flake.nixConfig or { }`); err != nil {
		return nil, nil, err
	}
	config := map[string]json.RawMessage{}
	if err := json.Unmarshal(out, &config); err != nil {
		return nil, nil, fmt.Errorf("read the nixConfig: %w", err)
	}
	substituters = slices.Concat(configWords(config["substituters"]), configWords(config["extra-substituters"]))
	keys = slices.Concat(configWords(config["trusted-public-keys"]), configWords(config["extra-trusted-public-keys"]))
	return substituters, keys, nil
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

// lineWriter gives whole lines on.
type lineWriter struct {
	line   func(string)
	partly strings.Builder
}

func (w *lineWriter) Write(p []byte) (int, error) {
	for rest := string(p); rest != ""; {
		line, after, ended := strings.Cut(rest, "\n")
		w.partly.WriteString(line)
		if !ended {
			break
		}
		w.line(w.partly.String())
		w.partly.Reset()
		rest = after
	}
	return len(p), nil
}
