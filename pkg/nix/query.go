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

// A PathInfo is the metadata of a valid path.
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

// PathsOf returns the store paths of infos, in their order.
func PathsOf(infos []PathInfo) []string {
	paths := make([]string, len(infos))
	for i := range infos {
		paths[i] = infos[i].Path
	}
	return paths
}

// StorePath returns the store path of an argument, which may also be a path below it or a
// symlink to it, such as ./result.
func StorePath(arg string) (string, error) {
	if storepath.Valid(arg) {
		return arg, nil
	}
	path, err := filepath.EvalSymlinks(arg)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		var at *fs.PathError // its path is as hostile as arg
		if errors.As(err, &at) {
			err = at.Err
		}
		return "", fmt.Errorf("%s is neither a store path nor a symlink to one: %w", valid.Quote(arg), err)
	}
	const dir = "/nix/store/"
	name, inside := strings.CutPrefix(path, dir)
	name, _, _ = strings.Cut(name, "/")
	if !inside || !storepath.Valid(dir+name) {
		return "", fmt.Errorf("%s is neither a store path nor a symlink to one: it is %s", valid.Quote(arg), valid.Quote(path))
	}
	return dir + name, nil
}

// Requisites returns the closure of the paths, references before their referrers. The closure
// of a derivation has the derivations and sources that it needs.
func (n *Nix) Requisites(ctx context.Context, paths ...string) ([]string, error) {
	var all []string
	seen := map[string]bool{}
	for _, piece := range chunks(paths) {
		out, err := n.output(ctx, "nix-store", args("--query", "--requisites").operands(valid.StorePath, piece...))
		if err != nil {
			return nil, fmt.Errorf("cannot query the closure: %w", err)
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

// Closure returns the metadata of the closure of the paths.
func (n *Nix) Closure(ctx context.Context, paths ...string) (map[string]PathInfo, error) {
	closure := make(map[string]PathInfo, len(paths))
	for _, piece := range chunks(paths) {
		with := args("path-info", "--recursive", "--json")
		if n.HasJSONFormat() {
			with.add("--json-format", "1")
		}
		out, err := n.output(ctx, "nix", with.operands(valid.StorePath, piece...))
		if err != nil {
			return nil, fmt.Errorf("cannot query the closure: %w", err)
		}
		infos, err := parsePathInfo(out)
		if err != nil {
			return nil, fmt.Errorf("cannot read nix path-info: %w", err)
		}
		maps.Copy(closure, infos)
	}
	return closure, nil
}

// parsePathInfo parses the output of `nix path-info --json`: an object by path, in
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
			return nil, fmt.Errorf("invalid NAR hash of %s: %w", valid.Quote(path), err)
		}
		infos[path] = PathInfo{
			Path: path, NarHash: hash, NarSize: i.NarSize, Deriver: i.Deriver,
			References: i.References, Signatures: i.Signatures, CA: i.CA,
		}
	}
	return infos, nil
}

// hexHash returns a SHA-256, in any of Nix's forms, in base16. "" stays "".
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

// Valid returns which of the paths are valid.
func (n *Nix) Valid(ctx context.Context, paths ...string) (map[string]bool, error) {
	validPaths := make(map[string]bool, len(paths))
	for _, path := range paths {
		validPaths[path] = true
	}
	for _, piece := range chunks(paths) {
		out, err := n.output(ctx, "nix-store", args("--check-validity", "--print-invalid").operands(valid.StorePath, piece...))
		if err != nil {
			return nil, fmt.Errorf("cannot query valid paths: %w", err)
		}
		for _, path := range lines(out) {
			delete(validPaths, path)
		}
	}
	return validPaths, nil
}

// Outputs returns the paths of derivations' outputs by name. A path that is known only after
// the build is empty until then.
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

// A PathError is an error of one path. Others may be fine.
type PathError struct {
	Path string
	Err  error
}

func (e *PathError) Error() string { return e.Path + ": " + e.Err.Error() }

func (e *PathError) Unwrap() error { return e.Err }
