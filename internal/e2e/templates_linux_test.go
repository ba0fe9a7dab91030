package e2e_test

import (
	"bytes"
	"encoding/base64"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/action/githubtest"
	"github.com/org/nix-matrix/pkg/cache/actions/actionstest"
	"github.com/org/nix-matrix/pkg/push/attic/attictest"
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
	jobs  []string
	// prepare makes the servers that it needs, and gives the repository. What is returned looks at what has become
	// of the run.
	prepare func(t *testing.T, workflow string, p *push) (check func(r *run))
}

var templates = map[string]template{
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
	"library.yml": {
		event: "merge_group",
		jobs:  []string{"packages and checks x86_64-linux"},
		prepare: func(t *testing.T, workflow string, p *push) func(*run) {
			p.cachix, p.repository = newCachix(t), small(t, replace(t, workflow, "cachix:my-library", "cachix:my-fleet"))
			return func(*run) {
				if _, pushed := p.cachix.pushed(t); pushed["tool"] == "" || pushed["test"] == "" {
					t.Errorf("only %v is pushed", pushed)
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

// run runs a template as an event would.
func (try template) run(t *testing.T, name, product string) {
	artifacts := loopback()
	p := &push{product: product, event: try.event, artifacts: artifacts, runtime: cacheV2(t, artifacts)}
	check := try.prepare(t, read(t, filepath.Join(root, "examples/workflows", name)), p)
	r := p.start(t)
	r.wait()
	r.expect(all("success", "nix/", append(slices.Clone(try.jobs), "discover", "report")...))
	check(r)
}

// All templates are run: the quick starts and the one for gc, and those above.
func TestTemplatesAreRun(t *testing.T) {
	run := slices.Collect(maps.Keys(templates))
	run = append(run, "quickstart-reusable.yml", "quickstart-steps.yml", "store-cache.yml", "gc.yml")
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

const commented = `name: ci
on: [push, pull_request]
permissions:
  contents: read
jobs:
  nix:
    permissions:
      contents: read
      pull-requests: write
    uses: org/nix-matrix/.github/workflows/nix-matrix.yml@v1
    with:
      installables: .#nixosConfigurations
      comment: true
`

// A run of main leaves what it has built. Then a pull request builds one machine of four, and the one comment names just
// that; so it does when more is changed. A caller that lets its jobs only read gets its verdict, and is told which line
// the comment wants. In the end, room is made.
func pullRequest(t *testing.T, product string) {
	service := actionstest.Start(t, actionstest.Options{})
	main := actionstest.Scope{Scope: actionstest.Main, Permission: actionstest.Read | actionstest.Write}
	hosts := append(slices.Clone(smallHosts), "nixosConfigurations.beta", "nixosConfigurations.gamma")
	repository := small(t, commented, "pi = host", `beta = host "x86_64-linux" "beta" "one"; gamma = host "x86_64-linux" "gamma" "one"; pi = host`)
	// The token may what the workflow says.
	api := func(t *testing.T, workflow, job string, with githubtest.Options) *githubtest.Server {
		with.Permissions = parseText[workflowFile](t, "the workflow", workflow).granted(job)
		return githubtest.Start(t, with)
	}
	start := func(t *testing.T, api *githubtest.Server, pull int, scopes ...actionstest.Scope) *run {
		artifacts := loopback()
		r := (&push{
			repository: repository, product: product, pull: pull, api: api,
			artifacts: artifacts, runtime: runtimeV2(t, artifacts, service.TokenFor(scopes...), service),
		}).start(t)
		r.wait()
		return r
	}
	change := func(host string) {
		flake := filepath.Join(repository, "flake.nix")
		write(t, flake, replace(t, read(t, flake), `"`+host+`" "one"`, `"`+host+`" "two"`))
		commit(t, repository)
	}
	server := api(t, commented, "nix", githubtest.Options{})
	r := start(t, server, 0, main)
	r.expect(all("success", "nix/", append(slices.Clone(hosts), "discover", "report")...))
	if comments := server.Comments(); len(comments) > 0 {
		t.Errorf("a push has the comments %v", comments)
	}

	main.Permission = actionstest.Read
	own := actionstest.Scope{Scope: "refs/pull/7/merge", Permission: actionstest.Read | actionstest.Write}
	var changed []string
	for _, host := range []string{"pi", "gamma"} {
		change(host)
		changed = append(changed, "nixosConfigurations."+host)
		r = start(t, server, githubtest.PullRequest, own, main)
		r.expect(all("success", "nix/", append(slices.Clone(changed), "discover", "report")...))
		comments := server.Comments()
		if len(comments) != 1 {
			t.Fatalf("there are %d comments: %v", len(comments), comments)
		}
		var named []string
		for _, host := range hosts {
			if strings.Contains(comments[0].Body, host) {
				named = append(named, host)
			}
		}
		if diff := cmp.Diff(changed, named); diff != "" {
			t.Errorf("the comment names, - want + got:\n%s\n%s", diff, comments[0].Body)
		}
	}

	reading := leaveOut(t, commented, "pull-requests: write")
	write(t, filepath.Join(repository, ".github/workflows/ci.yml"), reading)
	commit(t, repository)
	server = api(t, reading, "nix", githubtest.Options{})
	r = start(t, server, githubtest.PullRequest, own, main)
	r.expect(all("success", "nix/", append(slices.Clone(changed), "discover", "report")...))
	r.verdict("nix/report", "✅ nix-matrix: all 4 targets are done")
	if !slices.ContainsFunc(r.lines, func(l line) bool {
		return l.name() == "nix/report" && strings.Contains(l.Arg+l.Message, "Add the line `pull-requests: write` below `permissions:` of the job")
	}) {
		t.Error("nobody says which line the comment wants")
	}

	collect := read(t, filepath.Join(root, "examples/workflows/gc.yml"))
	write(t, filepath.Join(repository, ".github/workflows/gc.yml"), collect)
	commit(t, repository)
	ago := func(days time.Duration) time.Time { return time.Now().Add(-days * 24 * time.Hour) }
	server = api(t, collect, "gc", githubtest.Options{Caches: []githubtest.Cache{
		{Key: "nix-matrix-plan0-" + strings.Repeat("0", 32), Ref: "refs/heads/main", Size: 1000, Created: ago(20), Used: ago(9)},
		{Key: "nix-matrix-plan0-" + strings.Repeat("1", 32), Ref: "refs/heads/main", Size: 1000, Created: ago(20), Used: ago(2)},
		{Key: "somebody-elses", Ref: "refs/heads/main", Size: 1000, Created: ago(20), Used: ago(9)},
	}})
	artifacts := loopback()
	r = (&push{repository: repository, product: product, event: "schedule", api: server, artifacts: artifacts, runtime: cacheV2(t, artifacts)}).start(t)
	r.wait()
	r.expect(all("success", "", "gc"))
	var left []string
	for _, c := range server.Caches() {
		left = append(left, c.Key)
	}
	if diff := cmp.Diff([]string{"nix-matrix-plan0-" + strings.Repeat("1", 32), "somebody-elses"}, left); diff != "" {
		t.Errorf("what is left in the cache, - want + got:\n%s", diff)
	}
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
