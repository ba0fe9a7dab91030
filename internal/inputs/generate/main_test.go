package main

import (
	"os"
	"strings"
	"testing"
)

// The files are as generated, and a change of action.yml makes all of them stale.
func TestGenerate(t *testing.T) {
	if err := run(true); err != nil {
		t.Error(err)
	}
	read := func(name string) string {
		data, err := os.ReadFile("../../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	action, workflow, update := read(actionFile), read(workflowFile), read(updateFile)
	changed := strings.Replace(action, "\ninputs:\n", "\ninputs:\n  new_one:\n    description: \"discover and build: a *new* one\"\n    default: \"false\"\n", 1)
	files, err := generate(changed, workflow, update)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{
		actionFile:   2, // in both steps
		workflowFile: 2, // in both jobs
		docsFile:     2, // in both tables
		tableFile:    1,
	} {
		line := map[string]string{
			actionFile: "\n        INPUT_NEW_ONE: ${{ inputs.new_one }}\n", workflowFile: "\n          new_one: ${{ inputs.new_one }}\n",
			docsFile: "\n| `new_one` | `false` | a \\*new\\* one |\n", tableFile: "\n\t{Name: \"new_one\", Commands: []string{\"discover\", \"build\"}, Help: \"a *new* one\"},\n",
		}[name]
		if got := strings.Count(files[name], line); got != want {
			t.Errorf("%s has %q %d times, want %d", name, line, got, want)
		}
	}
	if want := "\n      new_one:\n        description: \"a *new* one\"\n        type: boolean\n        default: false\n"; !strings.Contains(files[workflowFile], want) {
		t.Errorf("the workflow does not have %s", want)
	}
	if n := strings.Count(files[updateFile], "new_one"); n != 0 {
		t.Errorf("the workflow for updates has an input of discover %d times", n)
	}
	// An input that the workflow declares, with a type of its own, is not declared again.
	if n := strings.Count(files[workflowFile], "\n      max_parallel:\n"); n != 1 || !strings.Contains(files[workflowFile], "\n          max_parallel: ${{ inputs.max_parallel }}\n") {
		t.Errorf("the workflow declares max_parallel %d times", n)
	}
}

// A file that generated lines have no place in is refused, and so is a description that nobody could show.
func TestRefused(t *testing.T) {
	const none = "on:\n  workflow_call:\n    inputs: {}\n    outputs: {}\n"
	const good = "inputs:\n  a: {description: x}\noutputs:\n  b: {description: y}\nruns:\n  steps: []\n"
	for text, want := range map[string]string{
		good:                        "there is no part between",
		good + "# generated main\n": "there is no part between",
		strings.Replace(good, "x}", `"x\ny"}`, 1):      "a: the description must be one line",
		strings.Replace(good, "x}", `"build: "}`, 1):   "a: the description must be one line",
		strings.Replace(good, "x}", `"secret, x"}`, 1): "the secret a becomes no variable",
		"outputs: {}\n":            "inputs or outputs are missing",
		"inputs: x\noutputs: {}\n": "inputs or outputs are missing",
	} {
		if _, err := generate(text, none, none); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s, of:\n%s", err, want, text)
		}
	}
}
