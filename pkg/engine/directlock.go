package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/pkg/nix"
)

// A temporary directory has the name of a store path that is never valid, so that all
// versions of Nix leave it alone while it is a temporary root, and later remove it with
// other garbage. Its lock tells other restores whether it is still used.
const (
	tempPrefix = "00000000000000" // of no real path's hash
	tempSuffix = "-nix-matrix-restore"
	tempRandom = 32 - len(tempPrefix)
)

// A tempDir is a directory in the store's, which no other process uses.
type tempDir struct {
	store *os.File
	name  string
	fd    int // open, and locked
}

// makeTempDir creates a temporary directory, and removes those of killed processes.
func makeTempDir(store *os.File, roots *nix.Daemon) (*tempDir, error) {
	if err := removeLeftOver(store); err != nil {
		return nil, err
	}
	for {
		t := &tempDir{store: store, name: tempName()}
		if err := roots.AddTempRoots("/nix/store/" + t.name); err != nil {
			return nil, err
		}
		if err := unix.Mkdirat(int(store.Fd()), t.name, 0o700); err != nil {
			return nil, &os.PathError{Op: "mkdir", Path: t.path(), Err: err}
		}
		// Another restore may have removed it as left over before it was locked.
		var err error
		if t.fd, err = lockDir(store, t.name); err != nil {
			return nil, err
		}
		var here unix.Stat_t
		if t.fd >= 0 && unix.Fstat(t.fd, &here) == nil && here.Nlink > 0 {
			return t, nil
		}
	}
}

func tempName() string {
	const digits = "0123456789abcdfghijklmnpqrsvwxyz" // of a store path's hash
	random := make([]byte, tempRandom)
	rand.Read(random)
	for i, b := range random {
		random[i] = digits[b%32]
	}
	return tempPrefix + string(random) + tempSuffix
}

// lockDir opens and locks a directory. It returns -1 if the directory is gone or locked.
func lockDir(store *os.File, name string) (int, error) {
	fd, err := unix.Openat(int(store.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: filepath.Join(store.Name(), name), Err: err}
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		return -1, err
	}
	return fd, nil
}

func removeLeftOver(store *os.File) error {
	dir, err := os.Open(store.Name())
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, tempPrefix) || !strings.HasSuffix(name, tempSuffix) {
			continue
		}
		// If it can't be locked or removed, it is another user's.
		if fd, err := lockDir(store, name); err == nil && fd >= 0 {
			_ = nar.Remove(int(store.Fd()), name)
			_ = unix.Close(fd)
		}
	}
	return nil
}

func (t *tempDir) path() string { return filepath.Join(t.store.Name(), t.name) }

func (t *tempDir) remove() error {
	err := nar.Remove(int(t.store.Fd()), t.name)
	_ = unix.Close(t.fd)
	return err
}

// mostLocks returns how many paths may be locked at a time, each by an open file.
func mostLocks() int {
	const most, others, least = 4096, 256, 64
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < others+least {
		return least
	}
	return int(min(most, limit.Cur-others))
}

// pathLocks are Nix's locks of store paths (src/libstore/pathlocks.cc): to lock a path, a
// process locks the file PATH.lock. Before it removes that file, it writes a byte to it for
// those that wait for its lock.
type pathLocks struct {
	store *os.File
	held  []pathLock
}

type pathLock struct {
	name string
	fd   int
}

// lockPaths locks store paths, and waits without a timeout for those that other processes
// have locked, because these may be building them. All processes lock paths in the order of
// their names, so that there is no deadlock.
func lockPaths(ctx context.Context, store *os.File, paths []string) (_ *pathLocks, err error) {
	locks := &pathLocks{store: store}
	defer func() {
		if err != nil {
			locks.release()
		}
	}()
	for _, path := range slices.Sorted(slices.Values(paths)) {
		name := filepath.Base(path) + ".lock"
		fd, err := locks.lock(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		locks.held = append(locks.held, pathLock{name, fd})
	}
	return locks, nil
}

func (l *pathLocks) lock(ctx context.Context, name string) (int, error) {
	for {
		fd, err := unix.Openat(int(l.store.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return -1, err
		}
		if err := waitForLock(ctx, fd); err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
		if st.Size == 0 {
			return fd, nil
		}
		_ = unix.Close(fd) // it was removed while we waited, or will be
		if err := pause(ctx); err != nil {
			return -1, err
		}
	}
}

func waitForLock(ctx context.Context, fd int) error {
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// pause waits a moment before the next attempt.
func pause(ctx context.Context) error {
	const again = 20 * time.Millisecond
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(again):
		return nil
	}
}

func (l *pathLocks) release() {
	for _, lock := range l.held {
		_ = unix.Unlinkat(int(l.store.Fd()), lock.name, 0)
		_, _ = unix.Write(lock.fd, []byte("d"))
		_ = unix.Close(lock.fd)
	}
	l.held = nil
}
