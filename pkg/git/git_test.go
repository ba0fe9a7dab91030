package git

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func testRepository(t *testing.T) (root string, env []string) {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull)
	cmd := exec.CommandContext(t.Context(), "git", "init", "-q", root)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return root, env
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Whatever directory git is asked about, the repository is that of the .git above, and
// what a config names is not run.
func TestFind(t *testing.T) {
	root, env := testRepository(t)
	ran := filepath.Join(root, "ran")
	for _, dir := range []string{".git", "bare"} {
		write(t, filepath.Join(root, dir, "HEAD"), "ref: refs/heads/main\n")
		write(t, filepath.Join(root, dir, "config"), "[core]\n\tfsmonitor = \"touch "+ran+"\"\n\thooksPath = hooks\n")
		write(t, filepath.Join(root, dir, "objects", "file"), "")
		write(t, filepath.Join(root, dir, "refs", "file"), "")
	}
	write(t, filepath.Join(root, "bare", "below", "file"), "")
	write(t, filepath.Join(root, "empty", ".git", "file"), "") // git takes no notice of it either
	for _, dir := range []string{".", "bare", "bare/below", "bare/refs", "empty"} {
		t.Run(dir, func(t *testing.T) {
			r, err := Find(filepath.Join(root, dir), env)
			if err != nil || r == nil || r.Root != root {
				t.Fatalf("got %+v, %v; want %s", r, err, root)
			}
			out, err := r.Output(t.Context(), nil, "rev-parse", "--show-toplevel", "--absolute-git-dir")
			if want := root + "\n" + filepath.Join(root, ".git") + "\n"; err != nil || string(out) != want {
				t.Errorf("got %q, %v; want %q", out, err, want)
			}
			if _, err := r.Output(t.Context(), nil, "ls-files"); err != nil {
				t.Error(err)
			}
			if exist(ran) {
				t.Fatal("git has run what a config names")
			}
		})
	}
	outside := t.TempDir()
	if r, err := Find(outside, env); err != nil || r != nil && strings.HasPrefix(r.Root, outside) {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestBare(t *testing.T) {
	root, _ := testRepository(t)
	for _, file := range []string{"bare/HEAD", "bare/refs/x", "bare/below/x", "common/HEAD", "common/commondir", "neither/HEAD", "inner/.git/x", "inner/HEAD", "inner/refs/x"} {
		write(t, filepath.Join(root, file), "")
	}
	if err := os.Symlink("bare", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		".": "", "bare": "bare", "bare/below": "bare", "link/below": "bare", "common": "common", "neither": "", "inner": "",
	} {
		if want != "" {
			want = filepath.Join(root, want)
		}
		if got, err := Bare(filepath.Join(root, dir)); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", dir, got, err, want)
		}
	}
}

func TestConfigure(t *testing.T) {
	env := Configure([]string{"A=b", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=a.b", "GIT_CONFIG_VALUE_0=c"}, Setting{"d.e", "f g"}, Setting{"h.i", ""})
	env = Configure(env, Setting{"j.k", "l"})
	cmd := exec.CommandContext(t.Context(), "git", "config", "--list")
	cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull, "GIT_DIR="+t.TempDir())
	out, err := cmd.Output()
	if want := "a.b=c\nd.e=f g\nh.i=\nj.k=l\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
}

// Of a file that is no regular one, or that is elsewhere, nothing is read.
func TestOpen(t *testing.T) {
	root, env := testRepository(t)
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	write(t, filepath.Join(root, "dir", "file"), "text")
	for link, to := range map[string]string{
		"link": outside + "/secret", "parent": outside, "zero": "/dev/zero", "inside": "dir/file",
	} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Find(root, env)
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.Open("dir/file")
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	for _, name := range []string{"link", "parent/secret", "zero", "inside", "fifo", "dir", "../" + filepath.Base(outside) + "/secret", outside + "/secret"} {
		if f, err := r.Open(name); err == nil {
			_ = f.Close()
			t.Errorf("%s is opened", name)
		}
	}
}

// Programs that run git, as git-crypt does, get it too.
func TestCommand(t *testing.T) {
	root, env := testRepository(t)
	r, err := Find(root, env)
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.Command(t.Context(), "sh", "-c", "git config core.fsmonitor; git config core.hooksPath; git config safe.bareRepository; git config protocol.ext.allow; git rev-parse --absolute-git-dir").Output()
	if got, want := strings.Fields(string(out)), []string{"false", os.DevNull, "explicit", "never", root + "/.git"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}
