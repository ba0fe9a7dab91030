package nixtest

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/nix"
)

// Each runs a test with each version of Nix, on an empty store.
func Each(t *testing.T, test func(*testing.T, *nix.Nix)) {
	t.Helper()
	for _, version := range testbench.NixVersions {
		path := testbench.NixPath(t, version)
		t.Run(version, func(t *testing.T) {
			t.Setenv("NIX_CONFIG", "extra-experimental-features = nix-command")
			testbench.UseStore(t, t.TempDir())
			test(t, find(t, path))
		})
	}
}

// Newest returns the newest version of Nix with an empty store in memory.
func Newest(t *testing.T) *nix.Nix {
	t.Helper()
	path := testbench.NixPath(t, testbench.NixVersions[0])
	UseMemory(t, "")
	return find(t, path)
}

func find(t *testing.T, path string) *nix.Nix {
	t.Helper()
	t.Setenv("PATH", path+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("HOME", t.TempDir())
	n, err := nix.Find(t.Context(), io.Discard, nix.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// UseMemory makes /nix an empty directory in memory, and returns the directory. options are
// those of a tmpfs, such as size=1m.
func UseMemory(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	testbench.UseStore(t, dir)
	return dir
}

// InStore returns the names in the directory of the store, except Nix's .links.
func InStore(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/nix/store")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		if entry.Name() != ".links" {
			names = append(names, entry.Name())
		}
	}
	return names
}

// Verify has Nix check each file of the store.
func Verify(t *testing.T) {
	t.Helper()
	Run(t, "nix-store", "--verify", "--check-contents")
}

// Run runs a program and returns its stdout without the last newline. The test ends if it fails.
func Run(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, stderr.String())
	}
	return strings.TrimSuffix(string(out), "\n")
}
