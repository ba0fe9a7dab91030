package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/nix/nixtest"
)

const holdLock = "hold-lock"

// holdLocks is another process that holds a lock until its stdin ends.
func holdLocks(path string) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err == nil {
		err = unix.Flock(fd, unix.LOCK_EX)
	}
	if err != nil {
		panic(err)
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// lockedElsewhere has another process hold the lock of a store path. release ends it.
func lockedElsewhere(t *testing.T, path string) (release func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], holdLock, path+".lock")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
}

// waitsForLock returns when a process other than the holder has opened a lock.
func waitsForLock(path string) {
	for opened := 0; opened < 2; {
		opened = 0
		processes, _ := filepath.Glob("/proc/[0-9]*")
		for _, process := range processes {
			fds, _ := os.ReadDir(process + "/fd")
			for _, fd := range fds {
				if name, _ := os.Readlink(filepath.Join(process, "fd", fd.Name())); name == path+".lock" {
					opened++
					break
				}
			}
		}
	}
}

// restore adds the missing paths, in reference order.
func restoreAll(ctx context.Context, e Engine, c *closure) error {
	sink, err := e.Begin(ctx, c.Infos)
	if err != nil {
		return err
	}
	for _, info := range c.Infos {
		if err = sink.Add(ctx, info, c.open(info)); err != nil {
			break
		}
	}
	if err == nil {
		err = sink.Finish(ctx, c.Infos)
	}
	return errors.Join(err, sink.Close())
}

// useSudo has this program run as sudo.
func useSudo(t *testing.T) {
	t.Helper()
	bin := t.TempDir()
	program, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bin, "sudo"), program, 0o755))
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// endsWhileLocked checks that an engine stops while another process has locked a path, and adds all once it has not.
func endsWhileLocked(t *testing.T, n *nix.Nix, c *closure, path string, engine func(context.Context) (Engine, error)) {
	t.Helper()
	nixtest.UseMemory(t, "")
	_, err := n.AllValid(t.Context()) // creates the store
	must(t, err)
	release := lockedElsewhere(t, path)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e, err := engine(ctx)
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- restoreAll(ctx, e, c) }()
	waitsForLock(path)
	cancel()
	if err := <-done; err == nil {
		t.Error("it took a path that another process has locked")
	}
	release()
	if e, err = engine(t.Context()); err == nil {
		err = restoreAll(t.Context(), e, c)
	}
	must(t, err)
	nixtest.Verify(t)
}

// An engine that waits for a path that another process has locked stops when the context ends,
// whether it locks the path itself, has Nix add it, or a process that runs as root locks it.
func TestLockWaitEnds(t *testing.T) {
	c := kinds(t)
	n := nixtest.Newest(t)
	useSudo(t)
	engines := map[string]func(ctx context.Context) (Engine, error){
		"direct":   func(ctx context.Context) (Engine, error) { return Direct(ctx, n) },
		"as root":  func(ctx context.Context) (Engine, error) { return DirectAsRoot(ctx, n, os.Args[0], serveDirect) },
		"protocol": func(context.Context) (Engine, error) { return Protocol(n), nil },
		"import":   func(context.Context) (Engine, error) { return Import(n), nil },
	}
	for name, engine := range engines {
		for kind, has := range map[string]func(*nix.PathInfo) bool{
			"content address": func(i *nix.PathInfo) bool { return i.CA != "" },
			"none":            func(i *nix.PathInfo) bool { return i.CA == "" },
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				var path string
				for i := range c.Infos {
					if has(&c.Infos[i]) {
						path = c.Infos[i].Path
					}
				}
				endsWhileLocked(t, n, c, path, engine)
				for _, name := range nixtest.InStore(t) {
					if strings.HasSuffix(name, tempSuffix) {
						t.Errorf("%s is left", name)
					}
				}
			})
		}
	}
}

// A lock file that is marked as removed but was left over does not keep an engine from stopping.
func TestLockLeftOver(t *testing.T) {
	dir := t.TempDir()
	store, err := os.Open(dir)
	must(t, err)
	defer store.Close()
	must(t, os.WriteFile(filepath.Join(dir, "path.lock"), []byte("d"), 0o600))
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := lockPaths(ctx, store, []string{filepath.Join(dir, "path")}); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

// A path that is larger than what the pipe and the process that runs as root hold at a time does not keep that process
// from seeing the end of its messages while Nix waits for the path's lock.
func TestLargeLockWaitEnds(t *testing.T) {
	c := &closure{NARs: map[string][]byte{}}
	n := nixtest.Newest(t)
	nixtest.UseMemory(t, "")
	file := filepath.Join(t.TempDir(), "large")
	must(t, os.WriteFile(file, make([]byte, 4<<20), 0o600))
	path := nixtest.Run(t, "nix-store", "--add", file)
	var err error
	c.Infos, err = n.FullInfo(t.Context(), path)
	must(t, err)
	r, err := n.NAR(t.Context(), path)
	must(t, err)
	c.NARs[path], err = io.ReadAll(r)
	must(t, err)

	useSudo(t)
	endsWhileLocked(t, n, c, path, func(ctx context.Context) (Engine, error) { return DirectAsRoot(ctx, n, os.Args[0], serveDirect) })
}
