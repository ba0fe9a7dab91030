package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"github.com/org/nix-matrix/internal/testbench"
)

const (
	closureFiles = 80_000
	closureBytes = 1_500_000_000 // of NARs
	closureLarge = 50_000_000    // bytes of a path that is called large
	tenth        = 10            // percent of the bytes
	rebuilt      = 1             // percent
)

// A closure is in a store of that name.
type closure struct {
	store   string
	all     string       // the path that has all in its closure
	tenth   string       // below it, the path that has a tenth of the bytes in its
	rebuilt string       // like all, but for paths with 1 % of the bytes, which are others
	bytes   int64        // of the NARs of all
	paths   []*storePath // of all, which is the last
	conf    string       // NIX_CONFIG that trusts its signatures
}

// A storePath is made of files of this machine.
type storePath struct {
	path  string
	files []file // in the order of a NAR
	bytes int64  // of the files
	tenth bool
	refs  []*storePath
	base  string // its name
	bump  *bump  // nil for the first version
}

// A file has a text, is a link, or the same as another one.
type file struct {
	name, source, text, link string
	size                     int64
	executable               bool
}

// newClosure makes a store with files as this machine has them: of real sizes and
// names, and as well compressible as they are.
func (b *bench) newClosure(ctx context.Context) (*closure, error) {
	if b.closure != nil {
		return b.closure, nil
	}
	say("making a closure of files of this machine")
	toolchain, err := b.run(ctx, ".", nil, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	paths, err := gather(strings.TrimSpace(toolchain.stdout), filepath.Join(testbench.Prefix(), "npm"),
		"/usr/share", "/usr/include", "/usr/bin", "/usr/lib", "/usr/local")
	if err != nil {
		return nil, err
	}
	refer(paths)
	made := slices.Clone(paths) // and more, references before what refers to them
	root := func(name string, members []*storePath) *storePath {
		root := &storePath{files: []file{{text: name}}, refs: tops(members)}
		root.name(name)
		made = append(made, root)
		return root
	}
	small := root("tenth", slices.DeleteFunc(slices.Clone(paths), func(p *storePath) bool { return !p.tenth }))
	paths = append(paths, small)
	top := root("all", paths)
	c := &closure{store: "closure", all: top.path, tenth: small.path, paths: append(slices.Clone(paths), top)}
	others, highest := slices.Clone(paths), tops(paths)
	var left int64 = closureBytes * rebuilt / 100
	for i, p := range paths {
		if p.bytes > 0 && p.bytes <= left && slices.Contains(highest, p) {
			left -= p.bytes
			others[i] = &storePath{files: append([]file{{name: "!", text: "rebuilt"}}, p.files...), refs: p.refs}
			others[i].name(p.base, "rebuilt")
			made = append(made, others[i])
		}
	}
	c.rebuilt = root("rebuilt", others).path
	if err := b.makeStore(ctx, c, made); err != nil {
		return nil, err
	}
	b.closure = c
	return c, nil
}

// name sets a name and a hash of the path that no other path has.
func (p *storePath) name(name string, version ...string) {
	p.base = name
	sum := sha256.New()
	fmt.Fprintln(sum, name, version)
	for _, f := range p.files {
		fmt.Fprintln(sum, f.name, f.source)
	}
	p.path = "/nix/store/" + nixbase32.EncodeToString(sum.Sum(nil)[:20]) + "-" + name
}

// gather makes paths of the files in the directories, until there is enough of both
// files and bytes: many small paths, and a few large ones.
func gather(dirs ...string) ([]*storePath, error) {
	random := rand.New(rand.NewPCG(6, 6)) //nolint:gosec // the same in each run
	between := func(least, most float64) int64 {
		return int64(least * math.Exp(random.Float64()*math.Log(most/least)))
	}
	var paths []*storePath
	var left int64 // for the current path
	var bytes int64
	files := 0
	enough := func() bool { return bytes >= closureBytes && files >= closureFiles }
	for _, dir := range dirs {
		if enough() {
			break
		}
		left = 0
		err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !entry.Type().IsRegular() && entry.Type() != fs.ModeSymlink {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			f := file{name: strings.TrimPrefix(name, dir+"/"), source: name, executable: info.Mode()&0o100 != 0}
			if info.Mode().IsRegular() {
				f.size = info.Size()
			} else if f.link, err = os.Readlink(name); err != nil {
				return err
			}
			if left <= 0 {
				switch kind := random.IntN(100); {
				case kind < 60:
					left = between(1<<10, 1<<20)
				case kind < 98:
					left = between(1<<20, 16<<20)
				default:
					left = between(60e6, 150e6)
				}
				paths = append(paths, &storePath{})
			}
			p := paths[len(paths)-1]
			p.files = append(p.files, f)
			p.bytes += f.size
			left -= f.size
			bytes += f.size
			files++
			if enough() {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if !enough() {
		return nil, fmt.Errorf("this machine has no more than %d files and %s to measure with, in %s", files, megabytes(bytes), strings.Join(dirs, ", "))
	}
	for i, p := range paths {
		p.name(fmt.Sprint("closure-", i))
	}
	return paths, nil
}

// refer puts paths into an order, and has each refer to some before it: one of the
// tenth to such only.
func refer(paths []*storePath) {
	random := rand.New(rand.NewPCG(10, 10)) //nolint:gosec // the same in each run
	random.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	var left int64 = closureBytes * tenth / 100
	for i, p := range paths {
		if p.bytes < closureLarge && p.bytes <= left && random.IntN(5) == 0 {
			p.tenth = true
			left -= p.bytes
		}
		for range random.IntN(8) {
			q := paths[random.IntN(i+1)] // perhaps itself
			if (q.tenth || !p.tenth) && !slices.Contains(p.refs, q) {
				p.refs = append(p.refs, q)
			}
		}
	}
}

// tops are the members that no other one refers to.
func tops(members []*storePath) []*storePath {
	needed := map[*storePath]bool{}
	for _, p := range members {
		for _, q := range p.refs {
			needed[q] = needed[q] || p != q
		}
	}
	return slices.DeleteFunc(slices.Clone(members), func(p *storePath) bool { return needed[p] })
}

// makeStore makes the store with the paths, and signs them.
func (b *bench) makeStore(ctx context.Context, c *closure, paths []*storePath) error {
	if err := b.useStore(c.store); err != nil {
		return err
	}
	secret, public := filepath.Join(b.dir, "secret-key"), filepath.Join(b.dir, "public-key")
	if _, err := b.run(ctx, b.dir, nil, "nix-store", "--generate-binary-cache-key", "bench-1", secret, public); err != nil {
		return err
	}
	key, err := os.ReadFile(public)
	if err != nil {
		return err
	}
	c.conf = "NIX_CONFIG=trusted-public-keys = " + string(key)
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	imports := exec.CommandContext(ctx, "nix-store", "--import")
	imports.Stdin, imports.Stderr = read, os.Stderr
	imports.Cancel = func() error { return imports.Process.Signal(syscall.SIGTERM) }
	if err := imports.Start(); err != nil {
		return err
	}
	read.Close()
	out := bufio.NewWriterSize(write, 1<<20)
	err = export(out, paths)
	if err == nil {
		err = out.Flush()
	}
	write.Close()
	if err := errors.Join(err, imports.Wait()); err != nil {
		return fmt.Errorf("make a store of the files of this machine: %w", err)
	}
	if _, err := b.run(ctx, b.dir, nil, "nix", "store", "sign", "--all", "--key-file", secret); err != nil {
		return err
	}
	infos, err := b.run(ctx, b.dir, nil, "sh", "-c", "nix-store --query --size $(nix-store --query --requisites "+c.all+")")
	if err != nil {
		return err
	}
	count := 0
	for line := range strings.Lines(infos.stdout) {
		var size int64
		if _, err := fmt.Sscan(line, &size); err != nil {
			return err
		}
		c.bytes += size
		count++
	}
	say("a closure of %d paths, %s", count, megabytes(c.bytes))
	return nil
}
