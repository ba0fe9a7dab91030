package testbench_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
)

func TestMain(m *testing.M) { testbench.PrivateProcess(m) }

// The builder says as whom it builds.
const expression = `derivation {
  name = "whoami"; system = builtins.currentSystem; PATH = "/usr/bin:/bin";
  builder = "/bin/sh"; args = [ "-c" "id -u >$out" ];
}`

// nix is a test's shell, as it were: programs of Nix 2.34 and an environment.
type nix struct {
	*testing.T
	user *testbench.MultiUser // root, if nil
	env  []string
}

func newNix(t *testing.T) *nix {
	t.Helper()
	path := testbench.NixPath(t, "2.34") + ":" + testbench.Path(t, "bin") + ":" + os.Getenv("PATH")
	t.Setenv("PATH", path)
	testbench.UseStore(t, t.TempDir())
	return &nix{T: t, env: append(os.Environ(), "HOME="+t.TempDir())}
}

// run returns the output of a program, and reports whether it succeeded.
func (n *nix) run(program string, args ...string) (string, bool) {
	n.Helper()
	cmd := exec.CommandContext(n.Context(), program, args...)
	cmd.Env = n.env
	if n.user != nil {
		n.user.AsUser(cmd)
		cmd.Dir = n.user.Home
	}
	output, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(output)), err == nil
}

func (n *nix) must(program string, args ...string) string {
	n.Helper()
	output, ok := n.run(program, args...)
	if !ok {
		n.Fatalf("%s %s:\n%s", program, strings.Join(args, " "), output)
	}
	lines := strings.Split(output, "\n")
	return lines[len(lines)-1]
}

func (n *nix) mustFail(want, program string, args ...string) {
	n.Helper()
	if output, ok := n.run(program, args...); ok || !strings.Contains(output, want) {
		n.Errorf("%s %s: succeeded %v, should fail with %q:\n%s", program, strings.Join(args, " "), ok, want, output)
	}
}

func (n *nix) file(name, text string) string {
	n.Helper()
	file := filepath.Join(n.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		n.Fatal(err)
	}
	return file
}

// builtByNixbld checks what the expression's derivation built, in the store dir.
func (n *nix) builtByNixbld(dir, path string) {
	n.Helper()
	text, err := os.ReadFile(filepath.Join(dir, strings.TrimPrefix(path, "/nix")))
	if err != nil || !strings.HasPrefix(string(text), "300") {
		n.Errorf("built by user %q, %v", text, err)
	}
}

func TestS3(t *testing.T) {
	n := newNix(t)
	n.env = append(n.env, "AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=secret", "AWS_EC2_METADATA_DISABLED=true")
	cache := "s3://fleet?endpoint=" + testbench.S3(t, "fleet") + "&scheme=http&region=us-east-1"
	path := n.must("nix-store", "--add", n.file("hello", "hello"))
	n.must("nix", "copy", "--to", cache, path)
	testbench.UseStore(t, t.TempDir())
	n.mustFail("not valid", "nix-store", "--check-validity", path)
	n.must("nix", "copy", "--no-check-sigs", "--from", cache, path)
	if text, err := os.ReadFile(path); string(text) != "hello" {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestDaemon(t *testing.T) {
	for name, trusted := range map[string]bool{"trusted": true, "not trusted": false} {
		t.Run(name, func(t *testing.T) {
			n := newNix(t)
			closed, err := os.MkdirTemp("", "closed") //nolint:usetesting // the test's own is open to its user
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(closed) })
			for name, mode := range map[string]os.FileMode{"public": 0o644, "private": 0o600} {
				if err := os.WriteFile(filepath.Join(closed, name), []byte(name), mode); err != nil {
					t.Fatal(err)
				}
			}
			n.user = testbench.Daemon(t, testbench.DaemonOptions{Trusted: trusted, Reach: []string{closed}})
			n.must("cat", filepath.Join(closed, "public"))
			n.mustFail("Permission denied", "cat", filepath.Join(closed, "private"))
			if got := n.must("id", "-un"); got != n.user.User {
				t.Errorf("the user is %s", got)
			}
			n.mustFail("Permission denied", "sh", "-c", "echo >/nix/store/file")
			n.mustFail("Permission denied", "sh", "-c", "echo >/nix/var/nix/db/db.sqlite")
			n.builtByNixbld("/nix", n.must("nix-build", "--no-out-link", "-E", expression))
			if got := n.must("nix", "store", "info", "--json"); strings.Contains(got, `"trusted":true`) != trusted {
				t.Error(got)
			}
		})
	}
}

func TestSSHD(t *testing.T) {
	for name, trusted := range map[string]bool{"trusted": true, "not trusted": false} {
		t.Run(name, func(t *testing.T) {
			n := newNix(t)
			m := testbench.SSHD(t, testbench.SSHDOptions{Trusted: trusted})
			n.env = append(n.env, "NIX_SSHOPTS="+strings.Join(m.SSHOptions(), " "))

			drv := n.must("nix-instantiate", "-E", expression)
			output := n.must("nix-store", "--realise", drv)
			if trusted {
				n.must("nix", "copy", "--no-check-sigs", "--to", m.Address(), output)
				return
			}
			n.mustFail("signature", "nix", "copy", "--no-check-sigs", "--to", m.Address(), output)
			n.must("nix", "copy", "--derivation", "--to", m.Address(), drv)
			n.must("nix-store", "--store", m.Address(), "--realise", drv)
			n.builtByNixbld(m.Store, output)

			n.env = append(n.env, "NIX_REMOTE="+m.Address())
			other := n.must("nix-build", "--no-out-link", "-E", strings.Replace(expression, "whoami", "other", 1))
			n.builtByNixbld(m.Store, other)
			if _, err := os.Stat(other); err == nil {
				t.Errorf("%s was built here", other)
			}
		})
	}
}
