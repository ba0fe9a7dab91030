package nix

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"golang.org/x/sync/errgroup"
)

// An Input is a locked input of a flake.
type Input struct {
	// Path is the store path of its source, if that is in the store.
	Path string

	locked fetched
}

// fetchedPath are the attributes of a tree in the store, by the SHA-256 of its NAR.
func fetchedPath(path string, nar []byte) fetched {
	text := func(s string) json.RawMessage {
		data, _ := json.Marshal(s) // a string can be marshalled
		return data
	}
	return fetched{
		"type": text("path"), "path": text(path), "narHash": text("sha256-" + base64.StdEncoding.EncodeToString(nar)),
	}
}

// tree is an expression for the tree that is fetched. "__final" is for Nix alone, and the
// directory of a flake is not part of its tree.
func (f fetched) tree() string {
	attrs := maps.Clone(f)
	delete(attrs, "__final")
	delete(attrs, "dir")
	data, _ := json.Marshal(attrs) // what was unmarshalled can be marshalled
	return "builtins.fetchTree (builtins.fromJSON " + nixString(string(data)) + ")"
}

// nixString quotes a string for a Nix expression.
func nixString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(s) + `"`
}

// fetchTree puts a tree into the store and returns its path. An evaluator need not do so
// with what it only reads, but with what a derivation refers to. Nothing that the user has
// written is evaluated.
func (n *Nix) fetchTree(ctx context.Context, attrs fetched, flag literal, env []string) (path string, err error) {
	cmd := n.command(ctx, "nix", args("eval", "--raw", flag, "--expr").checked(expression,
		`(derivation { name = "tree"; system = "none"; builder = "none"; tree = (`+attrs.tree()+`).outPath; }).drvPath`))
	cmd.Env = append(cmd.Env, env...)
	drvPath, err := n.capture(cmd)
	if err != nil {
		return "", err
	}
	drv, err := n.Derivation(string(drvPath))
	if err != nil {
		return "", err
	}
	if len(drv.InputSources) != 1 {
		return "", fmt.Errorf("%s has %d sources, not one", drvPath, len(drv.InputSources))
	}
	return drv.InputSources[0], nil
}

// unconnected are variables with which Nix and the programs that it starts connect to no
// server: --offline alone only makes it give up soon.
var unconnected = []string{
	"http_proxy=" + nowhere, "https_proxy=" + nowhere, "HTTPS_PROXY=" + nowhere, "all_proxy=" + nowhere, "ALL_PROXY=" + nowhere,
	"no_proxy=", "NO_PROXY=", "GIT_SSH_COMMAND=false", "GIT_TERMINAL_PROMPT=0",
}

// nowhere is a proxy at a port where nothing may listen.
const nowhere = "http://127.0.0.1:0"

// InputsToStore puts inputs into the store that an evaluation has downloaded and reads from
// where they were downloaded to. It downloads nothing, so that what no evaluation needed is
// left out. The error is why one of them was.
func (n *Nix) InputsToStore(ctx context.Context, inputs []Input) error {
	if n.CopiesInputs() {
		return nil
	}
	const atOnce = 4
	errs := make([]error, len(inputs))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := range errs {
		g.Go(func() error {
			_, errs[i] = n.fetchTree(ctx, inputs[i].locked, "--offline", unconnected)
			return nil
		})
	}
	_ = g.Wait()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("put %s into the store: %w", inputs[i].Path, err)
		}
	}
	return nil
}
