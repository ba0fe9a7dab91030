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
	// Path is the store path of its source, whether valid or not.
	Path string

	locked fetched
}

// fetchedPath returns the attributes of a tree in the store from the SHA-256 of its NAR.
func fetchedPath(path string, nar []byte) fetched {
	text := func(s string) json.RawMessage {
		data, _ := json.Marshal(s) // a string can be marshalled
		return data
	}
	return fetched{
		"type": text("path"), "path": text(path), "narHash": text("sha256-" + base64.StdEncoding.EncodeToString(nar)),
	}
}

// tree returns an expression for the fetched tree. Only Nix itself may use "__final", and "dir"
// is the directory of a flake in its tree.
func (f fetched) tree() string {
	attrs := maps.Clone(f)
	delete(attrs, "__final")
	delete(attrs, "dir")
	data, _ := json.Marshal(attrs) // it was unmarshalled, so it can be marshalled
	return "builtins.fetchTree (builtins.fromJSON " + nixString(string(data)) + ")"
}

// nixString returns a string as a literal of Nix's language.
func nixString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(s) + `"`
}

// fetchTree adds a tree to the store and returns its path. It has a derivation refer to the
// tree, because an evaluator need not add a tree that it only reads. None of the user's code is
// evaluated.
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

// unconnected are variables that keep Nix and the programs that it starts from connecting to
// servers: --offline alone only shortens the attempts.
var unconnected = []string{
	"http_proxy=" + nowhere, "https_proxy=" + nowhere, "HTTPS_PROXY=" + nowhere, "all_proxy=" + nowhere, "ALL_PROXY=" + nowhere,
	"no_proxy=", "NO_PROXY=", "GIT_SSH_COMMAND=false", "GIT_TERMINAL_PROMPT=0",
}

// nowhere is a proxy at a port on which nothing can listen.
const nowhere = "http://127.0.0.1:0"

// InputsToStore adds inputs to the store that an evaluation has downloaded to Nix's cache. It
// downloads nothing, so inputs that no evaluation needed are left out. The error names the
// first of these.
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
			return fmt.Errorf("cannot add %s to the store: %w", inputs[i].Path, err)
		}
	}
	return nil
}
