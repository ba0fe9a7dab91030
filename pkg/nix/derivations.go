package nix

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/nix-community/go-nix/pkg/derivation"
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

func newDerivation(drv *derivation.Derivation) Derivation {
	d := Derivation{Outputs: make(map[string]string, len(drv.Outputs)), Inputs: drv.InputDerivations}
	for name, output := range drv.Outputs {
		d.Outputs[name] = output.Path
	}
	return d
}

// ReadDerivation reads what a .drv file has. What only newer versions of Nix write
// is an error.
func ReadDerivation(r io.Reader) (Derivation, error) {
	drv, err := derivation.ReadDerivation(r)
	if err != nil {
		return Derivation{}, err
	}
	return newDerivation(drv), nil
}

// Derivations reads derivations of the store, in the order given: from their files,
// and those that can't be read there by asking Nix. One that can't be had is empty,
// and the error, which comes beside the others, names the first of them.
func (n *Nix) Derivations(ctx context.Context, drvs []string) ([]Derivation, error) {
	all := make([]Derivation, len(drvs))
	read := make([]bool, len(drvs))
	var g errgroup.Group
	g.SetLimit(2 * runtime.GOMAXPROCS(0)) // some wait for the disk, some parse
	for i, path := range drvs {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			drv, err := n.Derivation(path)
			if err != nil {
				return nil //nolint:nilerr // then Nix is asked
			}
			read[i] = true
			all[i] = newDerivation(drv)
			return nil
		})
	}
	_ = g.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return all, n.askDerivations(ctx, drvs, all, read)
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

// realFile says where the file of a store path really is: a store may lie in
// another directory than its paths say.
func (n *Nix) realFile(path string) string {
	address, query, _ := strings.Cut(n.Text("store"), "?")
	settings, err := url.ParseQuery(query)
	if err != nil {
		return path
	}
	root := settings.Get("root")
	if local := strings.TrimPrefix(address, "local://"); root == "" && strings.HasPrefix(local, "/") {
		root = local
	}
	switch {
	case settings.Get("real") != "":
		return filepath.Join(settings.Get("real"), filepath.Base(path))
	case root != "":
		return filepath.Join(root, path)
	}
	return path
}
