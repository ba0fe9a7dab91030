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

	"github.com/org/nix-matrix/internal/storepath"
	"github.com/org/nix-matrix/internal/valid"
)

// A Derivation is what the graph of derivations has of one.
type Derivation struct {
	// Outputs are store paths by name, empty where they are known only after the
	// build.
	Outputs map[string]string
	// Inputs are the derivations that it needs, with the names of the outputs that it
	// takes of each; none where only Nix was asked, and any may be taken.
	Inputs map[string][]string
}

// Derivations reads derivations of the store, in the order given: from their files,
// and by asking Nix what can't be read there, as where outputs are that were not known
// before. One that can't be had is empty,
// and the error, which comes beside the others, names the first of them.
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

// complete reports whether a derivation was read, and says where all its outputs are.
func (d *Derivation) complete() bool {
	for _, path := range d.Outputs {
		if path == "" {
			return false
		}
	}
	return d.Outputs != nil
}

// ReadDerivation reads what the graph needs of the content of a .drv file, whose name
// is for errors. What only newer versions of Nix write is an error.
func ReadDerivation(name string, data []byte) (Derivation, error) {
	parsed, err := parseDerivation(name, beginning(data))
	if err != nil {
		return Derivation{}, err
	}
	drv := Derivation{Outputs: make(map[string]string, len(parsed.Outputs)), Inputs: parsed.InputDerivations}
	for name, output := range parsed.Outputs {
		drv.Outputs[name] = output.Path
	}
	return drv, nil
}

// parseDerivation reads a .drv file.
func parseDerivation(path string, data []byte) (*derivation.Derivation, error) {
	drv, err := derivation.ReadDerivation(bytes.NewReader(data))
	if drv != nil && (err == nil || isFloating(drv)) { // go-nix knows no such derivations
		err = checkPaths(drv)
	}
	if err != nil {
		return nil, fmt.Errorf("read derivation %s: %.300s", valid.Quote(path), err.Error())
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

// checkPaths checks all store paths of a derivation, and the names of outputs.
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

// beginning leaves of a derivation its outputs and the derivations that it needs, the
// first two lists. What follows is much longer, and takes longest to read.
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

// askDerivations fills in what could not be read from files: what only newer
// versions of Nix write, and all where the files are out of reach.
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
				return fmt.Errorf("read derivation %s: %w", valid.Quote(path), err)
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

// derivation fills in what is not known of a derivation.
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

// realFile is where the files of a store path really are.
func (n *Nix) realFile(path string) (string, error) {
	return filepath.Join(n.realDir(), filepath.Base(path)), valid.StorePath(path)
}

// realDir is the directory where the files of store paths really are: a store may lie
// in another one than its paths say.
func (n *Nix) realDir() string {
	const dir = "/nix/store"
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
		return nil, fmt.Errorf("read derivation: %w", err)
	}
	return parseDerivation(path, data)
}

// Has says whether the files of all outputs of a derivation are there: after the
// end of its build, whether that went well. It asks no program.
func (n *Nix) Has(drv string) bool {
	d, err := n.Derivation(drv)
	if err != nil {
		return false
	}
	for _, output := range d.Outputs {
		if _, err := os.Lstat(output.Path); err != nil && output.Path != "" { // else it is named by its content
			return false
		}
	}
	return true
}
