package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/inputs"
	"github.com/org/nix-matrix/internal/nearest"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/internal/valid"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/cache/s3"
)

// inputAnnotation marks the flags that take an input of the action.
const inputAnnotation = "input"

// bind adds a flag that takes the action's input of the same name, with underscores, where it is
// not given. Its help is the input's description.
func bind(cmd *cobra.Command, v flagvalue.Value, name string, short ...string) {
	bindAs(cmd, v, name, inputs.Help(name), short...)
}

// bindAs does the same with a help of its own: for an input that a step of action.yml sets and no
// user does, and where a command needs other words.
func bindAs(cmd *cobra.Command, v flagvalue.Value, name, help string, short ...string) {
	addFlag(cmd, v, name, help, short...).Annotations = map[string][]string{inputAnnotation: {strings.ReplaceAll(name, "-", "_")}}
}

// addFlag adds a flag that takes no input.
func addFlag(cmd *cobra.Command, v flagvalue.Value, name, help string, short ...string) *pflag.Flag {
	f := cmd.Flags().VarPF(v, name, strings.Join(short, ""), help)
	if v.Type() == flagvalue.BoolType {
		f.NoOptDefVal = "true"
	}
	if completion := completeValue(v); completion != nil {
		_ = cmd.RegisterFlagCompletionFunc(name, completion) // of a flag that is there
	}
	return f
}

// readFlags sets each flag of a command that was not given from the action's input, and returns a usage
// error for all values that are wrong, wherever they come from.
func readFlags(cmd *cobra.Command, from *action.Action) error {
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		v, ok := f.Value.(flagvalue.Value)
		if !ok {
			return
		}
		if names := f.Annotations[inputAnnotation]; len(names) > 0 && !f.Changed {
			v.Take(from, names[0])
		}
		if wrong := v.Wrong(); wrong != nil {
			value := valid.Quote(wrong.Value)
			if errors.Is(wrong.Must, s3.ErrSecret) {
				value = "(not shown)"
			}
			errs = append(errs, usage.Errorf("invalid value %s for --%s: %w", value, f.Name, wrong.Must))
		}
	})
	return errors.Join(errs...)
}

// noArguments refuses arguments with a message, which quotes the first of them.
func noArguments(message string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage.Errorf(message, args[0])
		}
		return nil
	}
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
