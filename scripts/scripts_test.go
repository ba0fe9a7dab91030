// Package scripts_test runs the scripts of this directory as their users do.
//
// Most of it works on a module that is built in a moment, testdata/module, with the real
// scripts and the real .gitignore beside it.
package scripts_test

import (
	"bufio"
	"bytes"
	"debug/macho"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

const binary = "nix-matrix-" + runtime.GOOS + "-" + runtime.GOARCH

func TestScripts(t *testing.T) {
	goEnv := goEnvironment(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, goEnv...)
			env.Vars = append(env.Vars,
				"BINARY="+binary,
				"XDG_CACHE_HOME="+env.Getenv("WORK")+"/cache",
				"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
				"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org",
				"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
				"NOGO="+filepath.Join(env.WorkDir, "nogo"),
				"MACOS="+filepath.Join(env.WorkDir, "macos"),
			)
			layOutModule(t, filepath.Join(env.WorkDir, "repo"))
			toolsWithoutGo(t, filepath.Join(env.WorkDir, "nogo"))
			toolsOfMacOS(t, filepath.Join(env.WorkDir, "macos"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfor": waitFor,
			"lc_uuid": hasUUID,
		},
	})
}

// The launcher becomes the binary: it keeps the pid, and so the runner's signals arrive.
func TestLauncherExecs(t *testing.T) {
	for _, from := range []string{"dist", "sources"} {
		t.Run(from, func(t *testing.T) {
			repo := t.TempDir()
			layOutModule(t, repo)
			environ := append(os.Environ(), goEnvironment(t)...)
			environ = append(environ, "XDG_CACHE_HOME="+t.TempDir())
			if from == "dist" {
				run(t, repo, environ, "scripts/build-dist", "--host")
			}

			cmd := exec.Command(filepath.Join(repo, "dist/nix-matrix"), "wait")
			cmd.Env = environ
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stdout)
			wait := func(prefix string) string {
				for lines.Scan() {
					if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
						return rest
					}
				}
				t.Fatalf("the launcher ended and nothing said %q", prefix)
				return ""
			}
			pid, err := strconv.Atoi(wait("pid "))
			if err != nil {
				t.Fatal(err)
			}
			if pid != cmd.Process.Pid {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				t.Fatalf("the binary is process %d, the launcher was %d", pid, cmd.Process.Pid)
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if got := wait("signal "); got != syscall.SIGTERM.String() {
				t.Errorf("the binary got the signal %q", got)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != 7 {
				t.Errorf("exit code %d, want the binary's own, 7", got)
			}
		})
	}
}

// The real module: the same bytes from two directories, without a network, and what comes out
// of it runs where there is no Go.
func TestRealModule(t *testing.T) {
	dirs := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "a/longer/path")}
	var built [][]byte
	for _, dir := range dirs {
		copyRepository(t, dir)
		run(t, dir, append(os.Environ(), goEnvironment(t)...), "scripts/build-dist", "--host", "v9.8.7")
		content, err := os.ReadFile(filepath.Join(dir, "dist", binary))
		if err != nil {
			t.Fatal(err)
		}
		built = append(built, content)
	}
	if !bytes.Equal(built[0], built[1]) {
		t.Error("two directories give two binaries")
	}
	// Every job downloads it. Calls of methods by name, as of text/template, or a large library add megabytes.
	const most = 14_000_000
	if len(built[0]) > most {
		t.Errorf("the binary has %d bytes, want at most %d: look for what was added with go tool nm -size", len(built[0]), most)
	}

	tools := t.TempDir()
	toolsWithoutGo(t, tools)
	if got := run(t, dirs[1], []string{"PATH=" + tools}, "dist/nix-matrix", "version"); !strings.Contains(got, "v9.8.7") {
		t.Errorf("nix-matrix version says %q, want v9.8.7 in it", got)
	}
	// It knows that it is a release, which a build by Nix or Go is not.
	if got := run(t, dirs[1], []string{"PATH=" + tools}, "dist/"+binary, "version", "--verify"); !strings.Contains(got, "SHA256SUMS has the same for "+binary) {
		t.Errorf("nix-matrix version --verify says %q", got)
	}
}

// layOutModule makes dir a repository like this one, with the stand-in for the command.
func layOutModule(t testing.TB, dir string) {
	t.Helper()
	if err := os.CopyFS(dir, os.DirFS("testdata/module")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"scripts", "dist", "internal/release"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files := []string{"scripts/build-dist", "dist/nix-matrix", "dist/go.mod", ".gitignore"}
	for _, pattern := range []string{"scripts/release*", "internal/release/*.go"} {
		found, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %q, %v", pattern, found, err)
		}
		for _, file := range found {
			if !strings.HasSuffix(file, "_test.go") {
				files = append(files, strings.TrimPrefix(file, "../"))
			}
		}
	}
	for _, file := range files {
		copyFile(t, filepath.Join("..", file), filepath.Join(dir, file))
	}
}

// copyRepository copies the files of this repository to dir, without its history and builds.
func copyRepository(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		built := strings.HasPrefix(relative, "dist/nix-matrix-") || relative == "dist/SHA256SUMS"
		switch skipped := slices.Contains([]string{".git", "examples"}, relative); {
		case skipped && entry.IsDir():
			return fs.SkipDir
		case skipped || built: // .git is a file in a linked work tree
			return nil
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(dir, relative), 0o755)
		}
		if entry.Type().IsRegular() {
			copyFile(t, path, filepath.Join(dir, relative))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, info.Mode()); err != nil {
		t.Fatal(err)
	}
}

// goEnvironment lets Go find its caches, which have everything that tests need, and no network.
func goEnvironment(t testing.TB) []string {
	t.Helper()
	environ := []string{"GOPROXY=off", "GOFLAGS=-mod=mod"}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH"} {
		value := run(t, ".", os.Environ(), "go", "env", name)
		environ = append(environ, name+"="+strings.TrimSpace(value))
	}
	return environ
}

// toolsWithoutGo makes dir a PATH with all that the launcher uses but Go.
func toolsWithoutGo(t testing.TB, dir string) {
	t.Helper()
	link(t, dir, "bash", "env", "awk", "dirname", "readlink", "sha256sum", "uname")
}

// toolsOfMacOS makes dir the same on a Mac: another uname, and shasum in place of sha256sum.
func toolsOfMacOS(t testing.TB, dir string) {
	t.Helper()
	link(t, dir, "bash", "env", "awk", "dirname", "readlink", "shasum")
	uname := "#!/bin/sh\ncase $1 in -s) echo Darwin ;; -m) echo arm64 ;; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "uname"), []byte(uname), 0o755); err != nil {
		t.Fatal(err)
	}
}

func link(t testing.TB, dir string, programs ...string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range programs {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, program)); err != nil {
			t.Fatal(err)
		}
	}
}

// run returns what a program that must not fail prints.
func run(t testing.TB, dir string, environ []string, program string, args ...string) string {
	t.Helper()
	if strings.Contains(program, "/") {
		program = filepath.Join(dir, program)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = dir, environ
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, &stderr)
	}
	return string(out)
}

// waitFor is the command "waitfor FILE": until a background command has made it.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfor FILE")
	}
	const hang = 5 * time.Minute // a guard: the command may fail before it makes the file
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("%s was not made in %v", args[0], hang)
}

// hasUUID is the command "lc_uuid FILE": a Mach-O program has the LC_UUID that macOS 26 demands.
func hasUUID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lc_uuid FILE")
	}
	const loadCommandUUID = 0x1b
	file, err := macho.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer file.Close()
	for _, load := range file.Loads {
		if raw := load.Raw(); len(raw) >= 4 && file.ByteOrder.Uint32(raw) == loadCommandUUID {
			return
		}
	}
	ts.Fatalf("%s has no LC_UUID", args[0])
}
