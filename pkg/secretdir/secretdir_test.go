package secretdir

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The test binary is the guard, and the process that ends.
func TestMain(m *testing.M) {
	switch end := os.Getenv("NIX_MATRIX_TEST_END"); {
	case len(os.Args) > 1 && os.Args[1] == "guard":
		guard(os.Args[2])
	case end != "":
		die(end)
	default:
		os.Exit(m.Run())
	}
}

// guard tells by a FIFO what was there when it was to undo something, and what at the end.
func guard(dir string) {
	told, err := os.OpenFile(os.Getenv("NIX_MATRIX_TEST_TOLD"), os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	err = Guard(os.Stdin, dir, func(undo []byte) {
		secrets := 0
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), secretPrefix) {
				secrets++
			}
		}
		fmt.Fprintf(told, "undo %s, %d secrets left\n", undo, secrets)
	})
	_, gone := os.Stat(dir)
	fmt.Fprintf(told, "end: %v, %t\n", err, os.IsNotExist(gone))
}

// die is the process that has secrets and ends without removing them.
func die(end string) {
	d := &Dir{Guard: []string{os.Args[0], "guard"}, Env: os.Environ()}
	if _, _, err := d.File([]byte("secret")); err != nil {
		panic(err)
	}
	if _, err := d.AtDeath([]byte("this")); err != nil {
		panic(err)
	}
	done, err := d.AtDeath([]byte("that"))
	if err != nil {
		panic(err)
	}
	done()
	switch end {
	case "killed":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "group":
		_ = syscall.Kill(0, syscall.SIGTERM)
	case "panic":
		go func() { panic("in a goroutine") }()
	case "exit":
		os.Exit(0)
	case "close":
		if err := d.Close(); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	select {}
}

// However the process ends, the secrets are removed, then what was to be undone is, and
// nothing is left.
func TestGuard(t *testing.T) {
	for _, end := range []string{"killed", "group", "panic", "exit", "close"} {
		t.Run(end, func(t *testing.T) {
			temp, fifo := t.TempDir(), filepath.Join(t.TempDir(), "told")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), "RUNNER_TEMP="+temp, "NIX_MATRIX_TEST_END="+end, "NIX_MATRIX_TEST_TOLD="+fifo)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			told, err := os.Open(fifo)
			if err != nil {
				t.Fatal(err)
			}
			defer told.Close()
			said, err := io.ReadAll(bufio.NewReader(told))
			if want := "undo this, 0 secrets left\nend: <nil>, true\n"; err != nil || string(said) != want {
				t.Errorf("got %q, %v; want %q", said, err, want)
			}
			_ = cmd.Wait()
			if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
				t.Errorf("%v, %v are left", left, err)
			}
		})
	}
}

func TestFile(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("RUNNER_TEMP", "/no/such/directory")
	t.Setenv("TMPDIR", temp)
	var d Dir
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = Dir{}
	name, remove, err := d.File([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := d.File([]byte("other"))
	if err != nil || filepath.Dir(other) != filepath.Dir(name) || other == name {
		t.Fatalf("got %s and %s, %v", name, other, err)
	}
	for path, want := range map[string]os.FileMode{name: 0o600, filepath.Dir(name): fs.ModeDir | 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if data, err := os.ReadFile(name); err != nil || string(data) != "secret" {
		t.Errorf("it has %q, %v", data, err)
	}
	remove()
	if _, err := os.Stat(name); !os.IsNotExist(err) {
		t.Errorf("it is there: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// Of a program that ends, no goroutine makes another one.
	if name, _, err := d.File([]byte("s3cret")); err == nil || strings.Contains(err.Error(), "s3cret") || name != "" {
		t.Errorf("got %q, %v", name, err)
	}
}

// Nix's settings and ssh's options can name it.
func TestPlace(t *testing.T) {
	temp := t.TempDir()
	spaced, sharp := filepath.Join(temp, "a b"), filepath.Join(temp, "a#b")
	for _, dir := range []string{spaced, sharp} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ runner, tmp, want string }{
		{temp, "/", temp}, {"", temp, temp}, {spaced, temp, temp}, {sharp, spaced, "/tmp"}, {"relative", temp, temp}, {filepath.Join(temp, "none"), temp, temp},
	} {
		t.Setenv("RUNNER_TEMP", test.runner)
		t.Setenv("TMPDIR", test.tmp)
		var d Dir
		name, _, err := d.File(nil)
		if got := filepath.Dir(filepath.Dir(name)); err != nil || got != test.want {
			t.Errorf("%+v: got %s, %v", test, got, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Without a guard that runs, there are no secrets in files.
func TestNoGuard(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("RUNNER_TEMP", temp)
	d := Dir{Guard: []string{filepath.Join(temp, "none")}}
	for range 2 {
		if name, _, err := d.File([]byte("s3cret")); err == nil || name != "" || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("got %q, %v", name, err)
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestGuardElsewhere(t *testing.T) {
	dir := t.TempDir()
	if err := Guard(strings.NewReader(""), dir, func([]byte) { t.Error("it is asked to undo") }); err == nil {
		t.Error("it removes any directory")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}
