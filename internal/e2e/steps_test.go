package e2e_test

import (
	"maps"
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
