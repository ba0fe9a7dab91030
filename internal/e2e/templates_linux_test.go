package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/action/githubtest"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
	"github.com/org/nix-matrix/pkg/push/attic/attictest"
	"github.com/org/nix-matrix/pkg/push/niks3/niks3test"
)

// small is a repository with the flake in testdata/small, in which text was replaced.
func small(t *testing.T, workflow string, oldNew ...string) string {
	dir := t.TempDir()
	flake := read(t, "testdata/small/flake.nix")
	for pair := range slices.Chunk(oldNew, 2) {
		flake = replace(t, flake, pair[0], pair[1])
	}
	write(t, filepath.Join(dir, "flake.nix"), flake)
	return repository(t, dir, workflow)
}

var smallHosts = []string{"nixosConfigurations.alpha", "nixosConfigurations.pi"}

// A template is run on the small repository, with what users are told to put in place of names of ours.
type template struct {
	event string
	jobs  []string // of the reusable workflow, beyond discover and report
	own   []string // other jobs
	// prepare makes the servers that it needs, and gives the repository. What is returned looks at what has become
	// of the run.
	prepare func(t *testing.T, workflow string, p *push) (check func(r *run))
}

var templates = map[string]template{
	"deploy.yml":       deployTemplate,
	"deploy-tools.yml": deployToolsTemplate,
	"update.yml":       updateTemplate,
	"cachix.yml": {
		jobs: append(slices.Clone(smallHosts), "homeConfigurations.anna@alpha"),
		prepare: func(t *testing.T, workflow string, p *push) func(*run) {
			p.cachix, p.repository = newCachix(t), small(t, workflow)
			return func(*run) {
				if jobs, _ := p.cachix.pushed(t); jobs != 3 {
					t.Errorf("%d jobs have pushed, want 3", jobs)
				}
			}
		},
	},
	"attic-private.yml": {
		event: "schedule",
		jobs:  append(slices.Clone(smallHosts), "homeConfigurations.anna@alpha", "packages and checks x86_64-linux"),
		prepare: func(t *testing.T, workflow string, p *push) func(*run) {
			attic := attictest.Start(t, attictest.Options{Cache: "fleet", Dir: t.TempDir()})
			p.repository = small(t, replace(t, workflow, "https://attic.example.org", attic.URL))
			p.secrets = map[string]string{"ATTIC_TOKEN": attic.Token(true, true), "INPUTS_TOKEN": "github_pat_of_inputs"}
			return func(r *run) {
				if n := len(attic.Uploads()); n != 5 {
					t.Errorf("Attic has %d paths, want 5", n)
				}
				for _, name := range r.uploaded() {
					if bytes.Contains(r.artifact(name), []byte("/nix/store")) {
						t.Errorf("the artifact %s is in clear", name)
					}
				}
			}
		},
	},
	"niks3.yml": {
		jobs: append(slices.Clone(smallHosts), "homeConfigurations.anna@alpha", "packages and checks x86_64-linux"),
		prepare: func(t *testing.T, workflow string, p *push) func(*run) {
			p.identity = &githubtest.IDTokens{Issuer: "https://token.actions.githubusercontent.com"}
			p.identity.Start(t)
			var niks3 *niks3test.Running
			niks3 = niks3test.Start(t, niks3test.Options{Dir: t.TempDir(), Issuer: p.identity.Issuer, Accepts: func(token string) int {
				if p.identity.Audience(token) != niks3.URL {
					return http.StatusUnauthorized
				}
				return 0
			}})
			p.repository = small(t, replace(t, workflow, "https://niks3.example.org", niks3.URL))
			return func(r *run) {
				if n := len(niks3.Roots()); n < 4 || n > 5 {
					t.Errorf("niks3 keeps %d paths, want 5, or 4 where one is in the closure of another", n)
				}
			}
		},
	},
	"git-crypt.yml": {
		jobs: smallHosts,
		prepare: func(t *testing.T, workflow string, p *push) func(*run) {
			attic := attictest.Start(t, attictest.Options{Cache: "machines", Dir: t.TempDir()})
			unlocked := small(t, replace(t, workflow, "https://attic.example.org", attic.URL), `"alpha" "one"`, `"alpha" (import ./secret.nix)`)
			var key string
			p.repository, key = encrypt(t, unlocked, "secret.nix", `"the marker"`)
			p.programs = []string{testbench.Program(t, "git-crypt")}
			p.secrets = map[string]string{"ATTIC_TOKEN": attic.Token(true, true), "GIT_CRYPT_KEY": key}
			return func(r *run) {
				if n := len(attic.Uploads()); n != 2 {
					t.Errorf("Attic has %d paths, want 2", n)
				}
				for _, name := range r.uploaded() {
					if bytes.Contains(r.artifact(name), []byte("the marker")) {
						t.Errorf("the artifact %s has what is encrypted, in clear", name)
					}
				}
			}
		},
	},
	"nixbuild-net.yml": {
		event: "workflow_dispatch",
		jobs:  append(slices.Clone(smallHosts), "homeConfigurations.anna@alpha", "packages and checks x86_64-linux"),
		prepare: func(t *testing.T, workflow string, p *push) func(*run) {
			machine := testbench.SSHD(t, testbench.SSHDOptions{Config: "extra-platforms = aarch64-linux"})
			workflow = replace(t, workflow, "ssh-ng://eu.nixbuild.net", machine.Address()+":"+strconv.Itoa(machine.Port))
			before, after, _ := strings.Cut(workflow, "ssh_known_hosts: ")
			_, after, _ = strings.Cut(after, "\n")
			p.repository = small(t, before+`ssh_known_hosts: "`+machine.KnownHosts+"\"\n"+after)
			p.programs = []string{testbench.Program(t, "ssh")}
			p.secrets = map[string]string{"NIXBUILD_SSH_KEY": read(t, machine.Key)}
			return func(*run) {
				for _, name := range []string{"nixos-system-pi-24.11", "tool"} {
					if built, _ := filepath.Glob(filepath.Join(machine.Store, "store/*-"+name)); len(built) == 0 {
						t.Errorf("%s is not there", name)
					}
				}
			}
		},
	},
}

// A machine gets its system from the binary cache, and is told to switch to it.
var deployTemplate = template{
	jobs: smallHosts,
	own:  []string{"deploy"},
	prepare: func(t *testing.T, workflow string, p *push) func(*run) {
		cache := t.TempDir()
		workflow = replace(t, replace(t, workflow, "cachix:my-fleet", "file://"+cache), "https://my-fleet.cachix.org", "file://"+cache)
		p.repository = small(t, workflow)
		p.deploys(t)
		return func(r *run) {
			there, _ := filepath.Glob(filepath.Join(p.machine, "nix/store/*-nixos-system-alpha-24.11"))
			if len(there) != 1 || read(t, there[0]) != "one\n" {
				t.Fatalf("the machine has %v", there)
			}
			system := "/nix/store/" + filepath.Base(there[0])
			want := "root@alpha.example.org bash -es -- " + system + "\n" + `nix-env --profile /nix/var/nix/profiles/system --set "$1"
systemd-run --unit=switch-to-configuration --collect --pipe --service-type=exec "$1/bin/switch-to-configuration" switch
`
			if diff := cmp.Diff(want, read(t, filepath.Join(p.machine, "commands"))); diff != "" {
				t.Errorf("the commands, - want + got:\n%s", diff)
			}
			var paths map[string]map[string]string
			if err := json.Unmarshal([]byte(r.output("nix/report", "paths")), &paths); err != nil || len(paths) != 2 || paths["nixosConfigurations.alpha.config.system.build.toplevel"]["out"] != system {
				t.Errorf("the output paths is %v, %v", paths, err)
			}
		}
	},
}

// Tools that deploy find themselves and the system in the binary cache: nothing may be built, and each stands alone.
var deployToolsTemplate = template{
	jobs: []string{"colmenaHive.nodes.alpha", "deploy.nodes.alpha", "packages x86_64-linux"},
	own:  []string{"deploy"},
	prepare: func(t *testing.T, workflow string, p *push) func(*run) {
		p.cachix = newCachix(t)
		dir := t.TempDir()
		write(t, filepath.Join(dir, "flake.nix"), read(t, "testdata/deploy-tools/flake.nix"))
		p.repository = repository(t, dir, replace(t, workflow, "my-fleet.cachix.org-1:KEY", p.cachix.public))
		p.deploys(t)
		return func(*run) {
			name := func(prefix string) string {
				there, _ := filepath.Glob(filepath.Join(p.machine, "nix/store/"+strings.Repeat("[0-9a-z]", 32)+"-"+prefix+"nixos-system-alpha-24.11"))
				if len(there) != 1 {
					t.Fatalf("the machine has %v", there)
				}
				return "/nix/store/" + filepath.Base(there[0])
			}
			want := "root@alpha.example.org deploy --skip-checks .#alpha switches to " + name("activatable-") + `
root@alpha.example.org colmena apply --on alpha switches to ` + name("") + `
root@alpha.example.org nixos-rebuild switch --no-reexec --flake .#alpha --target-host root@alpha.example.org switches to ` + name("") + "\n"
			if diff := cmp.Diff(want, read(t, filepath.Join(p.machine, "commands"))); diff != "" {
				t.Errorf("the commands, - want + got:\n%s", diff)
			}
		}
	},
}

// deploys makes a machine, which runs reach by ssh.
func (p *push) deploys(t *testing.T) {
	ssh, err := filepath.Abs("testdata/machine/ssh")
	if err != nil {
		t.Fatal(err)
	}
	p.machine, p.programs = t.TempDir(), []string{ssh}
	p.secrets = map[string]string{"DEPLOY_KEY": "a key of the machine"}
}

// A newer input becomes a pull request that merges itself, with a section about the machines that change.
var updateTemplate = template{
	event: "schedule",
	own:   []string{"update", "propose"},
	prepare: func(t *testing.T, workflow string, p *push) func(*run) {
		input := t.TempDir()
		write(t, filepath.Join(input, "default.nix"), `"one"`)
		command(t, input, "git", "init", "--quiet", "--initial-branch=main")
		commit(t, input)
		p.repository = small(t, workflow, "{ self }:", "{ self, word }:", "{\n  outputs =", "{\n  inputs.word = { url = \"git+file://"+input+"\"; flake = false; };\n  outputs =", `"alpha" "one"`, `"alpha" (import word)`)
		lock := exec.CommandContext(t.Context(), filepath.Join(testbench.Path(t, "nix-2.34"), "bin/nix"), "--extra-experimental-features", "nix-command flakes", "--store", t.TempDir(), "flake", "lock")
		lock.Dir, lock.Env = p.repository, append(os.Environ(), "HOME="+t.TempDir())
		if out, err := lock.CombinedOutput(); err != nil {
			t.Fatalf("lock the flake: %v\n%s", err, out)
		}
		commit(t, p.repository)
		write(t, filepath.Join(input, "default.nix"), `"two"`)
		commit(t, input)
		old := read(t, filepath.Join(p.repository, "flake.lock"))
		head := strings.TrimSpace(command(t, p.repository, "git", "rev-parse", "HEAD"))
		p.api = githubtest.Start(t, githubtest.Options{
			Permissions: parseText[workflowFile](t, "the workflow", workflow).granted("update"),
			Commits:     map[string]githubtest.Commit{head: {Files: map[string]string{"flake.lock": old}}}, Branches: map[string]string{"main": head},
		})
		p.secrets = map[string]string{"UPDATE_TOKEN": p.api.Token}
		return func(*run) {
			pulls := p.api.Pulls()
			if len(pulls) != 1 || pulls[0].Title != "flake.lock: update word" || !pulls[0].AutoMerge {
				t.Fatalf("the pull requests are %+v", pulls)
			}
			for _, want := range []string{"## What this rebuilds\n\n1 changed, 4 unchanged; 1 missing derivation to build.", "| `nixosConfigurations.alpha` | 1 |"} {
				if !strings.Contains(pulls[0].Body, want) {
					t.Errorf("the body lacks %s:\n%s", want, pulls[0].Body)
				}
			}
			if tip := p.api.Commit(p.api.Branches()["update/flake-lock"]); tip.Parent != head || tip.Files["flake.lock"] == old {
				t.Errorf("the commit is %+v", tip)
			}
		}
	},
}

// The token of a GitHub App opens the pull request, and GitHub knows no other here.
var updateByApp = template{
	event: updateTemplate.event,
	own:   updateTemplate.own,
	prepare: func(t *testing.T, workflow string, p *push) func(*run) {
		workflow = replace(t, workflow, "    with:\n", "    with:\n      app_id: 7\n")
		workflow += "      app_private_key: ${{ secrets.APP_KEY }}\n"
		check := updateTemplate.prepare(t, workflow, p)
		p.secrets = map[string]string{"APP_KEY": p.api.Token, "UPDATE_TOKEN": "github_pat_of_a_person", "GITHUB_TOKEN": "ghs_of_the_workflow"}
		return check
	},
}

// run runs a template as an event would.
func (try template) run(t *testing.T, name, product string) {
	artifacts := loopback()
	p := &push{product: product, event: try.event, artifacts: artifacts, runtime: cacheV2(t, artifacts)}
	check := try.prepare(t, read(t, filepath.Join(root, "examples/workflows", name)), p)
	r := p.start(t)
	r.wait()
	want := all("success", "", try.own...)
	if len(try.jobs) > 0 {
		maps.Copy(want, all("success", "nix/", append(slices.Clone(try.jobs), "discover", "report")...))
	}
	r.expect(want)
	check(r)
}

// All templates are run: the quick starts, those of adopters and the one for gc, and those above.
func TestTemplatesAreRun(t *testing.T) {
	run := slices.Collect(maps.Keys(templates))
	run = append(run, "quickstart-reusable.yml", "quickstart-steps.yml", "store-cache.yml", "library.yml", "gc.yml")
	for i := range run {
		run[i] = filepath.Join("examples/workflows", run[i])
	}
	slices.Sort(run)
	if diff := cmp.Diff(workflows(t, "examples/workflows"), run); diff != "" {
		t.Errorf("templates, - there + run:\n%s", diff)
	}
}

// encrypt adds a file that git-crypt encrypts to a repository. It gives a clone that nobody has unlocked, and the key.
func encrypt(t *testing.T, dir, file, text string) (clone, key string) {
	command(t, dir, "git-crypt", "init")
	write(t, filepath.Join(dir, ".gitattributes"), file+" filter=git-crypt diff=git-crypt\n")
	write(t, filepath.Join(dir, file), text+"\n")
	commit(t, dir)
	exported := filepath.Join(t.TempDir(), "key")
	command(t, dir, "git-crypt", "export-key", exported)
	clone = t.TempDir()
	command(t, clone, "git", "clone", "--quiet", dir, ".")
	if strings.Contains(read(t, filepath.Join(clone, file)), text) {
		t.Fatalf("%s is not encrypted", file)
	}
	return clone, base64.StdEncoding.EncodeToString([]byte(read(t, exported)))
}

const onOwnRunners = `name: ci
on: push
permissions:
  contents: read
jobs:
  nix:
    uses: org/nix-matrix/.github/workflows/nix-matrix.yml@v1
    with:
      runner: '["self-hosted", "ubuntu-latest"]'
      runners: |
        x86_64-linux=self-hosted,ubuntu-latest
        aarch64-linux=self-hosted,ubuntu-24.04-arm
      install_nix: false
      cache: dir:@directory@
`

// Runners of one's own have Nix, keep their store, and share a directory in place of the Actions cache.
func ownRunners(t *testing.T, product string) {
	directory, artifacts := t.TempDir(), loopback()
	service := actionstest.Start(t, actionstest.Options{})
	r := (&push{
		repository: small(t, replace(t, onOwnRunners, "@directory@", directory), `pi = host "aarch64-linux"`, `pi = host "x86_64-linux"`),
		product:    product, nix: true,
		artifacts: artifacts, runtime: runtimeV2(t, artifacts, service.Token(), service),
	}).start(t)
	r.wait()
	r.expect(all("success", "nix/", append(slices.Clone(smallHosts), "homeConfigurations.anna@alpha", "packages and checks x86_64-linux", "discover", "report")...))
	for _, l := range r.lines {
		if strings.Contains(l.Message, "Main cachix/install-nix-action") {
			t.Errorf("%s installs Nix", l.name())
		}
	}
	for _, host := range smallHosts {
		if got := r.step("nix/"+host, "nix-matrix, from artifacts"); got != "" {
			t.Errorf("%s did not find the directory", host)
		}
	}
	if stored, err := filepath.Glob(filepath.Join(directory, "nix-matrix-*")); len(stored) < 3 || len(service.Entries()) > 0 {
		t.Errorf("the directory has %v, the Actions cache %v: %v", stored, service.Entries(), err)
	}
}
