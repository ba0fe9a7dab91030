package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/nix/nixtest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A closure has the paths that engines add in the tests, in reference order.
type closure struct {
	Infos []nix.PathInfo
	NARs  map[string][]byte
	named map[string]string // paths by name
}

var kindsMade *closure

// kinds returns each kind of path, with signatures, with content addresses and with neither,
// each of which refers to others of each kind, and files of all kinds. It replaces the store.
func kinds(t *testing.T) *closure {
	t.Helper()
	if kindsMade != nil {
		return kindsMade
	}
	t.Setenv("PATH", testbench.NixPath(t, "2.34")+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("HOME", t.TempDir())
	testbench.UseStore(t, t.TempDir())
	n, err := nix.Find(t.Context(), io.Discard, nix.Config{})
	must(t, err)

	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "source"), bytes.Repeat([]byte("source"), 100_000), 0o600))
	const start = `let make = name: script: derivation {
		inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin:/usr/bin"; args = [ "-ec" script ];
	}; in `
	build := func(expr string) []string {
		return strings.Fields(nixtest.Run(t, "nix-build", "--no-out-link", "--expr", start+expr))
	}
	paths := build(`let
		source = builtins.path { name = "source"; path = ` + filepath.Join(dir, "source") + `; };
		text = builtins.toFile "text" "${source}";
		plain = make "plain" "mkdir $out; echo ${text} >$out/text";
		everything = make "everything" ''
			mkdir -p $out/dir/empty $out/bin
			cd $out/dir
			: >empty-file; echo lower >case; echo upper >CASE; echo $out >self
			echo '#!/bin/sh' >../bin/run; chmod +x ../bin/run
			ln -s ../bin/run link; ln -s ${plain} plain; ln -s nowhere dangling
			seq 1000000 >large
		'';
		many = make "many" "mkdir $out; cd $out; for d in $(seq 40); do mkdir $d; for f in $(seq 25); do echo $d.$f ${plain} >$d/$f; done; done";
	in [ (make "file" "echo ${everything} >$out; chmod +x $out") (make "link" "ln -s ${many} $out") ]`)
	// It has a content address, and refers to paths without one.
	refer := func(name, to string) string {
		return nixtest.Run(t, "nix-instantiate", "--eval", "--read-write-mode", "--raw", "--expr",
			`builtins.toFile "`+name+`" "${builtins.storePath "`+to+`"}"`)
	}
	late := refer("late", paths[0])
	after := build(`make "after" "echo ${builtins.storePath "` + late + `"} >$out"`)[0]
	paths = append(paths, refer("last", after), nixtest.Run(t, "nix-store", "--query", "--deriver", after))

	signed := []string{after, paths[1]}
	for _, key := range []string{"one-1", "two-1"} {
		secret := filepath.Join(dir, key)
		nixtest.Run(t, "nix-store", "--generate-binary-cache-key", key, secret, secret+".public")
		nixtest.Run(t, "nix", append([]string{"store", "sign", "--recursive", "--key-file", secret}, signed...)...)
		signed = signed[1:]
	}
	c := &closure{NARs: map[string][]byte{}, named: map[string]string{}}
	paths, err = n.Requisites(t.Context(), paths...)
	must(t, err)
	c.Infos, err = n.FullInfo(t.Context(), paths...)
	must(t, err)
	count := map[string]int{}
	for _, info := range c.Infos {
		r, err := n.NAR(t.Context(), info.Path)
		must(t, err)
		c.NARs[info.Path], err = io.ReadAll(r)
		must(t, err)
		_, name, _ := strings.Cut(info.Path, "-")
		c.named[name] = info.Path
		kind, _, _ := strings.Cut(info.CA, ":")
		count[fmt.Sprintf("%s %d", kind, len(info.Signatures))]++
	}
	if want := 6; len(count) != want {
		t.Fatalf("the kinds of paths are %v, want %d", count, want)
	}
	kindsMade = c
	return c
}

func (c *closure) paths() []string {
	var paths []string
	for _, info := range c.Infos {
		paths = append(paths, info.Path)
	}
	return paths
}

// add adds paths with an engine, as many at a time and in any order as it allows. open returns
// the NARs; paths whose error is expected are left out.
func add(ctx context.Context, e Engine, infos []nix.PathInfo, open func(nix.PathInfo) io.Reader, expected error) error {
	sink, err := e.Begin(ctx, infos)
	if err != nil {
		return err
	}
	err = addTo(ctx, e, sink, infos, open, expected)
	return errors.Join(err, sink.Close())
}

func addTo(ctx context.Context, e Engine, sink Sink, infos []nix.PathInfo, open func(nix.PathInfo) io.Reader, expected error) error {
	order := slices.Clone(infos)
	if !e.Ordered {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	var g errgroup.Group
	g.SetLimit(e.Parallel)
	failed := make(map[string]bool)
	broken := make(chan string, len(order))
	ended := make(map[string]chan struct{}, len(order))
	for _, info := range order {
		ended[info.Path] = make(chan struct{})
	}
	var lost sync.Map // paths that were not added
	for _, info := range order {
		g.Go(func() error {
			defer close(ended[info.Path])
			if e.Ordered {
				for _, ref := range info.References {
					if before := ended[ref]; before != nil && ref != info.Path {
						<-before
					}
					if _, is := lost.Load(ref); is {
						lost.Store(info.Path, true)
						return nil
					}
				}
			}
			err := sink.Add(ctx, info, open(info))
			if err != nil {
				lost.Store(info.Path, true)
			}
			if expected != nil && errors.Is(err, expected) {
				broken <- info.Path
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	close(broken)
	for path := range broken {
		failed[path] = true
	}
	// Paths that refer to lost ones are left out, too.
	var whole []nix.PathInfo
	for _, info := range infos {
		if failed[info.Path] || slices.ContainsFunc(info.References, func(r string) bool { return failed[r] }) {
			failed[info.Path] = true
			continue
		}
		whole = append(whole, info)
	}
	return sink.Finish(ctx, whole)
}

func (c *closure) open(info nix.PathInfo) io.Reader { return bytes.NewReader(c.NARs[info.Path]) }

// check compares the metadata and contents in the store with those of the closure.
func (c *closure) check(t *testing.T, n *nix.Nix, e Engine) {
	t.Helper()
	c.checkBut(t, n, forgets(e.Name))
}

// checkBut is check without the metadata that forget clears.
func (c *closure) checkBut(t *testing.T, n *nix.Nix, forget func(*nix.PathInfo)) {
	t.Helper()
	got, err := n.FullInfo(t.Context(), c.paths()...)
	must(t, err)
	want := slices.Clone(c.Infos)
	for i := range want {
		want[i].Ultimate = false // only set in the store that built it
		forget(&want[i])
		forget(&got[i])
	}
	if diff := cmp.Diff(want, got, cmp.Transformer("sorted", func(s []string) []string { return slices.Sorted(slices.Values(s)) })); diff != "" {
		t.Error(diff)
	}
	if out := nixtest.Run(t, "nix", "path-info", "--all", "--json"); strings.Contains(out, `"ultimate":true`) {
		t.Errorf("paths are said to be built here: %s", out)
	}
	for _, path := range c.paths() {
		checkMetadata(t, n.Root()+path)
	}
	nixtest.Verify(t)
}

// checkMetadata checks that the modes and times of files are those that Nix sets.
func checkMetadata(t *testing.T, path string) {
	t.Helper()
	must(t, filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode()
		if mode&fs.ModeSymlink == 0 && mode&^fs.ModeDir != 0o444 && mode&^fs.ModeDir != 0o555 || !info.ModTime().Equal(time.Unix(1, 0)) {
			t.Errorf("%s: %v, %v", file, mode, info.ModTime())
		}
		return nil
	}))
}

func TestProtocol(t *testing.T) {
	testEngine(t, func(_ *testing.T, n *nix.Nix) Engine { return Protocol(n) })
}

func TestImport(t *testing.T) {
	testEngine(t, func(_ *testing.T, n *nix.Nix) Engine { return Import(n) })
}

// testEngine tests the contract of all engines, with each version of Nix, in the store of the
// machine and in one below another directory.
func testEngine(t *testing.T, find func(*testing.T, *nix.Nix) Engine) {
	nixtest.Each(t, func(t *testing.T, n *nix.Nix) { testStores(t, n, find) })
}

// testStores tests the contract of an engine with one version of Nix.
func testStores(t *testing.T, n *nix.Nix, find func(*testing.T, *nix.Nix) Engine) {
	testContract(t, find, func(t *testing.T) (*nix.Nix, string) {
		nixtest.UseMemory(t, "")
		return n, "/nix/store"
	})
	t.Run("root", func(t *testing.T) {
		testContract(t, find, func(t *testing.T) (*nix.Nix, string) {
			root := filepath.Join(nixtest.UseMemory(t, ""), "a root")
			testbench.UseStore(t, filepath.Join(t.TempDir(), "unused"))
			t.Cleanup(func() {
				if names, err := os.ReadDir("/nix"); err != nil || len(names) > 0 {
					t.Errorf("the store of the machine has %v, %v", names, err)
				}
			})
			t.Setenv("NIX_REMOTE", "local?root="+strings.ReplaceAll(root, " ", "%20")) // of the programs that the test runs
			return n.WithRoot(root), filepath.Join(root, "nix/store")
		})
	})
}

// testContract tests the contract of an engine in the stores that empty returns with the
// directories of their files.
func testContract(t *testing.T, find func(*testing.T, *nix.Nix) Engine, empty func(*testing.T) (n *nix.Nix, dir string)) {
	c := kinds(t)
	boom := errors.New("boom")
	t.Run("all", func(t *testing.T) {
		n, dir := empty(t)
		e := find(t, n)
		must(t, add(t.Context(), e, c.Infos, c.open, nil))
		c.check(t, n, e)
		if names := inStore(t, dir); len(names) != len(c.Infos) {
			t.Errorf("the store has %q", names)
		}
		// The second time, valid paths stay as they are, even their inodes.
		stat := func(path string) fs.FileInfo {
			info, err := os.Lstat(n.Root() + path)
			must(t, err)
			return info
		}
		before := map[string]fs.FileInfo{}
		for _, path := range c.paths() {
			before[path] = stat(path)
		}
		must(t, add(t.Context(), e, c.Infos, c.open, nil))
		for path, info := range before {
			if !os.SameFile(info, stat(path)) {
				t.Errorf("%s was replaced", path)
			}
		}
		c.check(t, n, e)
	})
	t.Run("nothing", func(t *testing.T) {
		n, dir := empty(t)
		must(t, os.MkdirAll(dir, 0o755))
		must(t, add(t.Context(), find(t, n), nil, nil, nil))
		if names := inStore(t, dir); len(names) != 0 {
			t.Errorf("the store has %q", names)
		}
	})
	t.Run("in part", func(t *testing.T) {
		n, _ := empty(t)
		e := find(t, n)
		for _, part := range [][]nix.PathInfo{c.Infos[:1], c.Infos[:len(c.Infos)/2], c.Infos} {
			must(t, add(t.Context(), e, part, c.open, nil))
		}
		c.check(t, n, e)
	})
	t.Run("over leftovers", func(t *testing.T) {
		n, dir := empty(t)
		e := find(t, n)
		must(t, os.MkdirAll(dir, 0o755))
		for i, path := range c.paths() {
			path = n.Root() + path
			switch i % 3 {
			case 0:
				must(t, os.WriteFile(path, []byte("left over"), 0o444))
			case 1:
				must(t, os.MkdirAll(filepath.Join(path, "left", "over"), 0o755))
				must(t, os.Chmod(path, 0o555))
			case 2:
				must(t, os.Symlink("/etc/passwd", path))
			}
		}
		must(t, add(t.Context(), e, c.Infos, c.open, nil))
		c.check(t, n, e)
	})
	for _, name := range []string{"source", "plain", "many", "late"} {
		t.Run("broken "+name, func(t *testing.T) {
			n, dir := empty(t)
			e := find(t, n)
			path := c.named[name]
			if err := add(t.Context(), e, c.Infos, func(info nix.PathInfo) io.Reader {
				nar := c.NARs[info.Path]
				if info.Path == path {
					return io.MultiReader(bytes.NewReader(nar[:len(nar)/2]), iotest.ErrReader(boom))
				}
				return bytes.NewReader(nar)
			}, boom); err != nil && !e.Ordered {
				t.Error(err)
			} else if err != nil && !errors.Is(err, boom) { // an engine that has to stop there
				t.Error(err)
			}
			valid, err := n.Valid(t.Context(), c.paths()...)
			must(t, err)
			if valid[path] {
				t.Errorf("half of %s is valid", path)
			}
			if names := inStore(t, dir); !e.Ordered && len(names) != len(valid) {
				t.Errorf("%d paths are valid, and the store has %q", len(valid), names)
			}
			nixtest.Verify(t)
			// The next restore adds all paths.
			must(t, add(t.Context(), e, c.Infos, c.open, nil))
			c.check(t, n, e)
		})
	}
	t.Run("given up", func(t *testing.T) {
		n, _ := empty(t)
		e := find(t, n)
		sink, err := e.Begin(t.Context(), c.Infos)
		must(t, err)
		must(t, sink.Add(t.Context(), c.Infos[0], c.open(c.Infos[0])))
		must(t, sink.Close())
		nixtest.Verify(t)
		must(t, add(t.Context(), e, c.Infos, c.open, nil))
		c.check(t, n, e)
	})
}

// inStore returns the names in the directory of a store, except Nix's .links.
func inStore(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, entry := range entries {
		if entry.Name() != ".links" {
			names = append(names, entry.Name())
		}
	}
	return names
}
