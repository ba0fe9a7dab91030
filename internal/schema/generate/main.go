// Command generate writes the JSON Schemas in docs/schema, of what commands print with --json, from the types that
// they print and the comments of these. With --check it only says which of the files differ.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/plan"
	"github.com/org/nix-matrix/pkg/verdict"
)

// A document is something that commands print.
type document struct {
	name  string // of its file
	title string
	of    reflect.Type
}

var documents = []document{
	{"matrix.json", "The job matrix, as nix-matrix discover prints it", reflect.TypeFor[job.Matrix]()},
	{"forecast.json", "The expected run, as nix-matrix plan --json prints it", reflect.TypeFor[plan.Forecast]()},
	{"verdict.json", "The verdict, as nix-matrix report --json and nix-matrix run --json print it", reflect.TypeFor[verdict.Verdict]()},
}

// names are the names of types that have one in another package as well.
var names = map[reflect.Type]string{reflect.TypeFor[job.Target](): "PlannedTarget"}

const (
	module = "github.com/org/nix-matrix/"
	dir    = "docs/schema"
	// idBase is the address of dir in the newest release of the first major version.
	idBase = "https://raw.githubusercontent.com/org/nix-matrix/v1/docs/schema/"
)

func main() {
	check := flag.Bool("check", false, "write nothing, and fail if a file is not as it would be written")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	files, err := generate(root)
	if err != nil {
		return err
	}
	var stale []string
	for name, data := range files {
		file := filepath.Join(root, dir, name)
		if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, data) {
			continue
		}
		stale = append(stale, dir+"/"+name)
		if !check {
			err = errors.Join(err, os.WriteFile(file, data, 0o644))
		}
	}
	if slices.Sort(stale); check && len(stale) > 0 {
		return fmt.Errorf("%s: not as generated from the types. Run go generate ./internal/schema", strings.Join(stale, ", "))
	}
	return err
}

// findRoot returns the directory of the repository, which go generate and make start this program in, or below.
func findRoot() (string, error) {
	at, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if filepath.Dir(at) == at {
			return "", errors.New("there is no go.mod in the working directory or above it")
		}
		at = filepath.Dir(at)
	}
}

// generate returns the schemas by the names of their files.
func generate(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, d := range documents {
		w := &writer{root: root, packages: map[string]*source{}, defs: map[string]object{}, named: map[string]reflect.Type{}}
		body, err := w.structure(d.of)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.name, err)
		}
		about, err := w.comment(d.of)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.name, err)
		}
		schema := append(object{
			{"$schema", "https://json-schema.org/draft/2020-12/schema"},
			{"$id", idBase + d.name},
			{"title", d.title},
			{"description", about},
		}, body...)
		if len(w.defs) > 0 {
			schema = append(schema, member{"$defs", w.defs})
		}
		var data bytes.Buffer
		e := json.NewEncoder(&data)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(schema); err != nil {
			return nil, fmt.Errorf("%s: %w", d.name, err)
		}
		files[d.name] = data.Bytes()
	}
	return files, nil
}
