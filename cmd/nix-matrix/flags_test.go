package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/inputs"
)

// newTestApp returns an app with these inputs of the action, and all that it prints.
func newTestApp(t *testing.T, given map[string]string) (*app, *strings.Builder) {
	var said strings.Builder
	a := newApp(streams{in: strings.NewReader(""), out: &said, err: &said}, func(variable string) string {
		name, _ := strings.CutPrefix(variable, "INPUT_")
		return given[strings.ToLower(name)]
	})
	t.Cleanup(a.log.Close)
	return a, &said
}

// Each input of the action is taken by a flag of each command that it is for, or as its arguments,
// and no flag takes anything else. Secrets are no flags.
func TestBoundFlags(t *testing.T) {
	arguments := []string{"command", "installables", "paths"}
	// Inputs that the steps of action.yml set for themselves.
	own := map[string][]string{"build": {"plan", "drvs", "missing_ok"}, "report": {"plan", "results", "missing_ok"}, "propose": {"update"}}
	a, _ := newTestApp(t, nil)
	for _, cmd := range newRoot(a).Commands() {
		bound := map[string]bool{}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" && !f.Hidden {
				t.Errorf("%s --%s has no help", cmd.Name(), f.Name)
			}
			for _, name := range f.Annotations[inputAnnotation] {
				bound[name] = true
			}
		})
		for _, in := range inputs.All {
			takes := slices.Contains(in.Commands, cmd.Name()) || cmd.Name() == "plan" && slices.Contains(in.Commands, "discover") || cmd.Name() == "run" && (slices.Contains(in.Commands, "discover") || slices.Contains(in.Commands, "build"))
			takes = takes || cmd.Name() == "run" && in.Name == "post_green"
			takes = takes && !in.Secret && !slices.Contains(arguments, in.Name)
			if cmd.Name() == "run" && slices.Contains([]string{"job", "engine", "store_cache", "cache", "helpers", "max_parallel"}, in.Name) {
				takes = false // it hands nothing over
			}
			if cmd.Name() == "serve" && slices.Contains([]string{"id", "cache"}, in.Name) {
				takes = true // restore starts it, with its own inputs
			}
			if takes != bound[in.Name] {
				t.Errorf("%s: a flag takes the input %s: %t, want %t", cmd.Name(), in.Name, bound[in.Name], takes)
			}
			delete(bound, in.Name)
		}
		for _, name := range own[cmd.Name()] {
			if !bound[name] {
				t.Errorf("%s: no flag takes %s", cmd.Name(), name)
			}
			delete(bound, name)
		}
		for name := range bound {
			t.Errorf("%s: a flag takes %s, which is no input", cmd.Name(), name)
		}
	}
}

// The value of an input is that of its flag, unless the flag is given. A wrong value is refused in
// the same words wherever it comes from.
func TestFlagValues(t *testing.T) {
	type values struct {
		Truth  bool
		Choice string
		Time   time.Duration
		Days   time.Duration
		Size   int64
		Number int
		Text   string
		Lines  []string
		Words  []string
	}
	initial := values{Truth: true, Choice: "one", Time: time.Minute, Days: 24 * time.Hour, Size: 1000, Number: 3, Text: "text", Words: []string{"word"}}
	for name, test := range map[string]struct {
		inputs map[string]string
		args   []string
		want   func(*values)
		wrong  string
	}{
		"defaults":               {},
		"empty inputs":           {inputs: map[string]string{"truth": "", "choice": " \n", "time": "", "lines": "# no line\n", "words": " , "}},
		"boolean":                {inputs: map[string]string{"truth": " false\n"}, want: func(v *values) { v.Truth = false }},
		"boolean flag":           {inputs: map[string]string{"truth": "false"}, args: []string{"--truth"}},
		"boolean flag, false":    {inputs: map[string]string{"truth": "true"}, args: []string{"--truth=false"}, want: func(v *values) { v.Truth = false }},
		"wrong boolean":          {inputs: map[string]string{"truth": "flase"}, wrong: `invalid value "flase" for --truth: must be true or false`},
		"wrong boolean, given":   {inputs: map[string]string{"truth": "flase"}, args: []string{"--truth"}},
		"wrong boolean flag":     {args: []string{"--truth=1"}, wrong: `invalid value "1" for --truth: must be true or false`},
		"choice":                 {inputs: map[string]string{"choice": "three"}, want: func(v *values) { v.Choice = "three" }},
		"wrong choice":           {inputs: map[string]string{"choice": "tree"}, wrong: `invalid value "tree" for --choice: must be one, two or three (did you mean three?)`},
		"wrong choice flag":      {args: []string{"--choice="}, wrong: `invalid value "" for --choice: must be one, two or three`},
		"corrected":              {args: []string{"--choice=x", "--choice=two"}, want: func(v *values) { v.Choice = "two" }},
		"time":                   {inputs: map[string]string{"time": "1h30m"}, want: func(v *values) { v.Time = 90 * time.Minute }},
		"no time":                {inputs: map[string]string{"time": "1h30m"}, args: []string{"--time="}, want: func(v *values) { v.Time = 0 }},
		"wrong time":             {inputs: map[string]string{"time": "7d"}, wrong: `invalid value "7d" for --time: must be a time such as 90m or 1h30m`},
		"days":                   {inputs: map[string]string{"days": "7d"}, want: func(v *values) { v.Days = 7 * 24 * time.Hour }},
		"wrong days":             {args: []string{"--days", "-1h"}, wrong: `invalid value "-1h" for --days: must be a time such as 7d or 36h`},
		"size":                   {inputs: map[string]string{"size": "5GiB"}, want: func(v *values) { v.Size = 5 << 30 }},
		"wrong size":             {inputs: map[string]string{"size": "much"}, wrong: `invalid value "much" for --size: must be a size such as 500MB, 5GB or 5GiB`},
		"number":                 {inputs: map[string]string{"number": "9"}, want: func(v *values) { v.Number = 9 }},
		"too large a number":     {inputs: map[string]string{"number": "10"}, wrong: `invalid value "10" for --number: must be a number from 1 to 9`},
		"too small a number":     {args: []string{"--number=0"}, wrong: `invalid value "0" for --number: must be a number from 1 to 9`},
		"no number":              {args: []string{"--number=1.5"}, wrong: `invalid value "1.5" for --number: must be a number from 1 to 9`},
		"text":                   {inputs: map[string]string{"text": "a\n# b\n"}, want: func(v *values) { v.Text = "a\n# b" }},
		"no text":                {inputs: map[string]string{"text": "a"}, args: []string{"--text="}, want: func(v *values) { v.Text = "" }},
		"lines":                  {inputs: map[string]string{"lines": "a b, c\n\n# no line\n d \n"}, want: func(v *values) { v.Lines = []string{"a b, c", "d"} }},
		"lines by flags":         {inputs: map[string]string{"lines": "a"}, args: []string{"--lines=b,c", "--lines=# d"}, want: func(v *values) { v.Lines = []string{"b,c", "# d"} }},
		"words":                  {inputs: map[string]string{"words": "a b,c\nd"}, want: func(v *values) { v.Words = []string{"a", "b", "c", "d"} }},
		"words by flags":         {inputs: map[string]string{"words": "x"}, args: []string{"--words=a,b", "--words=c d"}, want: func(v *values) { v.Words = []string{"a", "b", "c", "d"} }},
		"flag without an input":  {inputs: map[string]string{"private": "true"}},
		"two wrong values":       {inputs: map[string]string{"size": "x"}, args: []string{"--time=y"}, wrong: "invalid value \"x\" for --size: must be a size such as 500MB, 5GB or 5GiB\ninvalid value \"y\" for --time: must be a time such as 90m or 1h30m"},
		"a long value, in short": {args: []string{"--choice=" + strings.Repeat("x", 1000)}, wrong: `invalid value "` + strings.Repeat("x", 100) + `"… for --choice: must be one, two or three`},
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := newTestApp(t, test.inputs)
			var got values
			var private bool
			var refused error
			cmd := &cobra.Command{Use: "x", SilenceUsage: true, SilenceErrors: true, RunE: func(cmd *cobra.Command, _ []string) error {
				refused = readFlags(cmd, a.action)
				return nil
			}}
			bindAs(cmd, flagvalue.Bool(&got.Truth, true), "truth", "")
			bindAs(cmd, flagvalue.OneOf(&got.Choice, "one", "one", "two", "three"), "choice", "")
			bindAs(cmd, flagvalue.Time(&got.Time, "1m"), "time", "")
			bindAs(cmd, flagvalue.Days(&got.Days, "1d"), "days", "")
			bindAs(cmd, flagvalue.Size(&got.Size, "1KB"), "size", "")
			bindAs(cmd, flagvalue.Number(&got.Number, "NUMBER", "3", 1, 9), "number", "")
			bindAs(cmd, flagvalue.Text(&got.Text, "TEXT", "text"), "text", "")
			bindAs(cmd, flagvalue.Lines(&got.Lines, "LINE"), "lines", "")
			bindAs(cmd, flagvalue.Words(&got.Words, "WORD", "word"), "words", "")
			addFlag(cmd, flagvalue.Bool(&private, false), "private", "")
			cmd.SetArgs(test.args)
			if err := cmd.Execute(); err != nil {
				t.Fatal(err)
			}
			said := ""
			if refused != nil {
				said = refused.Error()
			}
			if said != test.wrong {
				t.Fatalf("got %q, want %q", said, test.wrong)
			}
			want := initial
			if test.want != nil {
				test.want(&want)
			}
			if diff := cmp.Diff(want, got); diff != "" && refused == nil || private {
				t.Errorf("private: %t, values: %s", private, diff)
			}
		})
	}
}

// An input that is neither true nor false chooses nothing, in any command.
func TestBooleanInputs(t *testing.T) {
	file, err := os.ReadFile("../../action.yml")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z_]+):\n(?:    .*\n)*?    default: "(?:true|false)"$`).FindAllStringSubmatch(string(file), -1) {
		found[m[1]] = false
	}
	if len(found) < 5 {
		t.Fatalf("the inputs that are true or false are %v", found)
	}
	all, _ := newTestApp(t, nil)
	for _, cmd := range newRoot(all).Commands() {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			for _, name := range f.Annotations[inputAnnotation] {
				if _, ok := found[name]; !ok {
					continue
				}
				found[name] = true
				a, said := newTestApp(t, map[string]string{name: "True"})
				code := a.run(t.Context(), []string{cmd.Name()})
				if want := `invalid value "True" for --` + f.Name + ": must be true or false"; code != exitUsage || !strings.Contains(said.String(), want) {
					t.Errorf("%s: %d, %s, want %s", cmd.Name(), code, said, want)
				}
			}
		})
	}
	for name, taken := range found {
		if !taken {
			t.Errorf("no command has a flag that is true or false for the input %s", name)
		}
	}
}
