package documents

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/org/nix-matrix/pkg/pack"
)

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// files returns the names in a directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A file is written as a whole, over one that is there, or not at all.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	for _, text := range []string{"one", "two"} {
		if err := WriteFile(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadFile(name, 3); err != nil || string(got) != text {
			t.Errorf("got %q, %v", got, err)
		}
	}
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(taken, []byte("three")); err == nil {
		t.Error("a directory is overwritten")
	}
	if got := files(t, dir); !slices.Equal(got, []string{"file", "taken"}) {
		t.Errorf("the directory has %q", got)
	}
}

// No file is read beyond its limit.
func TestReadFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	write(t, name, []byte("four"))
	if got, err := ReadFile(name, 4); err != nil || string(got) != "four" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := ReadFile(name, 3); err == nil || got != nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %q, %v", got, err)
	}
}

// A full disk and a used up quota are told from other errors.
func TestDiskFull(t *testing.T) {
	for err, want := range map[error]bool{syscall.ENOSPC: true, syscall.EDQUOT: true, syscall.EIO: false, nil: false} {
		if got := DiskFull(&os.PathError{Err: err}); got != want {
			t.Errorf("%v: %t", err, got)
		}
	}
}

// Results are read together with files that are none: too large, not sealed, links and FIFOs.
func TestReadResults(t *testing.T) {
	eachSeal(t, func(t *testing.T, seal *pack.Key) {
		dir := t.TempDir()
		s := newStore(nil, seal)
		const other = "0000000002"
		for _, id := range []string{other, entry} {
			if err := s.WriteResult(filepath.Join(dir, id+".json"), newResult(id)); err != nil {
				t.Fatal(err)
			}
		}
		good, err := newResult("0000000003").Marshal()
		if err != nil {
			t.Fatal(err)
		}
		outside := filepath.Join(t.TempDir(), "secret")
		write(t, outside, seal.Seal(resultName, good))
		if err := os.Symlink(outside, filepath.Join(dir, "link.json")); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(filepath.Join(dir, "fifo.json"), 0o600); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "large.json"), nil)
		if err := os.Truncate(filepath.Join(dir, "large.json"), maxResult+1); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "other.json"), otherKey(t).Seal(resultName, good))
		write(t, filepath.Join(dir, "plan.json"), ourKey(t).Seal(planName, good))
		write(t, filepath.Join(dir, "note.txt"), good)
		if err := os.Mkdir(filepath.Join(dir, "dir.json"), 0o700); err != nil {
			t.Fatal(err)
		}
		bad := []string{"fifo.json", "large.json", "link.json", "other.json", "plan.json"}
		if seal != nil {
			write(t, filepath.Join(dir, "clear.json"), good)
			bad = append(bad, "clear.json")
		}
		results, err := s.ReadResults(dir)
		if len(results) != 2 || results[0].Entry != entry || results[1].Entry != other {
			t.Errorf("got %v", results)
		}
		if err == nil {
			t.Fatal("no file is an error")
		}
		for _, name := range bad {
			if !strings.Contains(err.Error(), fmt.Sprintf("%q: ", name)) {
				t.Errorf("%s is no error: %v", name, err)
			}
		}
		if lines := strings.Split(err.Error(), "\n"); len(lines) != len(bad) {
			t.Errorf("%d files are errors: %q", len(lines), lines)
		}
	})
}

// A directory of more files than a matrix has entries is not read.
func TestTooManyResults(t *testing.T) {
	dir := t.TempDir()
	for i := range maxFileCount {
		write(t, filepath.Join(dir, fmt.Sprintf("%d.txt", i)), nil)
	}
	s := newStore(nil, nil)
	if _, err := s.ReadResults(dir); err != nil {
		t.Error(err)
	}
	write(t, filepath.Join(dir, "one-more.txt"), nil)
	if _, err := s.ReadResults(dir); err == nil {
		t.Error("all of them are read")
	}
	if _, err := s.ReadResults(filepath.Join(dir, "not-there")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
}

// A document that is uploaded is sealed if there is a key, which opens it.
func TestUnseal(t *testing.T) {
	s := newStore(nil, ourKey(t))
	dir := t.TempDir()
	secret := []byte("a secret line\n")
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := s.WritePlan(in("plan.json"), secret); err != nil {
		t.Fatal(err)
	}
	write(t, in("one.log"), secret)
	write(t, in("empty.log"), nil)
	write(t, in("note.txt"), secret)
	if err := s.SealLogs(dir); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); len(got) != 4 {
		t.Errorf("the directory has %q", got)
	}
	for name, want := range map[string][]byte{"plan.json": secret, "one.log": secret, "empty.log": nil} {
		data, err := os.ReadFile(in(name))
		if err != nil || !pack.IsSealed(data) || bytes.Contains(data, secret) {
			t.Errorf("%s is not sealed: %q, %v", name, data, err)
		}
		var out bytes.Buffer
		if err := s.Unseal(&out, in(name)); err != nil || !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s: got %q, %v", name, &out, err)
		}
		if err := newStore(nil, otherKey(t)).Unseal(&out, in(name)); err == nil {
			t.Errorf("another key opens %s", name)
		}
	}
	record := in("record")
	write(t, record, s.Seal.Seal(recordName, secret))
	var out bytes.Buffer
	if err := s.Unseal(&out, record); !errors.Is(err, pack.ErrSeal) || out.Len() > 0 {
		t.Errorf("a document that is not uploaded opens: %q, %v", &out, err)
	}
	write(t, in("new.log"), secret)
	if err := newStore(nil, nil).SealLogs(dir); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"new.log", "note.txt"} {
		if data, err := os.ReadFile(in(name)); err != nil || !bytes.Equal(data, secret) {
			t.Errorf("without a key, or no log, %s is %q, %v", name, data, err)
		}
	}
}

// A log that cannot be sealed is an error, so that it is not uploaded in clear.
func TestSealLogsFails(t *testing.T) {
	s := newStore(nil, ourKey(t))
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "dir.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.SealLogs(dir); err == nil {
		t.Error("a log that is a directory is sealed")
	}
	if got := files(t, dir); !slices.Equal(got, []string{"dir.log"}) {
		t.Errorf("the directory has %q", got)
	}
}
