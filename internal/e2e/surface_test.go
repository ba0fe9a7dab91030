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
)

// root is this repository.
const root = "../.."

// An actionFile is what action.yml says.
type actionFile struct {
	Inputs  map[string]input
	Outputs map[string]struct{ Value string }
	Runs    struct{ Steps []step }
}

type input struct {
	Description string
	Required    bool
	Default     string
}

type step struct {
	ID, Name, Uses, Run, Shell string
	Env, With                  map[string]string
}

// A workflowFile is what a workflow says.
type workflowFile struct {
	On struct {
		Call struct {
			Inputs  map[string]input
			Secrets map[string]input
		} `yaml:"workflow_call"`
	}
	Permissions *map[string]string
	Jobs        map[string]struct {
		Uses        string
		Permissions map[string]string
		Steps       []step
	}
}

func parse[File any](t *testing.T, name string) *File {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	file := new(File)
	if err := yaml.Unmarshal(data, file); err != nil {
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
}

// commands are the commands that an input is for, by its description, in which they come first.
func (i input) commands() []string {
	if m := regexp.MustCompile(`^((?:discover|build|report|gc)(?: and (?:discover|build|report|gc))*): `).FindStringSubmatch(i.Description); m != nil {
		return strings.Split(m[1], " and ")
	}
	return []string{"discover", "build", "report", "gc"}
}

// On GitHub, unlike in act, no input of a composite action is a variable unless env says so.
func TestInputs(t *testing.T) {
	action := parse[actionFile](t, "action.yml")
	running := 0
	for _, s := range action.Runs.Steps {
		if s.Run == "" || copies.MatchString(s.Shell) {
			continue
		}
		running++
		var commands []string // that the step can run
		switch s.ID {
		case "main":
			commands = []string{"discover", "build", "report", "gc"}
		case "again":
			commands = []string{"build"}
		default:
			t.Errorf("%s: what does it run?", s.Name)
		}
		for name, in := range action.Inputs {
			variable := "INPUT_" + strings.ToUpper(name)
			secret, ok := secrets[name]
			if ok {
				variable = secret
			}
			if name == "github_access_token" && s.ID == "again" {
				continue // nothing is fetched there
			}
			if !ok && name != "command" && !slices.ContainsFunc(in.commands(), func(c string) bool { return slices.Contains(commands, c) }) {
				continue
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

// What the reusable workflow takes, it must hand on.
func TestWorkflowInputs(t *testing.T) {
	action := parse[actionFile](t, "action.yml")
	workflow := parse[workflowFile](t, ".github/workflows/nix-matrix.yml")
	call := workflow.On.Call
	for _, name := range []string{"runner", "install_nix"} { // these are about the workflow's own jobs
		if _, ok := call.Inputs[name]; !ok {
			t.Errorf("there is no input %s", name)
		}
		delete(call.Inputs, name)
	}
	for name, in := range call.Inputs {
		if a, ok := action.Inputs[name]; !ok {
			t.Errorf("the action has no input %s", name)
		} else if in.Default != a.Default {
			t.Errorf("%s is %q by default, and %q in the action", name, in.Default, a.Default)
		}
	}
	if got, want := slices.Sorted(maps.Keys(call.Secrets)), slices.Sorted(maps.Keys(secrets)); !slices.Equal(got, want) {
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
			for name := range call.Inputs {
				want := "${{ inputs." + name + " }}"
				if !slices.Contains(action.Inputs[name].commands(), id) {
					want = ""
				}
				if s.With[name] != want {
					t.Errorf("%s: with has %s: %q, want %q", id, name, s.With[name], want)
				}
			}
			// Only who pushes gets the secrets for that, who discovers those for reading, and all what seals.
			sealing := []string{"encryption_key", "git_crypt_key"}
			signing := []string{"signing_key", "cachix_signing_key"}
			for name := range call.Secrets {
				want := ""
				switch {
				case name == "github_access_token" && id == "discover":
					want = "${{ secrets." + name + " || github.token }}"
				case name == "github_access_token":
				case slices.Contains(sealing, name) || id == "build" || id == "discover" && !slices.Contains(signing, name):
					want = "${{ secrets." + name + " }}"
				}
				if s.With[name] != want {
					t.Errorf("%s: with has %s: %q, want %q", id, name, s.With[name], want)
				}
			}
			for name := range s.With {
				if _, ok := action.Inputs[name]; !ok {
					t.Errorf("%s: the action has no input %s", id, name)
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
	call := parse[workflowFile](t, ".github/workflows/nix-matrix.yml").On.Call
	for name, inputs := range map[string]map[string]input{"action.yml": action.Inputs, ".github/workflows/nix-matrix.yml": call.Inputs} {
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
			if _, ok := call.Secrets[m[1]]; !ok {
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

// Nothing from outside gets into a shell's text, code from outside is pinned by commit, and no job may more
// than it needs to.
func TestTrust(t *testing.T) {
	pinned := regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40}$`)
	check := func(name string, s step) {
		if strings.Contains(s.Run, "${{") && !copies.MatchString(s.Shell) {
			t.Errorf("%s: an expression in run, where an environment variable should be: %s", name, s.Run)
		}
		if s.Uses != "" && s.Uses != "org/nix-matrix@v1" && s.Uses != "./" && !pinned.MatchString(s.Uses) {
			t.Errorf("%s: %s is not pinned by commit", name, s.Uses)
		}
	}
	for _, s := range parse[actionFile](t, "action.yml").Runs.Steps {
		check("action.yml", s)
	}
	files, err := filepath.Glob(filepath.Join(root, ".github/workflows/*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no workflows: %v", err)
	}
	for _, file := range files {
		name, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		workflow := parse[workflowFile](t, name)
		// The report takes the permissions of the job that calls the workflow, if it may comment.
		called := name == ".github/workflows/nix-matrix.yml"
		if !called && (workflow.Permissions == nil || len(*workflow.Permissions) > 0) {
			t.Errorf("%s: want permissions: {} for all jobs that say nothing else", name)
		}
		for id, job := range workflow.Jobs {
			if job.Uses != "" {
				check(name, step{Uses: job.Uses})
			}
			if called && (workflow.Permissions != nil || (job.Permissions == nil) != (id == "report")) {
				t.Errorf("%s: want permissions for each job but report", name)
			}
			checksOut := slices.ContainsFunc(job.Steps, func(s step) bool { return strings.HasPrefix(s.Uses, "actions/checkout@") })
			for permission, access := range job.Permissions {
				if permission != "contents" || access != "read" || !checksOut {
					t.Errorf("%s: %s has the permission %s: %s", name, id, permission, access)
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

// The README quotes the workflows that TestWorkflows runs, word for word.
func TestQuickStarts(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"reusable", "steps"} {
		data, err := os.ReadFile(filepath.Join(root, "examples/workflows/quickstart-"+name+".yml"))
		if err != nil {
			t.Fatal(err)
		}
		jobs, ok := strings.CutPrefix(string(data), "name: ci\non: push\n\n")
		if !ok || !strings.HasPrefix(jobs, "jobs:\n") {
			t.Errorf("%s: what comes before its jobs is not what all workflows have", name)
		}
		if !strings.Contains(string(readme), "```yaml\n"+jobs+"```\n") {
			t.Errorf("README.md does not have the jobs of quickstart-%s.yml word for word", name)
		}
	}
}

// The workflow that makes room may do that and nothing else, and the README quotes it.
func TestMakingRoom(t *testing.T) {
	const name = "examples/workflows/gc.yml"
	workflow := parse[workflowFile](t, name)
	if workflow.Permissions == nil || len(*workflow.Permissions) > 0 {
		t.Error("want permissions: {} for all jobs that say nothing else")
	}
	if got, want := workflow.Jobs["gc"].Permissions, map[string]string{"actions": "write"}; !maps.Equal(got, want) {
		t.Errorf("the permissions are %v, want %v", got, want)
	}
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if _, jobs, _ := strings.Cut(string(data), "\njobs:\n"); !strings.Contains(string(readme), "```yaml\njobs:\n"+jobs+"```\n") {
		t.Errorf("README.md does not have the job of %s word for word", name)
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

// uncommented gives the text of a file without its comments.
func uncommented(t *testing.T, name string) string {
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^\s*#.*$`).ReplaceAllString(string(data), "")
}
