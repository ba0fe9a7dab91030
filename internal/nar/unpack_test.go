package nar

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/org/nix-matrix/internal/testbench"
)

// forest returns a NAR of many files of all sizes around those of a batch, in many directories.
func forest(random func(int) int) string {
	sizes := []int{0, 1, 7, 8, 4095, 70_000, batchBytes - 1, batchBytes, batchBytes + 1, 3*batchBytes + 5}
	content := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz\n"), 3*batchBytes/37+2)
	var dirs []string
	for d := range 20 {
		var entries []string
		for n := range random(2 * batchPieces) {
			size := random(3000)
			if random(20) == 0 {
				size = sizes[random(len(sizes))]
			}
			from := random(36)
			text := string(content[from : from+size])
			node := file(text)
			switch random(10) {
			case 0:
				node = program(text)
			case 1:
				node = link("../" + strings.Repeat("x", 1+n))
			case 2:
				node = dir(entry("a", file(text)), entry("b", dir()))
			}
			entries = append(entries, entry(fmt.Sprintf("%04d", n), node))
		}
		dirs = append(dirs, entry(fmt.Sprintf("d%03d", d), dir(entries...)))
	}
	return archive(dir(dirs...))
}

// The files are the same with any number of goroutines, of one NAR or of several at a time.
func TestUnpackInParallel(t *testing.T) {
	random := testbench.Random(t)
	nar := forest(random.IntN)
	for _, parallel := range []int{0, 1, 2, 3, 16} {
		u := &Unpacker{Parallel: parallel}
		base := t.TempDir()
		d, err := os.Open(base)
		must(t, err)
		defer d.Close()
		var group sync.WaitGroup
		for n := range 3 {
			group.Go(func() {
				if err := u.Unpack(strings.NewReader(nar), int64(len(nar)), int(d.Fd()), fmt.Sprint(n)); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		for n := range 3 {
			root := filepath.Join(base, fmt.Sprint(n))
			if diff := differ(nar, dump(t, root)); diff != "" {
				t.Errorf("%d in parallel: %s", parallel, diff)
			}
			must(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
				info, serr := entry.Info()
				if err = errors.Join(err, serr); err != nil {
					return err
				}
				mode := info.Mode()
				if info.ModTime().Unix() != mtime || mode.IsDir() && mode.Perm() != directoryMode || mode.IsRegular() && mode.Perm()&^0o111 != fileMode {
					t.Errorf("%s: %v, %v", path, mode, info.ModTime())
				}
				return nil
			}))
			must(t, Remove(int(d.Fd()), fmt.Sprint(n)))
		}
		if busy := u.busy.Load(); busy != 0 {
			t.Errorf("%d goroutines are busy", busy)
		}
	}
}

// After an error of the reader or of a writer nothing is left, wherever it happens.
func TestUnpackInParallelFails(t *testing.T) {
	random := testbench.Random(t)
	nar := forest(random.IntN)
	boom := errors.New("boom")
	before := descriptors(t)
	for range 6 {
		at := random.IntN(len(nar))
		if _, err := unpack(t, io.MultiReader(strings.NewReader(nar[:at]), iotest.ErrReader(boom)), len(nar)); !errors.Is(err, boom) {
			t.Errorf("after %d bytes: %v", at, err)
		}
		changed := []byte(nar)
		copy(changed[at-at%8:], "\xff\xff\xff\xff\xff\xff\xff\xff") // perhaps in a file
		_, _ = unpack(t, bytes.NewReader(changed), len(nar))
	}
	// The last descriptors are those of directories.
	deep := archive(nested(9, "d", dir(entry("f", file("x")))))
	base := t.TempDir()
	d, err := os.Open(base)
	must(t, err)
	limited(t, uint64(d.Fd())+8, func() {
		err = unpacker.Unpack(strings.NewReader(deep), int64(len(deep)), int(d.Fd()), "root")
	})
	if left := list(t, base); !errors.Is(err, unix.EMFILE) || left != "" {
		t.Errorf("without descriptors: %v, %q is left", err, left)
	}
	must(t, d.Close())
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
}

// Directories whose files are not written yet do not use up the descriptors.
func TestUnpackManyDirectories(t *testing.T) {
	var entries []string
	for n := range 2000 {
		entries = append(entries, entry(fmt.Sprintf("%04d", n), nested(n%20, "d", dir(entry("f", file("x"))))))
	}
	nar := archive(dir(entries...))
	limited(t, maxOpen+100, func() {
		root, err := unpack(t, strings.NewReader(nar), len(nar))
		must(t, err)
		if diff := differ(nar, dump(t, root)); diff != "" {
			t.Error(diff)
		}
	})
}

// limited calls do while no descriptor may have this number or a higher one.
func limited(t *testing.T, descriptors uint64, do func()) {
	t.Helper()
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	few := limit
	few.Cur = descriptors
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }()
	do()
}
