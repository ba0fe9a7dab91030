package nix

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/derivation"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/internal/valid"
)

// A Derivation is a node of the graph of derivations.
type Derivation struct {
	// Outputs are store paths by name, empty where they are known only after the
	// build.
	Outputs map[string]string
	// Inputs are the derivations that it needs, with the names of the outputs that it
	// needs of each. No names means any, where the file could not be read.
	Inputs map[string][]string
	// Known says that the file names the paths of all outputs, so that they are the same wherever
	// it is built.
	Known bool
	// Light says that the build is a trifle or a download: the derivation prefers to be built
	// locally, or its output is known by its hash.
	Light bool
}

// Derivations reads derivations of the store, in the order given, from their files. It asks
// Nix if a file can't be read, or for outputs that are known only after the build. A derivation
// that can't be read is empty. The error, which is returned with the others, names the first of
// these.
func (n *Nix) Derivations(ctx context.Context, drvs []string) ([]Derivation, error) {
	all := make([]Derivation, len(drvs))
	read := make([]bool, len(drvs))
	dir := n.realDir()
	var g errgroup.Group
	readers := min(len(drvs), 2*runtime.GOMAXPROCS(0)) // some wait for the disk, some parse
	for first := range readers {
		g.Go(func() error {
			for i := first; i < len(drvs) && ctx.Err() == nil; i += readers {
				if storepath.Valid(drvs[i]) {
					all[i] = readBeginning(filepath.Join(dir, filepath.Base(drvs[i])))
					read[i] = all[i].complete()
				}
			}
			return nil
		})
	}
	_ = g.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return all, n.askDerivations(ctx, drvs, all, read)
}

// readBeginning reads a .drv file. One that can't be read is empty.
func readBeginning(file string) Derivation {
	data, err := os.ReadFile(file)
	if err != nil {
		return Derivation{}
	}
	drv, _ := ReadDerivation(file, data)
	return drv
}

// complete reports whether a derivation was read and the paths of all its outputs are known.
func (d *Derivation) complete() bool {
	for _, path := range d.Outputs {
		if path == "" {
			return false
		}
	}
	return d.Outputs != nil
}

// ReadDerivation parses the part of a .drv file that the graph needs. The name is for errors.
// Syntax of newer versions of Nix is an error.
func ReadDerivation(name string, data []byte) (Derivation, error) {
	parsed, err := parseDerivation(name, beginning(data))
	if err != nil {
		return Derivation{}, err
	}
	drv := Derivation{
		Outputs: make(map[string]string, len(parsed.Outputs)),
		Inputs:  parsed.InputDerivations,
		Known:   !isFloating(parsed),
		Light:   prefersLocal(data),
	}
	for name, output := range parsed.Outputs {
		drv.Outputs[name] = output.Path
		drv.Light = drv.Light || drv.Known && output.HashAlgorithm != ""
	}
	return drv, nil
}

// prefersLocal reports whether a .drv file has the attribute preferLocalBuild, in its environment or in
// structured attributes. It only reads the text, in which a quote within a value is escaped.
func prefersLocal(data []byte) bool {
	return bytes.Contains(data, []byte(`("preferLocalBuild","1")`)) || bytes.Contains(data, []byte(`\"preferLocalBuild\":true`))
}

// parseDerivation parses a .drv file.
func parseDerivation(path string, data []byte) (*derivation.Derivation, error) {
	drv, err := derivation.ReadDerivation(bytes.NewReader(data))
	if drv != nil && (err == nil || isFloating(drv)) { // go-nix refuses such derivations
		err = checkPaths(drv)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read derivation %s: %.300s", valid.Quote(path), err.Error())
	}
	return drv, nil
}

// isFloating reports whether the path of an output is known only after the build.
func isFloating(drv *derivation.Derivation) bool {
	for _, output := range drv.Outputs {
		if output.Path == "" {
			return true
		}
	}
	return false
}

// checkPaths checks all store paths and names of outputs of a derivation.
func checkPaths(drv *derivation.Derivation) error {
	for name, output := range drv.Outputs {
		if err := valid.Output(name); err != nil {
			return err
		}
		if err := valid.StorePath(output.Path); err != nil && output.Path != "" {
			return err
		}
	}
	for input, outputs := range drv.InputDerivations {
		if err := cmp.Or(valid.Derivation(input), valid.All(valid.Output, outputs...)); err != nil {
			return err
		}
	}
	return valid.All(valid.StorePath, drv.InputSources...)
}

// beginning returns a derivation with only its first two lists, outputs and input derivations.
// The rest is much longer and slow to parse.
func beginning(drv []byte) []byte {
	depth, lists, quoted := 0, 0, false
	for i := 0; i < len(drv); i++ {
		switch c := drv[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[':
			depth++
		case c == ']':
			depth--
			if depth == 0 {
				lists++
			}
			if lists == 2 {
				return append(slices.Clip(drv[:i+1]), `,[],"-","-",[],[("name","-")])`...)
			}
		}
	}
	return drv
}

// askDerivations asks Nix for the derivations that could not be read from files, because the
// files are out of reach or have the syntax of a newer version.
func (n *Nix) askDerivations(ctx context.Context, drvs []string, all []Derivation, read []bool) error {
	var d *Daemon
	var first error
	failed := 0
	for i, path := range drvs {
		if read[i] {
			continue
		}
		if d == nil {
			var err error
			if d, err = n.Connect(ctx); err != nil {
				return fmt.Errorf("cannot read derivation %s: %w", valid.Quote(path), err)
			}
			defer d.Close()
		}
		if err := d.derivation(path, &all[i]); err != nil {
			first = cmp.Or(first, err)
			failed++
		}
	}
	if failed > 1 {
		return fmt.Errorf("%w (and %d more)", first, failed-1)
	}
	return first
}

// derivation sets the outputs of a derivation, and its inputs if they are not known.
func (d *Daemon) derivation(path string, drv *Derivation) error {
	outputs, err := d.OutputMap(path)
	if err != nil {
		return err
	}
	if drv.Inputs == nil {
		info, err := d.PathInfo(path)
		if err != nil {
			return err
		}
		drv.Inputs = map[string][]string{}
		for _, reference := range info.References {
			if strings.HasSuffix(reference, ".drv") {
				drv.Inputs[reference] = nil
			}
		}
	}
	drv.Outputs = outputs
	return nil
}

// realFile returns the file or directory of a store path.
func (n *Nix) realFile(path string) (string, error) {
	return filepath.Join(n.realDir(), filepath.Base(path)), valid.StorePath(path)
}

// FreeSpace returns how many bytes the file system of the store has room for.
func (n *Nix) FreeSpace() (int64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(n.realDir(), &stat); err != nil {
		return 0, err
	}
	return int64(stat.Bavail) * int64(stat.Bsize), nil //nolint:gosec,unconvert // no disk is that large; the type differs by system
}

// realDir returns the directory with the files of the store, which may be another one than the
// paths say.
func (n *Nix) realDir() string {
	const dir = "/nix/store"
	if n.root != "" {
		return filepath.Join(n.root, dir)
	}
	address, query, _ := strings.Cut(n.Text("store"), "?")
	settings, err := url.ParseQuery(query)
	if err != nil {
		return dir
	}
	root := settings.Get("root")
	if local := strings.TrimPrefix(address, "local://"); root == "" && strings.HasPrefix(local, "/") {
		root = local
	}
	return cmp.Or(settings.Get("real"), filepath.Join(root, dir))
}

// Derivation reads a .drv file of the store.
func (n *Nix) Derivation(path string) (*derivation.Derivation, error) {
	file, err := n.realFile(path)
	var data []byte
	if err == nil {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read derivation: %w", err)
	}
	return parseDerivation(path, data)
}

// Has reports whether the files of all outputs of a derivation exist, which after its build
// means that the build succeeded. It runs no program.
func (n *Nix) Has(drv string) bool {
	d, err := n.Derivation(drv)
	if err != nil {
		return false
	}
	for _, output := range d.Outputs {
		if _, err := os.Lstat(output.Path); err != nil && output.Path != "" { // without a path, it is named by its content
			return false
		}
	}
	return true
}
