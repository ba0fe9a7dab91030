package gitcrypt

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Only what is a file is read, and no more of it than tells.
func TestEncrypted(t *testing.T) {
	dir := t.TempDir()
	name := func(file string) string { return filepath.Join(dir, file) }
	for file, text := range map[string]string{"encrypted": head + "text", "head": head, "short": head[:len(head)-1], "clear": "text", "empty": ""} {
		if err := os.WriteFile(name(file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"link": "encrypted", "zero": "/dev/zero"} {
		if err := os.Symlink(to, name(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(name("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{
		"encrypted": true, "head": true, "short": false, "clear": false, "empty": false, "link": false, "zero": false, "fifo": false, ".": false, "none": false,
	} {
		if got := Encrypted(name(file)); got != want {
			t.Errorf("%s: %t", file, got)
		}
	}
}
