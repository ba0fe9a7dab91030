package nix

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixhash"

	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/internal/valid"
)

// A PathInfo is what the store knows of a valid path.
type PathInfo struct {
	Path       string
	NarHash    string // sha256, base16
	NarSize    int64  // bytes
	Deriver    string // store path or empty
	References []string
	Signatures []string // NAME:BASE64
	CA         string   // content address or empty
	Ultimate   bool     // the path was built here; known to FullInfo only
}

// StorePath gives the store path that an argument is, lies in, or leads to, as ./result
// does.
func StorePath(arg string) (string, error) {
	if storepath.Valid(arg) {
		return arg, nil
	}
	path, err := filepath.EvalSymlinks(arg)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		var at *fs.PathError // whose path may be as odd as arg
		if errors.As(err, &at) {
			err = at.Err
		}
		return "", fmt.Errorf("%s is no store path, nor does it lead to one: %w", valid.Quote(arg), err)
	}
	const dir = "/nix/store/"
	name, inside := strings.CutPrefix(path, dir)
	name, _, _ = strings.Cut(name, "/")
	if !inside || !storepath.Valid(dir+name) {
		return "", fmt.Errorf("%s is no store path, nor does it lead to one: it is %s", valid.Quote(arg), valid.Quote(path))
	}
	return dir + name, nil
}

// Requisites gives the closure of the paths, references before what refers to
// them. Of a derivation, that is the derivations and sources that it needs.
func (n *Nix) Requisites(ctx context.Context, paths ...string) ([]string, error) {
	var all []string
	seen := map[string]bool{}
	for _, piece := range chunks(paths) {
		out, err := n.output(ctx, "nix-store", args("--query", "--requisites").operands(valid.StorePath, piece...))
		if err != nil {
			return nil, fmt.Errorf("ask for the closure: %w", err)
		}
		for _, path := range lines(out) {
			if !seen[path] {
				seen[path] = true
				all = append(all, path)
			}
		}
	}
	return all, nil
}

// Closure returns what the store knows of the closure of the paths, signatures and content
// addresses too.
func (n *Nix) Closure(ctx context.Context, paths ...string) (map[string]PathInfo, error) {
	closure := make(map[string]PathInfo, len(paths))
	for _, piece := range chunks(paths) {
		with := args("path-info", "--recursive", "--json")
		if n.HasJSONFormat() {
			with.add("--json-format", "1")
		}
		out, err := n.output(ctx, "nix", with.operands(valid.StorePath, piece...))
		if err != nil {
			return nil, fmt.Errorf("ask the store for the closure: %w", err)
		}
		infos, err := parsePathInfo(out)
		if err != nil {
			return nil, fmt.Errorf("read nix path-info: %w", err)
		}
		maps.Copy(closure, infos)
	}
	return closure, nil
}

// parsePathInfo reads what `nix path-info --json` writes: an object by path, in
// versions before 2.19 an array.
func parsePathInfo(out []byte) (map[string]PathInfo, error) {
	type info struct {
		Path, NarHash, Deriver, CA string
		NarSize                    int64
		References, Signatures     []string
	}
	byPath := map[string]*info{}
	if err := json.Unmarshal(out, &byPath); err != nil {
		var list []*info
		if json.Unmarshal(out, &list) != nil {
			return nil, err
		}
		for _, i := range list {
			byPath[i.Path] = i
		}
	}
	infos := make(map[string]PathInfo, len(byPath))
	for path, i := range byPath {
		if i == nil { // not valid
			continue
		}
		hash, err := hexHash(i.NarHash)
		if err != nil {
			return nil, fmt.Errorf("the NAR hash of %s: %w", valid.Quote(path), err)
		}
		infos[path] = PathInfo{
			Path: path, NarHash: hash, NarSize: i.NarSize, Deriver: i.Deriver,
			References: i.References, Signatures: i.Signatures, CA: i.CA,
		}
	}
	return infos, nil
}

// hexHash returns a SHA-256 in base16 that Nix writes in any of its forms. No hash remains
// none.
func hexHash(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	algorithm := nixhash.SHA256
	hash, err := nixhash.ParseAny(text, &algorithm)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Digest()), nil
}

// Valid says which of the paths are valid in the store.
func (n *Nix) Valid(ctx context.Context, paths ...string) (map[string]bool, error) {
	there := make(map[string]bool, len(paths))
	for _, path := range paths {
		there[path] = true
	}
	for _, piece := range chunks(paths) {
		out, err := n.output(ctx, "nix-store", args("--check-validity", "--print-invalid").operands(valid.StorePath, piece...))
		if err != nil {
			return nil, fmt.Errorf("ask the store for valid paths: %w", err)
		}
		for _, path := range lines(out) {
			delete(there, path)
		}
	}
	return there, nil
}

// Outputs returns the outputs of derivations by name. The path of one that is known
// only after the build is empty until then.
func (n *Nix) Outputs(ctx context.Context, drvs ...string) (map[string]map[string]string, error) {
	outputs := make(map[string]map[string]string, len(drvs))
	if len(drvs) == 0 {
		return outputs, nil
	}
	d, err := n.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if outputs, err = d.outputMaps(drvs); err != nil {
		return nil, d.explain(errors.Join(err, d.Close()))
	}
	return outputs, d.Close()
}

// A PathError says what is wrong with one path, where others may be fine.
type PathError struct {
	Path string
	Err  error
}

func (e *PathError) Error() string { return e.Path + ": " + e.Err.Error() }

func (e *PathError) Unwrap() error { return e.Err }
