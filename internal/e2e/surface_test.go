package e2e_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/org/nix-matrix/internal/inputs"
)

// root is this repository.
const root = "../.."

// An actionFile is what action.yml says.
type actionFile struct {
	Inputs  map[string]input
	Outputs map[string]struct{ Value string }
	Runs    struct{ Steps []step }
}

type input struct{ Description string }

type step struct {
	ID, Name, If, Uses, Run, Shell string
	Env, With                      map[string]string
	ContinueOnError                bool `yaml:"continue-on-error"`
}

// A workflowFile is what a workflow says.
type workflowFile struct {
	On          yaml.Node
	Permissions *map[string]string
	Jobs        map[string]struct {
		Uses          string
		Permissions   *map[string]string
		With, Secrets map[string]string
		Outputs       map[string]string
		Container     yaml.Node
		Services      map[string]yaml.Node
		Steps         []step
	}
}

// A call has the inputs, secrets and outputs of a reusable workflow.
type call struct {
	Inputs  map[string]input
	Secrets map[string]input
	Outputs map[string]struct{ Value string }
}

// call returns the inputs, secrets and outputs of a reusable workflow.
func (w *workflowFile) call(t *testing.T) call {
	t.Helper()
	var on struct {
		Call call `yaml:"workflow_call"`
	}
	if err := w.On.Decode(&on); err != nil {
		t.Fatal(err)
	}
	return on.Call
}

func parse[File any](t *testing.T, name string) *File {
	t.Helper()
	return parseText[File](t, name, readFile(t, name))
}

func parseText[File any](t *testing.T, name, text string) *File {
	t.Helper()
	file := new(File)
	if err := yaml.Unmarshal([]byte(text), file); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return file
}

// The secrets among the inputs, and the variables that they become. Nothing else may have them.
var secrets = map[string]string{
	"attic_token":         "ATTIC_TOKEN",
	"cachix_auth_token":   "CACHIX_AUTH_TOKEN",
	"cachix_signing_key":  "CACHIX_SIGNING_KEY",
	"signing_key":         "NIX_MATRIX_SIGNING_KEY",
	"nix_conf":            "NIX_MATRIX_CONF",
	"github_access_token": "NIX_MATRIX_GITHUB_ACCESS_TOKEN",
	"netrc":               "NIX_MATRIX_NETRC",
	"env":                 "NIX_MATRIX_ENV",
	"ssh_key":             "NIX_MATRIX_SSH_KEY",
	"encryption_key":      "NIX_MATRIX_ENCRYPTION_KEY",
	"git_crypt_key":       "NIX_MATRIX_GIT_CRYPT_KEY",
	"propose_token":       "NIX_MATRIX_PROPOSE_TOKEN",
}

// Each secret reaches the steps that run nix-matrix in its own variable, and no other variable has one. What follows from
// the other inputs is generated.
func TestSecrets(t *testing.T) {
	action := parse[actionFile](t, "action.yml")
	for _, in := range inputs.All {
		if secrets[in.Name] == "" == in.Secret {
			t.Errorf("action.yml says that %s is a secret: %t", in.Name, in.Secret)
		}
	}
	running := 0
	for _, s := range action.Runs.Steps {
		if s.Run == "" || copies.MatchString(s.Shell) {
			continue
		}
		running++
		for name, variable := range secrets {
			if (name == "github_access_token" || name == "propose_token") && s.ID == "again" {
				continue // nothing is fetched there, nor proposed
			}
			if !slices.Contains(inputsIn(s.Env[variable]), name) {
				t.Errorf("%s (%s): env has %s: %q, which is not inputs.%s", s.Name, s.ID, variable, s.Env[variable], name)
			}
		}
		for variable, value := range s.Env {
			for _, name := range inputsIn(value) {
				if secret, ok := secrets[name]; ok && variable != secret {
					t.Errorf("%s (%s): %s gets the secret %s", s.Name, s.ID, variable, name)
				}
			}
		}
		if got := s.Env["NIX_MATRIX_JOB_ID"]; got != "${{ job.check_run_id }}" { // nothing else in a job tells its page
			t.Errorf("%s (%s): env has NIX_MATRIX_JOB_ID: %q", s.Name, s.ID, got)
		}
		for _, name := range []string{"RUNTIME_TOKEN", "RESULTS_URL", "CACHE_URL", "CACHE_SERVICE_V2", "CACHE_MODE"} {
			if want := "${{ steps.runtime.outputs." + strings.ToLower(name) + " }}"; s.Env["ACTIONS_"+name] != want {
				t.Errorf("%s (%s): env has ACTIONS_%s: %q, want %q", s.Name, s.ID, name, s.Env["ACTIONS_"+name], want)
			}
		}
	}
	if running != 2 {
		t.Errorf("%d steps run programs, want main and again", running)
	}
}

// Only the job that pushes gets the secrets for that, discovery those for reading, and all jobs those that seal.
func TestWorkflowSecrets(t *testing.T) {
	workflow := parse[workflowFile](t, reusable)
	secrets := maps.Clone(secrets)
	delete(secrets, "propose_token")
	if got, want := slices.Sorted(maps.Keys(workflow.call(t).Secrets)), slices.Sorted(maps.Keys(secrets)); !slices.Equal(got, want) {
		t.Errorf("the secrets are %s, want %s", got, want)
	}
	for id, job := range workflow.Jobs {
		uses := 0
		for _, s := range job.Steps {
			if s.Uses != "org/nix-matrix@v1" {
				continue
			}
			uses++
			if s.With["command"] != id {
				t.Errorf("%s: the command is %q", id, s.With["command"])
			}
			sealing := []string{"encryption_key", "git_crypt_key"}
			signing := []string{"signing_key", "cachix_signing_key"}
			for name := range secrets {
				want := ""
				switch {
				case name == "github_access_token" && id == "discover":
					want = "${{ secrets." + name + " || github.token }}"
				case name == "github_access_token":
				case name == "cachix_signing_key" && id == "discover": // that there is one, and not the key
					want = "${{ secrets." + name + " != '' && 'in the build' || '' }}"
				case name == "env" && id == "report": // for a cache that needs credentials, and for post_green
					want = "${{ (startsWith(inputs.cache, 's3://') || inputs.post_green != '') && secrets.env || '' }}"
				case slices.Contains(sealing, name) || id == "build" || id == "discover" && !slices.Contains(signing, name):
					want = "${{ secrets." + name + " }}"
				}
				if s.With[name] != want {
					t.Errorf("%s: with has %s: %q, want %q", id, name, s.With[name], want)
				}
			}
		}
		if uses != 1 {
			t.Errorf("%s uses the action %d times", id, uses)
		}
	}
}

// All inputs, secrets and outputs that are used are there.
func TestReferences(t *testing.T) {
	action := parse[actionFile](t, "action.yml")
	call, update := parse[workflowFile](t, reusable).call(t), parse[workflowFile](t, updating).call(t)
	for name, inputs := range map[string]map[string]input{"action.yml": action.Inputs, reusable: call.Inputs, updating: update.Inputs} {
		text := uncommented(t, name)
		for _, used := range inputsIn(text) {
			if _, ok := inputs[used]; !ok {
				t.Errorf("%s: there is no input %s", name, used)
			}
		}
		for used := range inputs {
			if !slices.Contains(inputsIn(text), used) {
				t.Errorf("%s: nothing uses the input %s", name, used)
			}
		}
		for _, m := range regexp.MustCompile(`\bsecrets\.(\w+)`).FindAllStringSubmatch(text, -1) {
			of := call.Secrets
			if name == updating {
				of = update.Secrets
			}
			if _, ok := of[m[1]]; !ok {
				t.Errorf("%s: there is no secret %s", name, m[1])
			}
		}
	}
	ids := map[string]bool{}
	for _, s := range action.Runs.Steps {
		ids[s.ID] = true
	}
	for _, m := range regexp.MustCompile(`\bsteps\.(\w+)\.`).FindAllStringSubmatch(uncommented(t, "action.yml"), -1) {
		if !ids[m[1]] {
			t.Errorf("action.yml: there is no step %s", m[1])
		}
	}
}

// Nothing from outside gets into a shell's text, and no job may more than it needs to.
func TestTrust(t *testing.T) {
	check := func(name string, s step) {
		if strings.Contains(s.Run, "${{") && !copies.MatchString(s.Shell) {
			t.Errorf("%s: an expression in run, where an environment variable should be: %s", name, s.Run)
		}
	}
	for _, s := range parse[actionFile](t, "action.yml").Runs.Steps {
		check("action.yml", s)
	}
	for _, name := range workflows(t, ".github/workflows") {
		workflow := parse[workflowFile](t, name)
		if name != reusable && (workflow.Permissions == nil || len(*workflow.Permissions) > 0) {
			t.Errorf("%s: want permissions: {} for all jobs that say nothing else", name)
		}
		for id, job := range workflow.Jobs {
			checksOut := slices.ContainsFunc(job.Steps, func(s step) bool { return strings.HasPrefix(s.Uses, "actions/checkout@") })
			if job.Permissions != nil && name != releaseWorkflow { // whose permissions TestReleaseWorkflow has
				for permission, access := range *job.Permissions {
					writes := name == updating && id == "propose" && access == "write" && (permission == "contents" || permission == "pull-requests")
					if (permission != "contents" || access != "read" || !checksOut) && !writes {
						t.Errorf("%s: %s has the permission %s: %s", name, id, permission, access)
					}
				}
			}
			for _, s := range job.Steps {
				check(name, s)
				if strings.HasPrefix(s.Uses, "actions/checkout@") && s.With["persist-credentials"] != "false" {
					t.Errorf("%s: %s leaves its token in the work tree", name, id)
				}
			}
		}
	}
}

// A job that asks for more than the caller grants fails the whole run at its start, even one that would be skipped.
// So the workflow asks for no more than everybody grants. The report, which may comment, and the build, which may push by
// OpenID Connect, have whatever the caller grants; the job that evaluates has not.
func TestPermissions(t *testing.T) {
	workflow := parse[workflowFile](t, reusable)
	if workflow.Permissions != nil {
		t.Error("permissions of the workflow take from the report what the caller has granted")
	}
	for id, job := range workflow.Jobs {
		switch {
		case id != "discover" && job.Permissions != nil:
			t.Errorf("%s has %v, not what the caller has granted", id, *job.Permissions)
		case id == "discover" && job.Permissions == nil:
			t.Errorf("%s says nothing of permissions, and so has all that the caller has granted", id)
		}
	}
}

// The workflow that makes room may do that and nothing else, and its page quotes it.
func TestMakingRoom(t *testing.T) {
	const name = "examples/workflows/gc.yml"
	workflow := parse[workflowFile](t, name)
	if workflow.Permissions == nil || len(*workflow.Permissions) > 0 {
		t.Error("want permissions: {} for all jobs that say nothing else")
	}
	if got, want := workflow.Jobs["gc"].Permissions, map[string]string{"actions": "write"}; got == nil || !maps.Equal(*got, want) {
		t.Errorf("the permissions are %v, want %v", got, want)
	}
	if _, jobs, _ := strings.Cut(readFile(t, name), "\njobs:\n"); !strings.Contains(readFile(t, "docs/store-cache.md"), "```yaml\njobs:\n"+jobs+"```\n") {
		t.Errorf("docs/store-cache.md does not have the job of %s word for word", name)
	}
}

// The workflow has the outputs of the report and of discovery.
func TestWorkflowOutputs(t *testing.T) {
	action := parse[actionFile](t, "action.yml")
	workflow := parse[workflowFile](t, reusable)
	outputs := workflow.call(t).Outputs
	for name, job := range map[string]string{"success": "report", "results": "report", "paths": "report", "matrix": "discover"} {
		if got, want := outputs[name].Value, "${{ jobs."+job+".outputs."+name+" }}"; got != want {
			t.Errorf("the workflow's output %s is %q, want %q", name, got, want)
		}
		if got, want := workflow.Jobs[job].Outputs[name], "${{ steps.nix.outputs."+name+" }}"; got != want {
			t.Errorf("%s: the output %s is %q, want %q", job, name, got, want)
		}
		want := "${{ steps.main.outputs." + name + " }}"
		if job == "report" {
			want = "${{ steps.again.outputs." + name + " || steps.main.outputs." + name + " }}"
		}
		if got := action.Outputs[name].Value; got != want {
			t.Errorf("the action's output %s is %q, want %q", name, got, want)
		}
	}
}

// The workflows to paste use what there is, and grant what is needed.
func TestTemplates(t *testing.T) {
	action := parse[actionFile](t, "action.yml")
	readme := readFile(t, "README.md")
	for _, name := range workflows(t, "examples/workflows") {
		workflow := parse[workflowFile](t, name)
		if !strings.Contains(filepath.Base(name), "quickstart") && !strings.Contains(readme, "("+name+")") {
			t.Errorf("README.md has no link to %s", name)
		}
		if workflow.Permissions == nil {
			t.Errorf("%s: without permissions it has more than it needs, or less", name)
		} else {
			for permission, access := range *workflow.Permissions {
				if permission != "contents" || access != "read" {
					t.Errorf("%s: all jobs have the permission %s: %s", name, permission, access)
				}
			}
		}
		uses := 0
		for id, job := range workflow.Jobs {
			if file, ours := called(job.Uses); ours {
				uses++
				takes := parse[workflowFile](t, file).call(t)
				known(t, name+": "+id+": the workflow has no input", job.With, takes.Inputs)
				known(t, name+": "+id+": the workflow has no secret", job.Secrets, takes.Secrets)
			} else if job.Uses != "" {
				t.Errorf("%s: %s calls %s", name, id, job.Uses)
			}
			for _, s := range job.Steps {
				if s.Uses == "org/nix-matrix@v1" {
					uses++
					known(t, name+": "+id+": the action has no input", s.With, action.Inputs)
				}
			}
		}
		if uses == 0 {
			t.Errorf("%s does not use nix-matrix", name)
		}
	}
}

func known(t *testing.T, problem string, used map[string]string, there map[string]input) {
	t.Helper()
	for name := range used {
		if _, ok := there[name]; !ok {
			t.Errorf("%s %s", problem, name)
		}
	}
}

// workflows returns the names of the workflows in a directory.
func workflows(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no workflows in %s: %v", dir, err)
	}
	for i, file := range files {
		files[i] = filepath.Join(dir, filepath.Base(file))
	}
	return files
}

// The pages quote the workflows that TestWorkflows runs, word for word.
func TestQuickStarts(t *testing.T) {
	for name, page := range map[string]string{"reusable": "README.md", "steps": "docs/getting-started.md"} {
		if workflow := readFile(t, "examples/workflows/quickstart-"+name+".yml"); !strings.Contains(readFile(t, page), "```yaml\n"+workflow+"```\n") {
			t.Errorf("%s does not have quickstart-%s.yml word for word", page, name)
		}
	}
}

// So it does the steps around a build of one's own.
func TestStoreCacheSteps(t *testing.T) {
	const name = "examples/workflows/store-cache.yml"
	workflow, install := readFile(t, name), "      - uses: cachix/install-nix-action@"
	if _, steps, _ := strings.Cut(workflow, install); !strings.Contains(readFile(t, "docs/store-cache.md"), "```yaml\n"+install+steps+"```\n") {
		t.Errorf("docs/store-cache.md does not have the steps of %s word for word", name)
	}
}

// copies matches what is no shell: it copies the text that a shell would run.
var copies = regexp.MustCompile(`^cp \{0\} [\w.-]+$`)

var inputPattern = regexp.MustCompile(`\binputs\.(\w+)`)

func inputsIn(text string) []string {
	var names []string
	for _, m := range inputPattern.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// uncommented returns the text of a file without its comments.
func uncommented(t *testing.T, name string) string {
	return regexp.MustCompile(`(?m)^\s*#.*$`).ReplaceAllString(readFile(t, name), "")
}

// readFile returns the text of a file of this repository.
func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
