package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/org/nix-matrix/internal/testbench"
)

// sourceTrees has the number of files of each path of a closure of source trees.
var sourceTrees = []int{10_000, 15_000, 20_000, 25_000, 30_000, 40_000}

// sourceFile is the most bytes of a file in a source tree.
const sourceFile = 64 << 10

// sources is restoring a few paths of very many small files, as the sources of nixpkgs or of a
// kernel are, with no limit but the processors.
func (b *bench) sources(ctx context.Context) error {
	c, err := b.newSources(ctx)
	if err != nil {
		return err
	}
	env, err := b.fresh()
	if err := errors.Join(err, b.useStore(c.store), b.resolve()); err != nil {
		return err
	}
	env = append(env, c.conf)
	s, err := b.serve(ctx, "service")
	if err != nil {
		return err
	}
	defer s.close()
	if _, _, err := b.save(ctx, s, env, c.all); err != nil {
		return err
	}
	if err := b.offer(ctx, s, env, c.all); err != nil {
		return err
	}
	r := &restorer{bench: b, closure: c, service: s}
	ours := r.ours(ctx, directEngine, c.all)
	imports := &fetch{run: func(env []string) (*metered, error) { return r.nixImport(ctx, s, env) }}
	if err := inTurn(rounds, r.into(ctx, ours), r.into(ctx, imports)); err != nil {
		return err
	}
	value, times := faster(ours.took(), imports.took())
	work := fmt.Sprintf("%d paths of %d,000 to %d,000 files each, unthrottled, direct engine", len(sourceTrees), sourceTrees[0]/1000, sourceTrees[len(sourceTrees)-1]/1000)
	r.add(work, "zstd -dc | nix-store --import", fmt.Sprintf("%s, peak memory %s", value, mebibytes(ours.peak())),
		"≥ 2.2×, ≤ "+mebibytes(restoreMemory), times >= 2.2 && ours.peak() <= restoreMemory)
	r.limit(work, ours)
	return nil
}

// newSources makes a store with trees of small files, as this machine has them.
func (b *bench) newSources(ctx context.Context) (*closure, error) {
	toolchain, err := b.run(ctx, ".", nil, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	left := 0
	for _, count := range sourceTrees {
		left += count
	}
	var paths []*storePath
	dirs := []string{
		strings.TrimSpace(toolchain.stdout), filepath.Join(testbench.Prefix(), "npm"), "/usr/share", "/usr/include", "/usr/lib",
	}
	for n := 0; left > 0; n++ { // a machine with few files has several copies of them
		before, part := left, fmt.Sprintf("%03d", n)
		dir := dirs[n%len(dirs)]
		err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			info, err := entry.Info()
			if err != nil || info.Size() > sourceFile {
				return err
			}
			if len(paths) == 0 || len(paths[len(paths)-1].files) == sourceTrees[len(paths)-1] {
				paths = append(paths, &storePath{})
			}
			p := paths[len(paths)-1]
			p.files = append(p.files, file{
				name: part + strings.TrimPrefix(name, dir), source: name, size: info.Size(), executable: info.Mode()&0o100 != 0,
			})
			if left--; left == 0 {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if left == before && n >= len(dirs) {
			return nil, fmt.Errorf("this machine has no files to measure with, in %s", strings.Join(dirs, ", "))
		}
	}
	for _, p := range paths {
		p.name("source")
	}
	root := &storePath{files: []file{{text: "sources"}}, refs: paths}
	root.name("sources")
	c := &closure{store: "sources", all: root.path}
	return c, b.makeStore(ctx, c, append(paths, root))
}
