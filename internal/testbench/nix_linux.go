package testbench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// NixVersions are those that the testbench has, the newest first.
var NixVersions = []string{"2.34", "2.26", "2.8"}

// NixForks are stand-ins for implementations that no registry has, made from one of the
// NixVersions: internal/testbench/programs/nix-fork says what of them is true.
var NixForks = []string{"lix", "2.35", "determinate"}

// NixPath is the directory with the programs of one of NixVersions or NixForks.
func NixPath(t testing.TB, version string) string {
	t.Helper()
	return Path(t, "nix-"+version+"/bin")
}

// PrivateNix moves the calling goroutine, and the programs that it starts, to a
// mount namespace of their own, in which UseStore can replace /nix. Others see
// nothing of it. It takes root. The goroutine's thread ends with it.
func PrivateNix(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	if err := os.MkdirAll("/nix", 0o755); err != nil {
		NeedsRoot(t, err)
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		NeedsRoot(t, fmt.Errorf("a mount namespace: %w", err))
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}

// PrivateProcess is for the TestMain of a package whose goroutines start
// programs: it runs the tests in a process with a mount namespace of its own,
// in which UseStore replaces /nix for all goroutines.
func PrivateProcess(m *testing.M) {
	const inside = "NIX_MATRIX_TEST_NAMESPACE"
	if os.Getenv(inside) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := errors.Join(os.MkdirAll("/nix", 0o755), cmd.Run())
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Printf("these tests need root: a mount namespace: %v\n", err)
		if required() {
			os.Exit(1)
		}
	}
	os.Exit(0)
}

// UseStore makes /nix the directory dir, which it creates, after PrivateNix or in a
// PrivateProcess.
func UseStore(t testing.TB, dir string) {
	t.Helper()
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	leave := func() { _ = unix.Unmount("/nix", unix.MNT_DETACH) } // where none was used, there is none
	leave()
	if err := unix.Mount(dir, "/nix", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leave) // so that the directory can be removed
}
