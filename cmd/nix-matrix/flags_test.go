package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// An input that is neither true nor false chooses nothing: whoever wrote it meant one of
// them.
func TestBooleanInputs(t *testing.T) {
	file, err := os.ReadFile("../../action.yml")
	if err != nil {
		t.Fatal(err)
	}
	inputs, _, _ := strings.Cut(string(file), "\noutputs:")
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z_]+):\n(?:    .*\n)*?    default: "(?:true|false)"$`).FindAllStringSubmatch(inputs, -1) {
		names = append(names, m[1])
	}
	if !slices.Contains(names, "comment") || !slices.Contains(names, "push_required") {
		t.Fatalf("the inputs that are true or false are %q", names)
	}
	known := map[string]int{}
	try := func(command, name, value string, args ...string) string {
		var said strings.Builder
		env := func(variable string) string {
			if variable == "INPUT_"+strings.ToUpper(name) {
				return value
			}
			return ""
		}
		a := newApp(streams{in: strings.NewReader(""), out: &said, err: &said}, env)
		if code := a.run(t.Context(), append([]string{command, "--cache", "nowhere"}, args...)); code == 0 {
			t.Errorf("%s takes a cache that is none", command)
		}
		return said.String()
	}
	for _, cmd := range newRoot(newApp(streams{out: os.Stdout, err: os.Stderr}, func(string) string { return "" })).Commands() {
		flags(cmd, func(flag string) {
			name := strings.ReplaceAll(flag, "-", "_")
			if !slices.Contains(names, name) {
				return
			}
			known[name]++
			t.Run(cmd.Name()+" "+flag, func(t *testing.T) {
				for _, bad := range []string{"yes", "1", "True", "TRUE", "flase", "no", "0", "true false"} {
					if said := try(cmd.Name(), name, bad); !strings.Contains(said, "invalid value \""+bad+"\" for --"+flag+": must be true or false") {
						t.Errorf("%q passes: %s", bad, said)
					}
					if said := try(cmd.Name(), name, bad, "--"+flag+"=false"); strings.Contains(said, "must be true or false") {
						t.Errorf("%q counts, though the flag is given: %s", bad, said)
					}
				}
				for _, good := range []string{"true", "false", "", " false\n"} {
					if said := try(cmd.Name(), name, good); strings.Contains(said, "--"+flag) {
						t.Errorf("%q does not pass: %s", good, said)
					}
				}
				if said := try(cmd.Name(), name, "true", "--"+flag+"=yes"); !strings.Contains(said, `invalid value "yes" for --`+flag+": must be true or false; see nix-matrix "+cmd.Name()+" --help") {
					t.Errorf("the flag takes yes: %s", said)
				}
			})
		})
	}
	for _, name := range names {
		if known[name] == 0 {
			t.Errorf("no command has a flag that is true or false for the input %s", name)
		}
	}
}

// flags calls do with the name of each flag of a command that is true or false.
func flags(cmd *cobra.Command, do func(name string)) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Value.Type() == "bool" {
			do(f.Name)
		}
	})
}

// The value of an input is that of its flag.
func TestBooleanValues(t *testing.T) {
	for _, test := range []struct {
		input     string
		otherwise bool
		args      []string
		want      bool
	}{
		{"", true, nil, true},
		{"", false, nil, false},
		{"true", false, nil, true},
		{"false", true, nil, false},
		{"false", true, []string{"--flag"}, true},
		{"true", false, []string{"--flag=false"}, false},
		{"flase", true, []string{"--flag=false"}, false},
	} {
		a := newApp(streams{out: os.Stdout, err: os.Stderr}, func(string) string { return test.input })
		var got bool
		cmd := &cobra.Command{Use: "x", RunE: func(*cobra.Command, []string) error { return nil }}
		a.boolFlag(cmd, &got, "flag", test.otherwise, "")
		cmd.SetArgs(test.args)
		if err := cmd.Execute(); err != nil || got != test.want {
			t.Errorf("%+v: %t, %v", test, got, err)
		}
		a.log.Close()
	}
}
