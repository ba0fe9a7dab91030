// Package inputs knows the inputs of the action. Its table is generated from action.yml, the one
// place where they are written down, and so are the inputs of the reusable workflow and
// docs/inputs.md.
package inputs

import (
	"slices"
	"strings"
)

//go:generate go run ./generate

// An Input is an input of the action.
type Input struct {
	Name     string
	Commands []string // that take it
	Secret   bool     // it becomes an environment variable, and no flag
	Help     string   // of its flag
}

// Help returns the help of the flag whose input has the same name, with underscores: the input's
// description. It is empty if there is no such input.
func Help(flag string) string {
	name := strings.ReplaceAll(flag, "-", "_")
	if i := slices.IndexFunc(All, func(in Input) bool { return in.Name == name }); i >= 0 {
		return All[i].Help
	}
	return ""
}
