package main

import (
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/org/nix-matrix/internal/flagvalue"
)

// printed returns what a command line prints.
func printed(t *testing.T, args ...string) string {
	t.Helper()
	var out, said strings.Builder
	a := newApp(streams{in: strings.NewReader(""), out: &out, err: &said}, func(string) string { return "" })
	if code := a.run(t.Context(), args); code != 0 {
		t.Fatalf("%q: exit code %d: %s", args, code, &said)
	}
	return out.String()
}

// Shells complete the values of a flag that has a few, and offer files only where one is meant.
func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"build --engine ":      "auto direct protocol import :4",
		"run --qemu ":          "auto always never :4",
		"run --push-required=": "true false :4",
		"save --store-cache ":  "built all off :4",
		"run --timeout ":       ":4",
		"run --html ":          ":0",
		"report --results ":    ":16",
		"report ":              ":4",
		"run ":                 ":0",
		"completion ":          "bash zsh fish :4",
		"unse":                 "unseal :4",
	} {
		words := strings.Split(line, " ")
		var got []string
		for candidate := range strings.Lines(printed(t, append([]string{"__complete"}, words...)...)) {
			candidate, _, _ = strings.Cut(strings.TrimSpace(candidate), "\t")
			got = append(got, candidate)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

// Each shell gets a script of its own, which bash can read.
func TestCompletionScripts(t *testing.T) {
	for shell, want := range map[string]string{"bash": "complete -o default -F __start_nix-matrix nix-matrix", "zsh": "#compdef nix-matrix", "fish": "complete -c nix-matrix"} {
		script := printed(t, "completion", shell)
		if !strings.Contains(script, want) {
			t.Errorf("%s: no %q in %.300s", shell, want, script)
		}
		if shell == "bash" {
			check := exec.CommandContext(t.Context(), "bash", "-n")
			check.Stdin = strings.NewReader(script)
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
	}
	a := newApp(streams{out: &strings.Builder{}, err: &strings.Builder{}}, func(string) string { return "" })
	for _, args := range [][]string{{"completion"}, {"completion", "csh"}, {"completion", "bash", "zsh"}} {
		if code := a.run(t.Context(), args); code != exitUsage {
			t.Errorf("%q: exit code %d, want %d", args, code, exitUsage)
		}
	}
}

// The manual page has every command and flag that --help has, and no line that man would take for a macro.
func TestManual(t *testing.T) {
	page := printed(t, "manual")
	root := newRoot(newApp(streams{out: &strings.Builder{}, err: &strings.Builder{}}, func(string) string { return "" }))
	for _, cmd := range root.Commands() {
		heading := "\n.SS \"" + roff(cmd.UseLine()) + "\"\n"
		if strings.Contains(page, heading) == cmd.Hidden {
			t.Errorf("%q is in the page: %t", heading, !cmd.Hidden)
		}
		if cmd.Hidden {
			continue
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if strings.Contains(page, `\fB`+roff("--"+f.Name)+`\fR`) == f.Hidden {
				t.Errorf("--%s is in the page: %t", f.Name, !f.Hidden)
			}
		})
	}
	var elsewhere strings.Builder
	a := newApp(streams{out: &elsewhere, err: &elsewhere}, func(name string) string {
		return map[string]string{"GITHUB_ACTIONS": "true", "RUNNER_ENVIRONMENT": "github-hosted"}[name]
	})
	if code := a.run(t.Context(), []string{"manual"}); code != 0 || elsewhere.String() != page {
		t.Errorf("exit code %d; in a job of GitHub Actions, the page is another one", code)
	}
	known := map[string]bool{"TH": true, "SH": true, "SS": true, "PP": true, "TP": true, "br": true, "nf": true, "fi": true}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !known[strings.Fields(line)[0][1:]] {
			t.Errorf("man takes this for a macro: %s", line)
		}
	}
	for text, want := range map[string]string{`a\b`: `a\eb`, "--flag": `\-\-flag`, ".#x": `\&.#x`, "'x'": `\(aqx\(aq`} {
		if got := roff(text); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

// The values that a flag offers are those that it takes.
func TestChoices(t *testing.T) {
	root := newRoot(newApp(streams{out: &strings.Builder{}, err: &strings.Builder{}}, func(string) string { return "" }))
	found := 0
	for _, cmd := range root.Commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			v, ok := f.Value.(flagvalue.Value)
			if !ok {
				return
			}
			for _, choice := range v.Choices() {
				found++
				if err := v.Set(choice); err != nil || v.Wrong() != nil {
					t.Errorf("%s --%s %s: %v, %v", cmd.Name(), f.Name, choice, err, v.Wrong())
				}
			}
		})
	}
	if found < 20 {
		t.Errorf("only %d choices", found)
	}
}

// A program of "go install" has the version of its module.
func TestModuleVersion(t *testing.T) {
	for recorded, want := range map[string]string{"v1.2.3": "v1.2.3", "(devel)": "dev", "": "dev"} {
		if got := moduleVersion(&debug.BuildInfo{Main: debug.Module{Version: recorded}}); got != want {
			t.Errorf("%q: got %s, want %s", recorded, got, want)
		}
	}
}
