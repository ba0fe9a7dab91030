package nix

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/org/nix-matrix/internal/testbench"
)

// It is no error if a server leaves a process behind with its stderr, as ssh may.
func TestCloseLeftBehind(t *testing.T) {
	path, dir := testbench.NixPath(t, "2.34"), t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nsleep 600 </dev/null >/dev/null &\necho $! >%s/pid\nexec %s/nix-daemon \"$@\"\n", dir, path)
	if err := os.WriteFile(filepath.Join(dir, "nix-daemon"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", strings.Join([]string{dir, path, os.Getenv("PATH")}, string(os.PathListSeparator)))
	testbench.PrivateNix(t)
	testbench.UseStore(t, t.TempDir())
	n, err := Find(t.Context(), io.Discard, Config{})
	if err != nil {
		t.Fatal(err)
	}
	n.grace = 1
	d, err := n.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("got %v", err)
	}
	var pid int
	data, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err == nil {
		_, err = fmt.Sscan(string(data), &pid)
	}
	if err != nil || pid <= 0 {
		t.Fatalf("process %d: %v", pid, err)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}
