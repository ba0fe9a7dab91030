package e2e_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/action/githubtest"
)

// A push, to main or to a branch of which there is a pull request, or another event, and what surrounds the run of the
// workflow that it starts.
type push struct {
	repository string               // the user's, a git work tree
	product    string               // this repository, as the run gets it
	ref        string               // further ref that product is known by, as well as v1
	runtime    map[string]string    // variables that JavaScript actions see
	artifacts  string               // address for act's artifact server
	cachix     *cachix              // may be nil
	emulation  bool                 // programs for aarch64 run from the start
	event      string               // its name, where that is neither push nor pull_request
	pull       int                  // number of the pull request that it is, or 0
	fork       bool                 // which is from a fork, and has no secrets
	secrets    map[string]string    // beyond those of the quick starts
	nix        bool                 // is on the runners, which share a store
	hosted     bool                 // the runners are GitHub's
	programs   []string             // files, beyond tools
	machine    string               // the directory of the machine that the stand-in for ssh reaches, may be empty
	api        *githubtest.Server   // GitHub's, may be nil
	identity   *githubtest.IDTokens // gives tokens to jobs with the permission id-token: write; may be nil
	again      *run                 // whose jobs are run again, with the artifacts that it has left; may be nil
}

// The directories where act finds actions. One that is not here, or has another commit, is not available.
var actions = map[string][]string{
	"github-script":           {"actions/github-script@ed597411d8f924073f98dfc5c65a23a2325f34cd"},
	"upload-artifact":         {"actions/upload-artifact@043fb46d1a93c77aae656e7c1c64a875d1fc6a0a"},
	"download-artifact":       {"actions/download-artifact@3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c"},
	"create-github-app-token": {"actions/create-github-app-token@bcd2ba49218906704ab6c1aa796996da409d3eb1"},
	"setup-qemu-action":       {"docker/setup-qemu-action@96fe6ef7f33517b61c61be40b68a1882f3264fb8"},
	"install-nix-action": {"cachix/install-nix-action@630ae543ea3a38a9a4166f03376c02c50f408342", "cachix/install-nix-action@v31",
		"DeterminateSystems/determinate-nix-action@527f17dd63d2d60d3e5552934bc84b9a33a14d11", "samueldr/lix-gha-installer-action@7b7f14d320d6aacfb65bd1ef761566b3b69e474c"},
}

// tools is all that is on a runner's PATH, so neither Nix nor Go.
var tools = []string{
	"awk", "bash", "cat", "chmod", "cp", "dirname", "env", "git", "mkdir", "mount", "node", "readlink", "sh", "sha256sum", "uname", "unshare",
}

// labels are those of the runners, which are all this machine; of a job with several labels, one has to be here.
var labels = []string{"ubuntu-latest", "ubuntu-24.04-arm", "macos-15-intel", "macos-latest", "nix"}

// A run has namespaces of its own, which end with it, and take along what it has left running.
var namespaces = []string{"--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"}

// enter furnishes them: a binfmt_misc that no other program sees, a /nix, empty where the runners have no Nix, and the
// addresses of hosts.
const enter = `set -e
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
if [ "$E2E_EMULATION" = true ]; then printf %s "$E2E_BINFMT" >/proc/sys/fs/binfmt_misc/register; fi
if [ -n "$E2E_STORE" ]; then mount --bind "$E2E_STORE" /nix; else mount -t tmpfs -o ro none /nix; fi
mount --bind "$E2E_HOSTS" /etc/hosts
exec "$@"`

// A run is a run of act.
type run struct {
	t         *testing.T
	dir       string
	artifacts string   // directory
	secrets   []string // which no job may say
	cmd       *exec.Cmd
	ended     chan struct{} // closed when act has ended
	lines     []line        // of its log, after that
}

// start starts the workflows of the repository. The run ends with the test at the latest.
func (p *push) start(t *testing.T) *run {
	t.Helper()
	p.checkPermissions(t)
	r := &run{t: t, dir: t.TempDir(), secrets: []string{p.runtime["ACTIONS_RUNTIME_TOKEN"]}, ended: make(chan struct{})}
	bin := filepath.Join(r.dir, "bin")
	for _, dir := range []string{"bin", "home", "tmp", "act"} {
		mkdir(t, filepath.Join(r.dir, dir))
	}
	r.artifacts = filepath.Join(r.dir, "artifacts")
	if p.again != nil {
		r.artifacts = p.again.artifacts
	}
	mkdir(t, filepath.Join(r.artifacts, "1")) // act's server wants the directory of the run
	for _, tool := range tools {
		symlink(t, testbench.Program(t, tool), filepath.Join(bin, tool))
	}
	for _, program := range p.programs {
		symlink(t, program, filepath.Join(bin, filepath.Base(program)))
	}
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	symlink(t, filepath.Join(testdata, "cachix"), filepath.Join(bin, "cachix"))
	writeJSON(t, filepath.Join(r.dir, "runtime.json"), p.runtime)

	qemu := testbench.Path(t, "bin/qemu-aarch64-static")
	env := []string{
		"PATH=" + bin,
		"HOME=" + filepath.Join(r.dir, "home"),
		"TMPDIR=" + filepath.Join(r.dir, "tmp"),
		"ACT_DISABLE_VERSION_CHECK=1",
		"NODE_OPTIONS=--require=" + filepath.Join(testdata, "runner.js"),
		"NODE_PATH=" + testbench.Path(t, "npm/node_modules"),
		"E2E_RUNTIME=" + filepath.Join(r.dir, "runtime.json"),
		"E2E_NIX=" + testbench.Path(t, "nix-2.34"),
		"E2E_EMULATION=" + strconv.FormatBool(p.emulation),
		`E2E_BINFMT=:qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:` +
			`\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:` + qemu + ":F",
		"E2E_HOSTS=" + filepath.Join(r.dir, "hosts"),
		"E2E_MACHINE=" + p.machine,
	}
	if p.nix {
		store, conf := filepath.Join(r.dir, "nix"), filepath.Join(r.dir, "etc")
		mkdir(t, store)
		mkdir(t, conf)
		nix := testbench.Path(t, "nix-2.34")
		write(t, filepath.Join(conf, "nix.conf"), "include "+nix+"/etc/nix.conf\n")
		env[0] += ":" + nix + "/bin"
		env = append(env, "E2E_STORE="+store, "NIX_CONF_DIR="+conf)
	}
	hosts := "127.0.0.1 localhost\n"
	if p.cachix != nil {
		hosts += p.cachix.address + " cachix.org my-fleet.cachix.org\n"
		env = append(env, "E2E_CACHIX="+p.cachix.dir, "E2E_CACHE="+p.cachix.served, "E2E_CACHE_KEY="+p.cachix.key, "E2E_SECRET="+secret, "NIX_SSL_CERT_FILE="+p.cachix.certificate, "SSL_CERT_FILE="+p.cachix.certificate)
	}
	write(t, filepath.Join(r.dir, "hosts"), hosts)

	args := append(slices.Clone(namespaces), "sh", "-c", enter, "enter",
		testbench.Path(t, "bin/act"), p.writeEvent(t, r.dir), "--json", "--eventpath", filepath.Join(r.dir, "event.json"),
		"--insecure-secrets", // no secret is masked, so that the log shows one that got there
		"--action-cache-path", filepath.Join(r.dir, "act"),
		"--no-cache-server", "--cache-server-addr", "127.0.0.1",
		"--artifact-server-path", r.artifacts,
		"--artifact-server-addr", p.artifacts, "--artifact-server-port", artifactPort,
		"--local-repository", "org/nix-matrix@v1="+p.product)
	for _, label := range labels {
		args = append(args, "--platform", label+"=-self-hosted")
	}
	if !p.fork {
		args = append(args, "--secret", "CACHIX_AUTH_TOKEN="+secret, "--secret", "ENCRYPTION_KEY="+secret)
		for name, value := range p.secrets {
			args = append(args, "--secret", name+"="+value)
			r.secrets = append(r.secrets, value)
		}
	}
	if p.api != nil {
		args = append(args, "--env", "GITHUB_API_URL="+p.api.URL, "--env", "GITHUB_REPOSITORY=org/fleet")
		if p.secrets["GITHUB_TOKEN"] == "" {
			args = append(args, "--secret", "GITHUB_TOKEN="+p.api.Token)
		}
		r.secrets = append(r.secrets, p.api.Token)
	}
	if p.identity != nil && p.identified(t) {
		for name, value := range p.identity.Env() {
			args = append(args, "--env", name+"="+value)
		}
		r.secrets = append(r.secrets, p.identity.Env()["ACTIONS_ID_TOKEN_REQUEST_TOKEN"])
	}
	if p.again != nil {
		args = append(args, "--env", "GITHUB_RUN_ATTEMPT=2")
	}
	if p.hosted {
		args = append(args, "--env", "RUNNER_ENVIRONMENT=github-hosted")
	}
	if p.ref != "" {
		args = append(args, "--local-repository", "org/nix-matrix@"+p.ref+"="+p.product)
	}
	for dir, names := range actions {
		for _, name := range names {
			args = append(args, "--local-repository", name+"="+filepath.Join(testdata, "actions", dir))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute) // a stuck run ends, a slow one goes on
	r.cmd = exec.CommandContext(ctx, testbench.Program(t, "unshare"), args...)
	r.cmd.Dir, r.cmd.Env = p.repository, env
	var log bytes.Buffer
	r.cmd.Stdout, r.cmd.Stderr = &log, &log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // and --kill-child takes the rest along
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer cancel()
		r.cmd.Wait()
		r.end(log.Bytes())
	}()
	t.Cleanup(func() {
		cancel()
		<-r.ended
		if t.Failed() {
			r.print()
		}
	})
	return r
}

// pullHead is the head of the pull request, of which a run has the merge commit.
const pullHead = "7777777777777777777777777777777777777777"

// writeEvent writes what GitHub tells of the event into a directory, and gives its name.
func (p *push) writeEvent(t *testing.T, dir string) string {
	repository := map[string]any{"default_branch": "main", "full_name": "org/fleet", "private": false}
	name, event := p.event, map[string]any{"repository": repository, "ref": "refs/heads/main"}
	switch {
	case p.pull != 0:
		from := "org/fleet"
		if p.fork {
			from = "somebody/fleet"
		}
		name, event = "pull_request", map[string]any{"repository": repository, "number": p.pull, "pull_request": map[string]any{
			"number": p.pull,
			"base":   map[string]any{"ref": "main"},
			"head":   map[string]any{"ref": "main", "sha": pullHead, "repo": map[string]any{"fork": p.fork, "full_name": from}},
		}}
	case name == "merge_group":
		event = map[string]any{"repository": repository, "action": "checks_requested", "merge_group": map[string]any{
			"head_ref": "refs/heads/gh-readonly-queue/main/pr-7-0123456789012345678901234567890123456789", "base_ref": "refs/heads/main",
		}}
	case name == "":
		name = "push"
	case name == "schedule":
		event = map[string]any{"repository": repository, "schedule": "30 4 * * 1"}
	}
	writeJSON(t, filepath.Join(dir, "event.json"), event)
	return name
}

// checkPermissions does what act does not, and GitHub does at the start of a run: it refuses workflows with a called
// job that asks for more than the job that calls it may.
func (p *push) checkPermissions(t *testing.T) {
	t.Helper()
	for _, caller := range p.workflows(t) {
		for id, job := range caller.Jobs {
			if job.Uses == "" {
				continue
			}
			may := caller.granted(id)
			file, ours := called(job.Uses)
			if !ours {
				file = reusable // of the user's own repository
			}
			for name, job := range parseText[workflowFile](t, file, read(t, filepath.Join(p.product, file))).Jobs {
				if job.Permissions == nil {
					continue
				}
				for permission, access := range *job.Permissions {
					if may[permission] != access && may[permission] != "write" {
						t.Fatalf("GitHub does not start %s: its job %s asks for %s: %s, and %s has only %v", file, name, permission, access, id, may)
					}
				}
			}
		}
	}
}

// identified reports whether GitHub lets the job that builds prove its identity: it has the permissions of the job that
// calls the workflow. act gives the variables for that to all jobs or none.
func (p *push) identified(t *testing.T) bool {
	t.Helper()
	build := parseText[workflowFile](t, reusable, read(t, filepath.Join(p.product, reusable))).Jobs["build"]
	return build.Permissions == nil && slices.ContainsFunc(p.workflows(t), func(caller *workflowFile) bool {
		for id, job := range caller.Jobs {
			if job.Uses != "" && caller.granted(id)["id-token"] == "write" {
				return true
			}
		}
		return false
	})
}

// workflows are the user's.
func (p *push) workflows(t *testing.T) []*workflowFile {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.repository, ".github/workflows/*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no workflows in %s: %v", p.repository, err)
	}
	var all []*workflowFile
	for _, file := range files {
		all = append(all, parseText[workflowFile](t, file, read(t, file)))
	}
	return all
}

// granted is what the token of a job may. Who says nothing has what new repositories give.
func (w *workflowFile) granted(job string) map[string]string {
	for _, permissions := range []*map[string]string{w.Jobs[job].Permissions, w.Permissions} {
		if permissions != nil {
			return *permissions
		}
	}
	return map[string]string{"contents": "read", "packages": "read"}
}

func symlink(t *testing.T, to, from string) {
	t.Helper()
	if err := os.Symlink(to, from); err != nil {
		t.Fatal(err)
	}
}
