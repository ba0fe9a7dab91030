package e2e_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// releaseWorkflow publishes releases. Its scripts are tested in the package scripts.
const releaseWorkflow = ".github/workflows/release.yml"

// The job that builds a release can write nothing, and a job that can write builds nothing.
func TestReleaseWorkflow(t *testing.T) {
	workflow := parse[workflowFile](t, releaseWorkflow)
	if workflow.Permissions == nil || len(*workflow.Permissions) > 0 {
		t.Errorf("a job without permissions of its own has %v", workflow.Permissions)
	}
	want := map[string]map[string]string{
		"build":  {"contents": "read"},
		"attest": {"id-token": "write", "attestations": "write"},
		"draft":  {"contents": "write"},
		"follow": {"contents": "read"},
	}
	if got := slices.Sorted(maps.Keys(workflow.Jobs)); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Errorf("the jobs are %v", got)
	}
	script := regexp.MustCompile(`^scripts/release-(check|draft|follow) "\$VERSION"( release)?$`)
	ran := map[string]string{} // scripts, by job
	for id, job := range workflow.Jobs {
		if job.Permissions == nil || !maps.Equal(*job.Permissions, want[id]) {
			t.Errorf("%s has the permissions %v, want %v", id, job.Permissions, want[id])
		}
		for _, s := range job.Steps {
			if m := script.FindStringSubmatch(s.Run); m != nil {
				ran[id] = m[1]
			} else if s.Run != "" && id != "build" {
				t.Errorf("%s runs more than its script: %s", id, s.Run)
			}
			if strings.HasPrefix(s.Uses, "actions/setup-go@") && (id != "build" || s.With["cache"] != "false") {
				t.Errorf("%s builds, or takes what another run has cached", id)
			}
			if strings.HasPrefix(s.Uses, "actions/checkout@") && s.With["persist-credentials"] != "false" {
				t.Errorf("%s leaves its token in the checkout", id)
			}
			for name, value := range s.Env {
				if (strings.Contains(value, "token") || strings.Contains(value, "secrets.")) && !script.MatchString(s.Run) {
					t.Errorf("%s: %s has %s", id, s.Name, name)
				}
			}
		}
	}
	if want := map[string]string{"build": "check", "draft": "draft", "follow": "follow"}; !maps.Equal(ran, want) {
		t.Errorf("the jobs run %v, want %v", ran, want)
	}
}

// Every file that is attested is one that scripts/release-check makes, and the program names the same workflow.
func TestReleaseIsVerifiable(t *testing.T) {
	text := readFile(t, releaseWorkflow)
	for _, want := range []string{"subject-checksums: release/files/SHA256SUMS", "sbom-path: release/files/nix-matrix-${{ github.ref_name }}.cdx.json"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s does not have %s", releaseWorkflow, want)
		}
	}
	const signer = "--signer-workflow org/nix-matrix/" + releaseWorkflow
	if !strings.Contains(readFile(t, "docs/verify.md"), signer) {
		t.Errorf("docs/verify.md does not say %s", signer)
	}
	if !strings.Contains(readFile(t, "cmd/nix-matrix/version.go"), `repository + "/`+releaseWorkflow+`"`) {
		t.Errorf("nix-matrix version --verify asks for another workflow than %s", releaseWorkflow)
	}
}
