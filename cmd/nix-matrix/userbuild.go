package main

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/flagvalue"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/reuse"
)

// A userBuild is what restore and save have in common: they run before and after a user's own build.
type userBuild struct {
	app *app
	packing
	json  bool
	later bool // restore on demand
}

func (u *userBuild) flags(cmd *cobra.Command) {
	u.rootFlag(cmd)
	addFlag(cmd, flagvalue.Bool(&u.json, false), "json", "print the counts of the "+cmd.Name()+" as JSON")
	u.app.idFlag(cmd)
	u.app.cacheFlag(cmd)
}

// packGCPercent is Go's GOGC for those who read and write packs: most of their memory is large buffers without pointers,
// which the garbage collector does not look through.
const packGCPercent = 25

// collectOften bounds the memory that waits to be collected, unless the environment has a GOGC.
func (a *app) collectOften() {
	if a.getenv("GOGC") == "" {
		debug.SetGCPercent(packGCPercent)
	}
}

// open opens Nix and the cache, and returns the store paths of the arguments.
func (u *userBuild) open(ctx context.Context, args []string) (*reuse.UserBuild, []string, error) {
	a := u.app
	a.collectOften()
	paths, err := a.storePaths(args)
	if err != nil {
		return nil, nil, err
	}
	docs, err := a.documents()
	if err != nil {
		return nil, nil, err
	}
	b := &reuse.UserBuild{Cache: &reuse.Cache{Docs: docs, Log: a.log}, Root: u.root, Lenient: a.action.Running()}
	if u.root != "" {
		if b.Root, err = filepath.Abs(u.root); err != nil {
			return nil, nil, usage.Errorf("--store-root %s: %w", u.root, err)
		}
	}
	if b.Nix, err = a.host.OpenStore(ctx, b.Root); err != nil {
		return nil, nil, err
	}
	docs.Cache, err = a.openCache(docs.Trust)
	if err := b.Tolerate(ctx, "The cache is not used", err); err != nil {
		return nil, nil, err
	}
	b.Before, err = a.beforeFile()
	return b, paths, err
}

// beforeFile returns the file in which restore writes for save which paths were valid.
func (a *app) beforeFile() (string, error) {
	if a.action.Running() {
		dir, err := a.action.StateDir(a.id)
		return filepath.Join(dir, "before.json"), err
	}
	path, err := cachePath("")
	return filepath.Join(path, "run", a.id+"-before.json"), err
}

// storePaths returns the store paths of arguments, or of symlinks to them, else those of the input.
func (a *app) storePaths(args []string) ([]string, error) {
	if len(args) == 0 {
		args = a.action.Lines("paths")
	}
	paths := make([]string, len(args))
	for i, arg := range args {
		path, err := nix.StorePath(arg)
		if err != nil {
			return nil, usage.Wrap(err)
		}
		paths[i] = path
	}
	return paths, nil
}

// tell sets the output of this name, and prints the number of paths, or with --json the counts.
func (u *userBuild) tell(output string, paths int, counts any) error {
	a := u.app
	if err := a.action.SetOutput(output, strconv.Itoa(paths)); err != nil {
		return err
	}
	a.log.Close()
	if u.json {
		return a.printJSON(counts)
	}
	return a.print(fmt.Sprintf("%d %s\n", paths, output))
}
