package e2e_test

import (
	"maps"
	"strings"
	"testing"
)

// reusable is the workflow that users call, updating the one for updates of the lock file.
const (
	reusable = ".github/workflows/nix-matrix.yml"
	updating = ".github/workflows/update.yml"
)

// called returns the file of a workflow that a job uses, if it is one of ours.
func called(uses string) (file string, ours bool) {
	file = strings.TrimSuffix(strings.TrimPrefix(uses, "org/nix-matrix/"), "@v1")
	return file, (file == reusable || file == updating) && uses == "org/nix-matrix/"+file+"@v1"
}

// The job that evaluates new inputs may only read, and gets no token that may write. The one that writes runs nothing but
// nix-matrix, gets no other secret than that token and those that seal, and needs no checkout.
func TestUpdating(t *testing.T) {
	workflow := parse[workflowFile](t, updating)
	for id, want := range map[string]map[string]string{"update": {"contents": "read"}, "propose": {"contents": "write", "pull-requests": "write"}} {
		job := workflow.Jobs[id]
		if job.Permissions == nil || !maps.Equal(*job.Permissions, want) {
			t.Errorf("%s has the permissions %v, want %v", id, job.Permissions, want)
		}
		for _, s := range job.Steps {
			ours := s.Uses == "org/nix-matrix@v1"
			if ours && s.With["command"] != id {
				t.Errorf("%s: the command is %q", id, s.With["command"])
			}
			if id == "propose" && !ours && !strings.HasPrefix(s.Uses, "actions/create-github-app-token@") {
				t.Errorf("propose runs %s %s", s.Uses, s.Run)
			}
			for input, value := range s.With {
				secret := strings.Contains(value, "secrets.")
				writes := strings.Contains(value, "secrets.token") || strings.Contains(value, "secrets.app_private_key")
				seals := input == "encryption_key" || input == "git_crypt_key"
				if writes == (id == "update") && (writes || secret && !seals && id == "propose") {
					t.Errorf("%s: %s gets %s", id, input, value)
				}
			}
		}
	}
	if got, want := workflow.call(t).Outputs["pull_request"].Value, "${{ jobs.propose.outputs.pull_request }}"; got != want {
		t.Errorf("the output pull_request is %q, want %q", got, want)
	}
}

// The pages quote the jobs that the templates run.
func TestJobsOfRecipes(t *testing.T) {
	page := readFile(t, "docs/recipes.md")
	for name, part := range map[string]string{"deploy": "\n  deploy:\n", "deploy-tools": "\njobs:\n", "update": "\njobs:\n"} {
		_, after, ok := strings.Cut(readFile(t, "examples/workflows/"+name+".yml"), part)
		if job := strings.TrimPrefix(part, "\n") + after; !ok || !strings.Contains(page, "```yaml\n"+job+"```\n") {
			t.Errorf("docs/recipes.md does not have the job of %s.yml word for word", name)
		}
	}
}
