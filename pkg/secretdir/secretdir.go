// Package secretdir keeps secrets in files that are removed at the end of the process, however it ends.
package secretdir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Dir is a directory that only this user can read, and whose name nobody can guess. Another process, the
// guard, removes it if this process did not: because it was killed, or crashed in any goroutine. The zero
// Dir is ready to use.
type Dir struct {
	// Guard is a command that calls [Guard], and Env its environment. The directory is
	// its last argument. Without a command there is no guard.
	Guard, Env []string

	mu     sync.Mutex
	path   string
	guard  *exec.Cmd
	alive  io.Closer // the guard waits for its end
	closed bool
}

// The names of files in the directory. Because Nix copies no directory with a FIFO in it, neither this
// directory nor one above it gets into the store.
const (
	secretPrefix = "secret-"
	undoPrefix   = "undo-"
	trap         = "not-for-the-store"
)

var errClosed = errors.New("the program ends")

// File writes a secret to a file and returns a function that removes it.
func (d *Dir) File(secret []byte) (name string, remove func(), err error) {
	return d.write(secretPrefix, secret)
}

// Dir makes a directory for other private files.
func (d *Dir) Dir() (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.open(); err != nil {
		return "", err
	}
	return os.MkdirTemp(d.path, "")
}

// AtDeath makes the guard call its function with undo if this process ends before done is called. The
// guard removes all secrets before. Without a guard nothing is undone.
func (d *Dir) AtDeath(undo []byte) (done func(), err error) {
	_, done, err = d.write(undoPrefix, undo)
	return done, err
}

func (d *Dir) write(prefix string, data []byte) (name string, remove func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err = d.open(); err == nil {
		name = filepath.Join(d.path, prefix+rand.Text())
		err = os.WriteFile(name, data, 0o600)
	}
	remove = func() { _ = os.Remove(name) }
	switch {
	case errors.Is(err, errClosed):
		return "", func() {}, err
	case err != nil:
		remove()
		return "", func() {}, fmt.Errorf("cannot write a secret to a file: %w. Set TMPDIR to a directory that this user can write to", err)
	}
	return name, remove, nil
}

// open makes the directory, unless there is one.
func (d *Dir) open() error {
	if d.closed {
		return errClosed
	}
	if d.path != "" {
		return nil
	}
	path, err := makeDir()
	if err == nil {
		err = d.startGuard(path)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(path))
	}
	d.path = path
	return nil
}

// makeDir makes a directory that the runner removes after the job, else one among the temporary files. Its
// path has no spaces, because Nix's settings and ssh's options cannot quote them, and its file system has
// FIFOs.
func makeDir() (path string, err error) {
	err = errors.New("no directory for temporary files can be used")
	for _, base := range []string{os.Getenv("RUNNER_TEMP"), os.TempDir(), "/tmp"} {
		if !filepath.IsAbs(base) || strings.ContainsAny(base, " \t\n#\"'\\") {
			continue
		}
		path = filepath.Join(base, "nix-matrix-secret-"+rand.Text())
		if err = os.Mkdir(path, 0o700); err != nil { //nolint:gosec // in the user's own directory
			continue
		}
		if err = unix.Mkfifo(filepath.Join(path, trap), 0o600); err == nil {
			return path, nil
		}
		err = errors.Join(err, os.Remove(path)) //nolint:gosec // our directory
	}
	return "", err
}

func (d *Dir) startGuard(path string) error {
	if len(d.Guard) == 0 {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(d.Guard[0], append(slices.Clone(d.Guard[1:]), path)...) //nolint:noctx,forbidigo // it ends after this process, in a session of its own
	cmd.Stdin, cmd.Env, cmd.Dir = r, d.Env, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // so that a signal to our process group does not end it
	if err := cmd.Start(); err != nil {
		return errors.Join(err, w.Close())
	}
	d.guard, d.alive = cmd, w
	return nil
}

// Remove removes all files with secrets. No more can be made.
func (d *Dir) Remove() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.path != "" {
		_ = removeSecrets(d.path) // Close does so again, and returns the error
	}
}

// Close removes the directory. The guard undoes what was not undone before.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.path == "" {
		return nil
	}
	path := d.path
	d.path = ""
	err := removeSecrets(path)
	if d.guard != nil {
		err = errors.Join(err, d.alive.Close(), d.guard.Wait())
	}
	return errors.Join(err, os.RemoveAll(path))
}

// Guard is the other process. It waits for the end of in, removes all secrets in the directory, calls undo
// with the data of each AtDeath that is not done, and removes the directory.
func Guard(in io.Reader, path string, undo func([]byte)) error {
	if !strings.HasPrefix(filepath.Base(path), "nix-matrix-secret-") {
		return fmt.Errorf("%s is no directory for secrets", path)
	}
	_, err := io.Copy(io.Discard, in)
	err = errors.Join(err, removeSecrets(path))
	entries, lerr := os.ReadDir(path)
	if errors.Is(lerr, os.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), undoPrefix) {
			continue
		}
		data, rerr := os.ReadFile(filepath.Join(path, entry.Name())) //nolint:gosec // it is named like a directory of ours
		if rerr == nil {
			undo(data)
		}
		err = errors.Join(err, rerr)
	}
	return errors.Join(err, lerr, os.RemoveAll(path)) //nolint:gosec // likewise
}

func removeSecrets(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), secretPrefix) {
			err = errors.Join(err, os.Remove(filepath.Join(path, entry.Name()))) //nolint:gosec // a file of ours
		}
	}
	return err
}
