package testbench

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// NixVersions are those that the testbench has, the newest first.
var NixVersions = []string{"2.34", "2.26", "2.8"}

// NixPath is the directory with the programs of a version of Nix.
func NixPath(t testing.TB, version string) string {
	t.Helper()
	return Path(t, "nix-"+version+"/bin")
}

// PrivateNix gives the calling goroutine, and the programs that it starts, a
// mount namespace of its own, in which UseStore can replace /nix. Others see
// nothing of it. It takes root. The goroutine's thread ends with it.
func PrivateNix(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	if err := os.MkdirAll("/nix", 0o755); err != nil { //nolint:gosec // as Nix makes it
		t.Fatalf("tests with Nix need root: %v", err)
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Fatalf("tests with Nix need root, for a mount namespace: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}

// UseStore makes /nix the directory dir, which it creates, after PrivateNix.
func UseStore(t testing.TB, dir string) {
	t.Helper()
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as Nix makes it
		t.Fatal(err)
	}
	if err := unix.Mount(dir, "/nix", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
}
