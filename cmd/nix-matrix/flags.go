package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

// boolFlag adds a flag that is true or false, and nothing else. Its default is the
// action's input of the same name, else the one that is given. Where the input has
// another value, the command is wrong usage: a typo must not choose.
func (a *app) boolFlag(cmd *cobra.Command, to *bool, name string, otherwise bool, usage string) {
	value := &boolValue{name, to}
	*to = otherwise
	if input := a.action.Input(name); input != "" {
		if err := value.Set(input); err != nil {
			check(cmd, func() error {
				if cmd.Flags().Changed(name) {
					return nil
				}
				return &usageError{err}
			})
		}
	}
	cmd.Flags().VarPF(value, name, "", usage).NoOptDefVal = "true"
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
