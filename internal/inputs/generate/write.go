package main

import (
	"encoding/json"
	"fmt"
	"go/format"
	"regexp"
	"slices"
	"strings"
)

// byHand are inputs whose values need more than the input: they stand outside of the generated parts.
var byHand = []string{"command", "job", "needs", "propose_token"}

// variables returns the environment variables of a step that runs the commands.
func (a *action) variables(commands ...string) (lines []string) {
	for _, in := range a.inputs {
		if !in.secret && in.isFor(commands...) && !slices.Contains(byHand, in.name) {
			lines = append(lines, fmt.Sprintf("INPUT_%s: ${{ inputs.%s }}", strings.ToUpper(in.name), in.name))
		}
	}
	return lines
}

// inWorkflow reports whether the reusable workflow with jobs for some commands has an input or a secret.
func (in *input) inWorkflow(commands ...string) bool {
	return in.isFor(commands...) && !slices.Contains(byHand, in.name)
}

func (in *input) isBool() bool { return in.value == "true" || in.value == "false" }

// workflowInputs returns the inputs of the workflow for some commands, without those that it declares itself.
func (a *action) workflowInputs(w *workflow, commands []string) (lines []string) {
	for _, in := range a.inputs {
		own := slices.ContainsFunc(w.own, func(o input) bool { return o.name == in.name })
		if in.secret || !in.inWorkflow(commands...) || own {
			continue
		}
		kind, value := "string", quote(in.value)
		if in.isBool() {
			kind, value = "boolean", in.value
		}
		lines = in.grouped(lines, "description: "+quote(in.description), "type: "+kind, "default: "+value)
	}
	return lines
}

func (a *action) workflowSecrets(commands []string) (lines []string) {
	for _, in := range a.inputs {
		if in.secret && in.inWorkflow(commands...) {
			lines = in.grouped(lines, "description: "+quote(in.description), "required: false")
		}
	}
	return lines
}

// grouped adds an input with its fields, and the comment of its group before it.
func (in *input) grouped(lines []string, fields ...string) []string {
	if in.group != "" {
		if len(lines) > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, strings.Split(in.group, "\n")...)
	}
	lines = append(lines, in.name+":")
	for _, field := range fields {
		lines = append(lines, "  "+field)
	}
	return lines
}

// with returns what a job of a workflow gives the action. A secret goes to no job whose command
// does not take it.
func (a *action) with(command string) (lines []string) {
	for _, in := range a.inputs {
		if !in.inWorkflow(command) {
			continue
		}
		value := "inputs." + in.name
		switch {
		case in.name == "github_access_token":
			value = "secrets." + in.name + " || github.token"
		case in.name == "cachix_signing_key" && command == "discover":
			value = "secrets." + in.name + " != '' && 'in the build' || ''"
		case in.name == "env" && command == "report":
			value = "(startsWith(inputs.cache, 's3://') || inputs.post_green != '') && secrets." + in.name + " || ''"
		case in.name == "env" && command == "propose":
			continue // it needs no cache
		case in.secret:
			value = "secrets." + in.name
		}
		line := in.name + ": ${{ " + value + " }}"
		switch {
		case strings.Contains(line, "in the build"):
			line += " # which alone gets the key"
		case strings.Contains(line, "startsWith"):
			line += " # for a cache that needs credentials, and for post_green"
		}
		lines = append(lines, line)
	}
	return lines
}

// quote returns a string as YAML and JSON have it.
func quote(text string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a string has a form
	return strings.TrimSpace(b.String())
}

// table returns the source of the table of internal/inputs.
func (a *action) table() (string, error) {
	var b strings.Builder
	b.WriteString("// Code generated from action.yml by go generate. DO NOT EDIT.\n\npackage inputs\n\n// All are the inputs of the action, in its order.\nvar All = []Input{\n")
	for _, in := range a.inputs {
		secret := ""
		if in.secret {
			secret = "Secret: true, "
		}
		fmt.Fprintf(&b, "{Name: %q, Commands: %#v, %sHelp: %q},\n", in.name, in.commands, secret, a.help(&in))
	}
	b.WriteString("}\n")
	text, err := format.Source([]byte(b.String()))
	return string(text), err
}

// help returns the description of an input as that of its flag: other inputs are flags too, and
// where the input has a line, the flag is given once more.
func (a *action) help(in *input) string {
	help := strings.ReplaceAll(in.description, "per line", "per flag")
	for _, other := range a.inputs {
		if !other.secret && strings.Contains(other.name, "_") {
			flag := "--" + strings.ReplaceAll(other.name, "_", "-")
			help = regexp.MustCompile(`\b`+other.name+`\b`).ReplaceAllString(help, flag)
		}
	}
	return help
}

// docs returns the reference page.
func (a *action) docs(w, u *workflow) string {
	var b strings.Builder
	b.WriteString(`<!-- Generated from action.yml and the reusable workflow by go generate ./internal/inputs: edit those. -->
# Inputs, secrets and outputs

Each command of the action has a table with its inputs. The reusable workflow takes those of discover, build and report,
hands them on, and has [some of its own](#the-reusable-workflow); [that for updates](#the-workflow-for-updates) takes those
of update and propose. On the command line, an input is a flag of the same name with dashes: ` + "`push_timeout`" + ` is
` + "`--push-timeout`" + `.

[discover](#discover) · [build](#build) · [report](#report) · [restore](#restore) · [save](#save) · [update](#update) ·
[propose](#propose) · [gc](#gc) · [secrets](#secrets) · [the reusable workflow](#the-reusable-workflow) · [the workflow for
updates](#the-workflow-for-updates) · [outputs](#outputs)

One input chooses the command:

| input | description |
|---|---|
`)
	for _, in := range a.inputs {
		if in.name == "command" {
			row(&b, "`command`", cell(in.description))
		}
	}
	for _, command := range allCommands {
		fmt.Fprintf(&b, "\n## %s\n\n| input | default | description |\n|---|---|---|\n", command)
		for _, in := range a.inputs {
			if in.name != "command" && !in.secret && in.isFor(command) {
				row(&b, code(in.name), code(in.value), cell(in.description))
			}
		}
	}
	b.WriteString(`
## Secrets

All are optional. They are inputs of the action and secrets of the reusable workflow; on the command line, they are
environment variables.

| secret | commands | variable | description |
|---|---|---|---|
`)
	for _, in := range a.inputs {
		if in.secret {
			row(&b, code(in.name), commandList(&in), code(in.variable), cell(in.description))
		}
	}
	b.WriteString("\n## The reusable workflow\n\nIn addition to the inputs of discover, build and report, it has these for its own jobs:\n\n| input | default | description |\n|---|---|---|\n")
	for _, in := range w.own {
		row(&b, code(in.name), code(in.value), cell(in.description))
	}
	b.WriteString("\n## The workflow for updates\n\nIn addition to the inputs of update and propose, it has these for its own jobs:\n\n| input | default | description |\n|---|---|---|\n")
	for _, in := range u.own {
		row(&b, code(in.name), code(in.value), cell(in.description))
	}
	b.WriteString("\nIts secrets are those of update, and two for the pull request:\n\n| secret | description |\n|---|---|\n")
	for _, in := range u.secrets {
		row(&b, code(in.name), cell(in.description))
	}
	b.WriteString("\n## Outputs\n\nThose of the action:\n\n| output | command | description |\n|---|---|---|\n")
	for _, out := range a.outputs {
		row(&b, code(out.name), commandList(&out), cell(out.description))
	}
	for title, of := range []*workflow{w, u} {
		fmt.Fprintf(&b, "\nThose of %s:\n\n| output | description |\n|---|---|\n", []string{"the reusable workflow", "the workflow for updates"}[title])
		for _, out := range of.outputs {
			row(&b, code(out.name), cell(out.description))
		}
	}
	return b.String()
}

func commandList(in *input) string {
	if len(in.commands) == len(allCommands) {
		return "all"
	}
	return strings.Join(in.commands, ", ")
}

func row(b *strings.Builder, cells ...string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }

// code returns a name or a value as code, and nothing for nothing.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

// special are characters that Markdown or HTML would take for markup. An underscore within a word is none.
var special = regexp.MustCompile("[*<>|`\\\\]")

// cell returns a description as the text of a table's cell.
func cell(text string) string { return special.ReplaceAllString(text, `\$0`) }
