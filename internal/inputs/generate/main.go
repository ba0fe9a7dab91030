// Command generate writes what follows from the inputs in action.yml: the variables of the action's
// own steps, the inputs, secrets and with blocks of the reusable workflow, docs/inputs.md, and the
// table of internal/inputs. With --check it only says which of these files differ.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	check := flag.Bool("check", false, "write nothing, and fail if a file is not as it would be written")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

const (
	actionFile   = "action.yml"
	workflowFile = ".github/workflows/nix-matrix.yml"
	updateFile   = ".github/workflows/update.yml"
	tableFile    = "internal/inputs/table.go"
	docsFile     = "docs/inputs.md"
)

func run(check bool) error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	read := func(name string) (data []byte) {
		if err == nil {
			data, err = os.ReadFile(filepath.Join(root, name))
		}
		return data
	}
	action, workflow, update := read(actionFile), read(workflowFile), read(updateFile)
	if err != nil {
		return err
	}
	files, err := generate(string(action), string(workflow), string(update))
	if err != nil {
		return err
	}
	var stale []string
	for name, text := range files {
		file := filepath.Join(root, name)
		if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, []byte(text)) {
			continue
		}
		stale = append(stale, name)
		if !check {
			err = errors.Join(err, os.WriteFile(file, []byte(text), 0o644))
		}
	}
	if slices.Sort(stale); check && len(stale) > 0 {
		return fmt.Errorf("%s: not as generated from action.yml. Run go generate ./internal/inputs", strings.Join(stale, ", "))
	}
	return err
}

// findRoot returns the directory of the repository, which go generate and make start this program
// in, or below.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, actionFile)); err == nil {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", fmt.Errorf("there is no %s in the working directory or above it", actionFile)
		}
		dir = filepath.Dir(dir)
	}
}

// generate returns the texts of all files.
func generate(action, workflow, update string) (map[string]string, error) {
	a, err := parseAction(action)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", actionFile, err)
	}
	w, err := parseWorkflow(workflow)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", workflowFile, err)
	}
	u, err := parseWorkflow(update)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", updateFile, err)
	}
	building, updating := []string{"discover", "build", "report"}, []string{"update", "propose"}
	texts := map[string]string{actionFile: action, workflowFile: workflow, updateFile: update}
	for _, part := range []struct {
		file, marker string
		lines        []string
	}{
		{actionFile, "main", a.variables(allCommands...)},
		{actionFile, "again", a.variables("build", "report")},
		{workflowFile, "inputs", a.workflowInputs(w, building)},
		{workflowFile, "secrets", a.workflowSecrets(building)},
		{workflowFile, "discover", a.with("discover")},
		{workflowFile, "build", a.with("build")},
		{workflowFile, "report", a.with("report")},
		{updateFile, "inputs", a.workflowInputs(u, updating)},
		{updateFile, "secrets", a.workflowSecrets(updating)},
		{updateFile, "update", a.with("update")},
		{updateFile, "propose", a.with("propose")},
	} {
		if texts[part.file], err = fill(texts[part.file], part.marker, part.lines); err != nil {
			return nil, fmt.Errorf("%s: %w", part.file, err)
		}
	}
	texts[docsFile] = a.docs(w, u)
	texts[tableFile], err = a.table()
	return texts, err
}

// fill replaces the lines between the two comments that mark a generated part, whose indentation
// they get.
func fill(text, marker string, lines []string) (string, error) {
	const end = "# end of generated\n"
	before, rest, ok := strings.Cut(text, "# generated "+marker+"\n")
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("there is no part between \"# generated %s\" and \"%s\"", marker, strings.TrimSpace(end))
	}
	indent := before[strings.LastIndexByte(before, '\n')+1:]
	var b strings.Builder
	fmt.Fprintf(&b, "%s# generated %s\n", before, marker)
	for _, line := range lines {
		if line != "" {
			line = indent + line
		}
		fmt.Fprintln(&b, line)
	}
	return b.String() + indent + end + after, nil
}
