package nix

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// When the program has ended, writes to its pipe fail and do not wait for a reader.
func TestImportPipeEnds(t *testing.T) {
	dir := t.TempDir()
	script(t, dir, "nix-store", `echo 'error: no space' >&2; exit 1`)
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	n := &Nix{env: Environ()}
	to, end, err := n.ImportPipe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = to.Write(make([]byte, 1<<20))
	}
	if !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
	_ = to.Close()
	var failed *Error
	if err := end(); !errors.As(err, &failed) || failed.Message != "no space" {
		t.Error(err)
	}
}
