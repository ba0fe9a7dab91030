package engine

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/internal/nar"
	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/nix/nixtest"
)

func mustDirect(t *testing.T, n *nix.Nix) Engine {
	t.Helper()
	e, err := Direct(t.Context(), n)
	must(t, err)
	return e
}

func TestDirect(t *testing.T) { testEngine(t, mustDirect) }

// The garbage collector leaves running restores alone, and removes the files of killed ones,
// as the next restore does.
func TestDirectGarbage(t *testing.T) {
	c := kinds(t)
	nixtest.Each(t, func(t *testing.T, n *nix.Nix) {
		nixtest.UseMemory(t, "")
		e := mustDirect(t, n)
		leftOver := filepath.Join("/nix/store", tempName())
		leave := func() {
			t.Helper()
			must(t, os.MkdirAll(filepath.Join(leftOver, "some", "thing"), 0o755))
			must(t, os.Chmod(filepath.Join(leftOver, "some"), 0o555))
		}
		gone := func(by string) {
			t.Helper()
			if _, err := os.Lstat(leftOver); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s leaves a killed restore's directory: %v", by, err)
			}
		}
		leave()
		sink, err := e.Begin(t.Context(), c.Infos)
		must(t, err)
		gone("a restore")
		second, err := e.Begin(t.Context(), c.Infos)
		must(t, err)
		for _, info := range c.Infos {
			must(t, sink.Add(t.Context(), info, c.open(info)))
		}
		leave()
		nixtest.Run(t, "nix-store", "--gc")
		gone("the garbage collector")
		must(t, sink.Finish(t.Context(), c.Infos))
		nixtest.Run(t, "nix-store", "--gc")
		c.check(t, n, e)
		must(t, sink.Close())
		must(t, second.Close())
		nixtest.Run(t, "nix-store", "--gc")
		if names := nixtest.InStore(t); len(names) != 0 {
			t.Errorf("the store has %q", names)
		}
	})
}

// Two restores of the same paths at once share the work, and neither fails.
func TestTwice(t *testing.T) {
	c := kinds(t)
	n := nixtest.Newest(t)
	for _, name := range engineNames {
		for range 3 {
			nixtest.UseMemory(t, "")
			_, err := n.AllValid(t.Context()) // two processes of Nix can't create a store at once
			must(t, err)
			e, err := engineNamed(t.Context(), n, name)
			must(t, err)
			var g errgroup.Group
			for range 2 {
				g.Go(func() error { return add(t.Context(), e, c.Infos, c.open, nil) })
			}
			must(t, g.Wait())
			c.check(t, n, e)
			if names := nixtest.InStore(t); len(names) != len(c.Infos) {
				t.Errorf("%s: the store has %q", name, names)
			}
		}
	}
}

// A path that another process makes is waited for, and left alone if it is valid then.
func TestDirectLocks(t *testing.T) {
	c := kinds(t)
	n := nixtest.Newest(t)
	e := mustDirect(t, n)
	sink, err := e.Begin(t.Context(), c.Infos)
	must(t, err)
	for _, info := range c.Infos {
		must(t, sink.Add(t.Context(), info, c.open(info)))
	}
	// The last of the first batch, so that the locks before it are taken.
	first := sink.(*directSink).stages(c.Infos)[0]
	info := slices.MaxFunc(first, func(a, b nix.PathInfo) int { return strings.Compare(a.Path, b.Path) })
	before := slices.MinFunc(first, func(a, b nix.PathInfo) int { return strings.Compare(a.Path, b.Path) })
	store, err := os.Open("/nix/store")
	must(t, err)
	defer store.Close()
	locks, err := lockPaths(t.Context(), store, []string{info.Path})
	must(t, err)

	done := make(chan error, 1)
	go func() { done <- sink.Finish(t.Context(), c.Infos) }()
	for { // until it has the lock before
		if _, err := os.Stat(before.Path + ".lock"); err == nil {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("it did not wait for the lock: %v", err)
		default:
			runtime.Gosched()
		}
	}
	// As a process would that does not know about us.
	valid, err := n.Valid(t.Context(), c.paths()...)
	must(t, err)
	needs := map[string]bool{info.Path: true}
	var needed []nix.PathInfo
	for _, i := range slices.Backward(c.Infos) {
		if needs[i.Path] && !valid[i.Path] {
			needed = append(needed, i)
			must(t, new(nar.Unpacker).Unpack(c.open(i), i.NarSize, int(store.Fd()), filepath.Base(i.Path)))
			for _, reference := range i.References {
				needs[reference] = true
			}
		}
	}
	slices.Reverse(needed)
	must(t, n.LoadDB(t.Context(), needed))
	was, err := os.Lstat(info.Path)
	must(t, err)
	select {
	case err := <-done:
		t.Fatalf("it did not wait for the lock: %v", err)
	default:
	}
	locks.release()
	must(t, <-done)
	must(t, sink.Close())
	if is, err := os.Lstat(info.Path); err != nil || !os.SameFile(was, is) {
		t.Errorf("%s was replaced: %v", info.Path, err)
	}
	nixtest.Verify(t)
	for _, name := range nixtest.InStore(t) {
		if strings.HasSuffix(name, ".lock") {
			t.Errorf("%s is left", name)
		}
	}
}

// A process that waited for a lock whose file is gone then waits for the next file.
func TestDirectStaleLock(t *testing.T) {
	dir := t.TempDir()
	store, err := os.Open(dir)
	must(t, err)
	defer store.Close()
	path := filepath.Join(dir, "path")
	first, err := lockPaths(t.Context(), store, []string{path})
	must(t, err)
	var second *pathLocks
	var g errgroup.Group
	g.Go(func() (err error) {
		second, err = lockPaths(t.Context(), store, []string{path})
		return err
	})
	for opened := 0; opened < 2; { // by both goroutines
		opened = 0
		fds, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		for _, fd := range fds {
			if name, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); err == nil && name == path+".lock" {
				opened++
			}
		}
	}
	first.release()
	must(t, g.Wait())
	var at, held unix.Stat_t
	must(t, unix.Stat(path+".lock", &at))
	must(t, unix.Fstat(second.held[0].fd, &held))
	if at.Ino != held.Ino {
		t.Error("the lock is that of a file that is gone")
	}
	second.release()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// A path that can't be registered leaves nothing, and does not affect others.
func TestDirectUnregistered(t *testing.T) {
	c := kinds(t)
	nixtest.Each(t, func(t *testing.T, n *nix.Nix) {
		nixtest.UseMemory(t, "")
		var infos []nix.PathInfo
		for _, info := range c.Infos { // none has a content address
			if info.Path == c.named["plain"] || info.Path == c.named["many"] {
				infos = append(infos, info)
			}
		}
		if err := add(t.Context(), mustDirect(t, n), infos, c.open, nil); err == nil || !strings.Contains(err.Error(), "-text") {
			t.Errorf("a reference is missing: %v", err)
		}
		if names := nixtest.InStore(t); len(names) != 0 {
			t.Errorf("the store has %q", names)
		}
	})
}

// If the disk is full at any moment, the store stays intact, and with room again all paths can
// be restored.
func TestFullDisk(t *testing.T) {
	for _, name := range engineNames {
		t.Run(name, func(t *testing.T) { testFullDisk(t, name) })
	}
}

func testFullDisk(t *testing.T, name string) {
	c := kinds(t)
	n := nixtest.Newest(t)
	failed := map[bool]int{}
	for kilobytes := 1 << 10; ; kilobytes += kilobytes / 4 {
		dir := nixtest.UseMemory(t, fmt.Sprintf("size=%dk", kilobytes))
		e, err := engineNamed(t.Context(), n, name)
		if err == nil {
			err = add(t.Context(), e, c.Infos, c.open, nil)
		}
		failed[err != nil]++
		if err == nil {
			break
		}
		must(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1g"))
		nixtest.Verify(t)
		e, err = engineNamed(t.Context(), n, name)
		must(t, err)
		must(t, addMissing(t.Context(), n, e, c))
		c.checkBut(t, n, forgets(name))
		if names := nixtest.InStore(t); name == "direct" && len(names) != len(c.Infos) {
			t.Errorf("%d kB: the store has %q", kilobytes, names)
		}
	}
	if failed[true] < 3 {
		t.Errorf("the disk was full %d times", failed[true])
	}
}

// If a restore is killed at any moment, the store stays intact, and the next restore continues.
func TestKilled(t *testing.T) {
	for _, name := range engineNames {
		t.Run(name, func(t *testing.T) { testKilled(t, name) })
	}
}

func testKilled(t *testing.T, name string) {
	const kills = 50
	c := kinds(t)
	n := nixtest.Newest(t)
	file := filepath.Join(t.TempDir(), "closure")
	c.save(t, file)
	random := testbench.Random(t)

	// restore is killed after a while, unless it has ended.
	restore := func(after time.Duration) (ended bool, took time.Duration) {
		t.Helper()
		lines, kill, wait := startReaped(t, exec.CommandContext(t.Context(), os.Args[0], restoreCommand, file, name))
		if line, err := lines.ReadString('\n'); line != "ready\n" {
			t.Fatalf("it said %q, %v", line, err)
		}
		start := time.Now()
		timer := time.AfterFunc(after, kill)
		ended = wait() == nil
		timer.Stop()
		return ended, time.Since(start)
	}
	ended, took := restore(time.Hour)
	if !ended {
		t.Fatal("it failed")
	}
	nixtest.UseMemory(t, "")
	killed := 0
	for killed < kills {
		ended, _ := restore(time.Duration(random.Int64N(int64(took))))
		if ended {
			nixtest.UseMemory(t, "")
			continue
		}
		killed++
		nixtest.Verify(t)
	}
	e, err := engineNamed(t.Context(), n, name)
	must(t, err)
	must(t, addMissing(t.Context(), n, e, c))
	c.checkBut(t, n, func(info *nix.PathInfo) {
		forgets(name)(info)
		info.Signatures = nil // between its registration and its signatures, a path has none
	})
	for _, name := range nixtest.InStore(t) {
		if strings.HasSuffix(name, tempSuffix) {
			t.Errorf("%s is left", name)
		}
	}
}

const restoreCommand = "restore"

var engineNames = []string{"direct", "protocol", "import"}

func engineNamed(ctx context.Context, n *nix.Nix, name string) (Engine, error) {
	switch name {
	case "direct":
		return Direct(ctx, n)
	case "protocol":
		return Protocol(n), nil
	default:
		return Import(n), nil
	}
}

// addMissing adds those paths that are not valid, as a restore does.
func addMissing(ctx context.Context, n *nix.Nix, e Engine, c *closure) error {
	valid, err := n.Valid(ctx, c.paths()...)
	if err != nil {
		return err
	}
	infos := slices.DeleteFunc(slices.Clone(c.Infos), func(i nix.PathInfo) bool { return valid[i.Path] })
	return add(ctx, e, infos, c.open, nil)
}

// forgets returns a function that clears the metadata that an engine loses.
func forgets(name string) func(*nix.PathInfo) {
	return func(info *nix.PathInfo) {
		if name == "import" {
			info.Signatures, info.CA = nil, ""
		}
	}
}

// restoreSaved restores a saved closure in a process that tests kill.
func restoreSaved(ctx context.Context, file, engine string) error {
	var c closure
	f, err := os.Open(file)
	if err == nil {
		err = gob.NewDecoder(f).Decode(&c)
	}
	if err != nil {
		return err
	}
	n, err := nix.Find(ctx, io.Discard, nix.Config{})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	e, err := engineNamed(ctx, n, engine)
	if err != nil {
		fmt.Println(err)
		e, err = DirectAsRoot(ctx, n, os.Args[0], serveDirect)
	}
	if err != nil {
		return err
	}
	return addMissing(ctx, n, e, &c)
}

func (c *closure) save(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	must(t, err)
	must(t, gob.NewEncoder(f).Encode(c))
	must(t, f.Close())
}

// It is an error if this user may not write to the store.
func TestDirectRefused(t *testing.T) {
	n := nixtest.Newest(t)
	if _, err := Direct(t.Context(), n.WithStore("ssh-ng://nowhere")); err == nil || !strings.Contains(err.Error(), "another machine") {
		t.Errorf("got %v", err)
	}
	nixtest.Run(t, "nix-store", "--init")
	must(t, unix.Mount("", "/nix", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	if _, err := Direct(t.Context(), n); err == nil || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("got %v", err)
	}
}

// Infos come from a cache, and a program reads them line by line.
func TestDirectHostile(t *testing.T) {
	c := kinds(t)
	n := nixtest.Newest(t)
	e := mustDirect(t, n)
	good := c.Infos[0]
	for name, change := range map[string]func(*nix.PathInfo){
		"path":      func(i *nix.PathInfo) { i.Path = "/nix/store/../../etc/passwd" },
		"outside":   func(i *nix.PathInfo) { i.Path = "/etc/passwd" },
		"newline":   func(i *nix.PathInfo) { i.Path += "\n" },
		"reference": func(i *nix.PathInfo) { i.References = []string{good.Path + "\n" + good.Path} },
		"deriver":   func(i *nix.PathInfo) { i.Deriver = good.Path + "\n0\n" },
		"hash":      func(i *nix.PathInfo) { i.NarHash += "\n" },
		"size":      func(i *nix.PathInfo) { i.NarSize = -1 },
	} {
		info := good
		change(&info)
		if sink, err := e.Begin(t.Context(), []nix.PathInfo{info}); err == nil {
			t.Errorf("%s is taken", name)
			_ = sink.Close()
		}
	}
}
