package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/org/nix-matrix/internal/nearest"
	"github.com/org/nix-matrix/internal/usage"
)

// oneOf returns a usage error unless a flag has one of the values.
func oneOf(flag, value string, values ...string) error {
	if slices.Contains(values, value) {
		return nil
	}
	last := len(values) - 1
	return usage.Errorf("invalid value %q for --%s: must be %s or %s%s", value, flag, strings.Join(values[:last], ", "), values[last], nearest.Hint(value, values))
}

// nearestFlag returns a hint at the flag that was meant, if the error is of an unknown one.
func nearestFlag(cmd *cobra.Command, err error) string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return ""
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, "--"+f.Name)
		}
	})
	return nearest.Hint("--"+strings.TrimLeft(unknown.GetSpecifiedName(), "-"), names)
}

// commandNames returns the names of the commands that a person may call.
func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	return names
}

// boolFlag adds a flag that is true or false, and nothing else. Its default is the
// action's input of the same name, else the one that is given. Where the input has
// another value, the command is wrong usage: a typo must not choose.
func (a *app) boolFlag(cmd *cobra.Command, to *bool, name string, otherwise bool, help string) {
	value := &boolValue{name, to}
	*to = otherwise
	if input := a.action.Input(name); input != "" {
		if err := value.Set(input); err != nil {
			check(cmd, func() error {
				if cmd.Flags().Changed(name) {
					return nil
				}
				return usage.Wrap(err)
			})
		}
	}
	cmd.Flags().VarPF(value, name, "", help).NoOptDefVal = "true"
}

// check has a command check something before it runs.
func check(cmd *cobra.Command, what func() error) {
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if before != nil {
			if err := before(cmd, args); err != nil {
				return err
			}
		}
		return what()
	}
}

// A boolValue is the value of a flag that is true or false.
type boolValue struct {
	name string
	to   *bool
}

func (b *boolValue) Set(text string) error {
	if text != "true" && text != "false" {
		return &boolError{b.name, text}
	}
	*b.to = text == "true"
	return nil
}

func (b *boolValue) String() string {
	if b.to == nil { // as pflag makes one, to know what a zero value looks like
		return "false"
	}
	return strconv.FormatBool(*b.to)
}

// Type has --help show the flag like every other that is true or false.
func (b *boolValue) Type() string { return "bool" }

// A boolError says that a flag has a value that is neither true nor false.
type boolError struct{ name, value string }

func (e *boolError) Error() string {
	return fmt.Sprintf("invalid value %q for --%s: must be true or false", e.value, e.name)
}
