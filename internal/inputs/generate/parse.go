package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// An input is one of the action or of the workflow.
type input struct {
	name        string
	group       string   // comment that stands before it
	commands    []string // that take it
	secret      bool
	variable    string // that a secret becomes
	description string // without commands, and "secret"
	value       string // by default
}

// An action is what action.yml says.
type action struct {
	inputs  []input
	outputs []input
}

// A workflow is what a reusable workflow says.
type workflow struct{ own, secrets, outputs []input } // inputs and secrets of its own, and all outputs

var allCommands = []string{"discover", "build", "report", "restore", "save", "update", "propose", "gc"}

var (
	oneCommand = "(?:" + strings.Join(allCommands, "|") + ")"
	prefix     = regexp.MustCompile("^(" + oneCommand + "(?: and " + oneCommand + ")*): ")
)

type entry struct{ Description, Default string }

func parseAction(text string) (*action, error) {
	var file struct {
		Inputs, Outputs yaml.Node
		Runs            struct {
			Steps []struct {
				ID  string
				Env map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		return nil, err
	}
	a := &action{}
	var err error
	if a.inputs, err = entries(&file.Inputs); err != nil {
		return nil, err
	}
	if a.outputs, err = entries(&file.Outputs); err != nil {
		return nil, err
	}
	env := map[string]string{}
	for _, step := range file.Runs.Steps {
		if step.ID == "main" {
			env = step.Env
		}
	}
	for i := range a.inputs {
		in := &a.inputs[i]
		use := regexp.MustCompile(`\binputs\.` + in.name + `\b`)
		for variable, value := range env {
			if in.secret && use.MatchString(value) {
				in.variable = variable
			}
		}
		if in.secret && in.variable == "" {
			return nil, fmt.Errorf("the secret %s becomes no variable of the step main", in.name)
		}
	}
	return a, nil
}

func parseWorkflow(text string) (*workflow, error) {
	var file struct {
		On struct {
			Call struct{ Inputs, Outputs yaml.Node } `yaml:"workflow_call"`
		}
	}
	own, _, _ := strings.Cut(text, "# generated inputs\n")
	if err := yaml.Unmarshal([]byte(own), &file); err != nil {
		return nil, err
	}
	w := &workflow{}
	var err error
	if w.own, err = entries(&file.On.Call.Inputs); err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		return nil, err
	}
	if w.outputs, err = entries(&file.On.Call.Outputs); err != nil {
		return nil, err
	}
	_, secrets, _ := strings.Cut(text, "\n    secrets:\n")
	secrets, _, _ = strings.Cut(secrets, "# generated secrets\n")
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(secrets), &node); err != nil || node.Kind == 0 {
		return w, err
	}
	if w.secrets, err = entries(node.Content[0]); err != nil {
		return nil, err
	}
	return w, nil
}

// entries returns the inputs or outputs of a mapping, in its order.
func entries(node *yaml.Node) ([]input, error) {
	if node.Kind != yaml.MappingNode {
		return nil, errors.New("inputs or outputs are missing")
	}
	var all []input
	for i := 0; i < len(node.Content); i += 2 {
		key := node.Content[i]
		var e entry
		if err := node.Content[i+1].Decode(&e); err != nil {
			return nil, fmt.Errorf("%s: %w", key.Value, err)
		}
		in := input{name: key.Value, group: key.HeadComment, commands: allCommands, description: e.Description, value: e.Default}
		if m := prefix.FindStringSubmatch(in.description); m != nil {
			in.commands, in.description = strings.Split(m[1], " and "), in.description[len(m[0]):]
		}
		in.description, in.secret = strings.CutPrefix(in.description, "secret, ")
		if in.description == "" || strings.Contains(in.description, "\n") {
			return nil, fmt.Errorf("%s: the description must be one line", in.name)
		}
		all = append(all, in)
	}
	return all, nil
}

// isFor reports whether one of the commands takes an input.
func (in *input) isFor(commands ...string) bool {
	return slices.ContainsFunc(commands, func(c string) bool { return slices.Contains(in.commands, c) })
}
