// Package testbench finds the real programs that tests run against, which
// scripts/testbench installs. A test that asks for a part that is not there, or for what
// only root may do, is skipped, or fails if NIX_MATRIX_REQUIRE_PARTS is 1.
package testbench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Prefix is the directory that the parts are installed in: what
// NIX_MATRIX_TESTBENCH says, else nix-matrix/testbench in the user's cache
// directory. It is empty if the user has none.
func Prefix() string {
	if prefix := os.Getenv("NIX_MATRIX_TESTBENCH"); prefix != "" {
		return prefix
	}
	caches := os.Getenv("XDG_CACHE_HOME")
	if caches == "" {
		home := os.Getenv("HOME")
		if home == "" {
			return ""
		}
		caches = filepath.Join(home, ".cache")
	}
	return filepath.Join(caches, "nix-matrix", "testbench")
}

// Path is the file or directory at the slash-separated path name in Prefix.
func Path(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(Prefix(), filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		missing(t, name)
	}
	return path
}

// Program is the path of a program that the system has to bring along, as
// node.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, name)
	}
	return path
}

func missing(t testing.TB, part string) {
	t.Helper()
	lack(t, part+" is missing: run `make test`")
}

// NeedsRoot is for a test that cannot do what only root may: err says what that was.
func NeedsRoot(t testing.TB, err error) {
	t.Helper()
	lack(t, fmt.Sprintf("it needs root: %v", err))
}

func lack(t testing.TB, why string) {
	t.Helper()
	if required() {
		t.Fatalf("%s", why)
		return
	}
	t.Skipf("%s", why)
}

func required() bool { return os.Getenv("NIX_MATRIX_REQUIRE_PARTS") == "1" }

// GoProgram builds one of the programs in the module internal/testbench/programs
// and is its path.
func GoProgram(t testing.TB, name string) string {
	t.Helper()
	module, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for {
		programs := filepath.Join(module, "internal", "testbench", "programs")
		if _, err := os.Stat(programs); err == nil {
			module = programs
			break
		}
		if module == filepath.Dir(module) {
			t.Fatal("the test does not run in this repository")
		}
		module = filepath.Dir(module)
	}
	program := filepath.Join(t.TempDir(), name)
	build := exec.CommandContext(t.Context(), Program(t, "go"), "build", "-buildvcs=false", "-o", program, "./"+name)
	build.Dir = module
	build.Env = append(os.Environ(), "GOWORK=off")
	if output, err := build.CombinedOutput(); err != nil {
		t.Logf("build %s: %v\n%s", name, err, output)
		missing(t, name)
	}
	return program
}
