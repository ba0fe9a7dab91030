package e2e_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Organisations that allow only listed actions find all of them in the documentation.
func TestAllowList(t *testing.T) {
	_, list, _ := strings.Cut(readFile(t, "docs/github.md"), "An organisation that allows only listed actions needs these:")
	list, _, _ = strings.Cut(list, "\n\n")
	used := slices.Clone(parse[actionFile](t, "action.yml").Runs.Steps)
	for _, job := range parse[workflowFile](t, reusable).Jobs {
		used = append(used, job.Steps...)
	}
	for _, s := range used {
		if name, _, _ := strings.Cut(s.Uses, "@"); name != "" && !strings.Contains(list, "`"+name+"`") {
			t.Errorf("the list of actions in docs/github.md lacks %s", name)
		}
	}
}

// In a job that runs in a container, GitHub translates the value of a variable that is, or begins with, a path of the
// host, and no other.
func TestContainerPaths(t *testing.T) {
	path := regexp.MustCompile(`runner\.temp`)
	begins := regexp.MustCompile(`^\$\{\{ (?:runner\.temp \}\}/|[^}]*&& format\('\{0\}/[^']*', runner\.temp\b[^)]*\) \|\| '' \}\})`)
	found := 0
	for _, s := range parse[actionFile](t, "action.yml").Runs.Steps {
		for _, values := range []map[string]string{s.Env, s.With} {
			for name, value := range values {
				if !path.MatchString(value) {
					continue
				}
				if found++; !begins.MatchString(value) || len(path.FindAllString(value, -1)) != 1 {
					t.Errorf("%s: %s does not begin with the path: %s", s.Name, name, value)
				}
			}
		}
	}
	if found < 5 {
		t.Errorf("%d values have a path of the runner, want some", found)
	}
}

// A wrong value of install_nix ends the first job of a reusable workflow before anything else, and each value that
// installs something passes.
func TestInstallNix(t *testing.T) {
	quoted := regexp.MustCompile(`inputs\.install_nix == '(\w+)'`)
	for name, first := range map[string]string{reusable: "discover", updating: "update"} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			workflow := parse[workflowFile](t, name)
			steps := workflow.Jobs[first].Steps
			if steps[0].Env["INSTALL_NIX"] != "${{ inputs.install_nix }}" || steps[0].If != "" || steps[0].Shell != "bash" {
				t.Fatalf("%s does not begin with a look at install_nix: %+v", first, steps[0])
			}
			run := func(value string) (string, error) {
				cmd := exec.Command("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", steps[0].Run)
				cmd.Env = append(os.Environ(), "INSTALL_NIX="+value)
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			values := []string{"false", "Lix"} // GitHub compares without regard to case
			for _, job := range workflow.Jobs {
				for _, s := range job.Steps {
					for _, m := range quoted.FindAllStringSubmatch(s.If, -1) {
						values = append(values, m[1])
					}
				}
			}
			slices.Sort(values)
			if values = slices.Compact(values); len(values) < 6 {
				t.Errorf("the values are %q", values)
			}
			for _, value := range values {
				if out, err := run(value); err != nil || out != "" {
					t.Errorf("%s: %v: %s", value, err, out)
				}
			}
			for value, shown := range map[string]string{"determinte": "determinte", "": "", "a\n::error::b": "a???error??b"} {
				want := `::error title=install_nix::invalid value "` + shown + `" for install_nix: must be upstream, determinate, lix or false` + "\n"
				if out, err := run(value); err == nil || out != want {
					t.Errorf("%q: %v: %s", value, err, out)
				}
			}
		})
	}
}

// An artifact that can't be kept or fetched is tried twice, and makes no job red.
func TestArtifactsTwice(t *testing.T) {
	steps := parse[actionFile](t, "action.yml").Runs.Steps
	pairs := 0
	for i, s := range steps {
		if !strings.Contains(s.Uses, "-artifact@") {
			continue
		}
		if !s.ContinueOnError {
			t.Errorf("%s: a failure makes the job red", s.Name)
		}
		if strings.HasSuffix(s.Name, ", second try") {
			continue
		}
		pairs++
		again := steps[i+1]
		if again.Name != s.Name+", second try" || again.Uses != s.Uses || !maps.Equal(again.With, s.With) || again.If != s.If+" && steps."+s.ID+".outcome == 'failure'" {
			t.Errorf("%s: the step after it is no second try: %+v", s.Name, again)
		}
		if strings.HasPrefix(s.Uses, "actions/upload-artifact@") && s.With["retention-days"] == "" {
			t.Errorf("%s: it is kept for as long as the repository says", s.Name)
		}
	}
	if pairs != 11 {
		t.Errorf("%d artifacts, want 11", pairs)
	}
}
