package nix

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
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
// and those that can't be read there by asking Nix. One that can't be had is empty,
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
				all[i], read[i] = readBeginning(filepath.Join(dir, filepath.Base(drvs[i])))
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

func readBeginning(file string) (drv Derivation, ok bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Derivation{}, false
	}
	drv, err = ReadDerivation(file, data)
	return drv, err == nil
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
				return fmt.Errorf("read derivation %s: %w", path, err)
			}
			defer d.Close()
		}
		var err error
		if all[i], err = d.derivation(path); err != nil {
			first = cmp.Or(first, err)
			failed++
		}
	}
	if failed > 1 {
		return fmt.Errorf("%w (and %d more)", first, failed-1)
	}
	return first
}

func (d *Daemon) derivation(path string) (Derivation, error) {
	outputs, err := d.OutputMap(path)
	if err != nil {
		return Derivation{}, err
	}
	info, err := d.PathInfo(path)
	if err != nil {
		return Derivation{}, err
	}
	drv := Derivation{Outputs: outputs, Inputs: map[string][]string{}}
	for _, reference := range info.References {
		if strings.HasSuffix(reference, ".drv") {
			drv.Inputs[reference] = nil
		}
	}
	return drv, nil
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
