package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/reuse"
	"github.com/org/nix-matrix/pkg/storecache"
)

// open opens the cache and Nix for a user's own build.
func (p *packing) open(ctx context.Context, a *app) (*reuse.UserBuild, *nix.Nix, error) {
	docs, err := a.documents(nil)
	if err != nil {
		return nil, nil, err
	}
	root := p.root
	if root != "" {
		if root, err = filepath.Abs(root); err != nil {
			return nil, nil, usage.Errorf("--store %s: %w", p.root, err)
		}
	}
	n, err := a.host.OpenStore(ctx, root)
	if err != nil {
		return nil, nil, err
	}
	docs.Cache, err = a.openCache()
	if err := a.warnCache(ctx, "The cache is not used", err); err != nil {
		return nil, nil, err
	}
	before, err := a.beforeFile()
	if err != nil {
		return nil, nil, err
	}
	return &reuse.UserBuild{Cache: &reuse.Cache{Docs: docs, Log: a.log}, Root: root, Before: before, Warn: a.warnCache}, n, nil
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

// warnCache warns of an error of the cache or of its content in a workflow, and returns it elsewhere.
func (a *app) warnCache(ctx context.Context, title string, err error) error {
	var wrong *usage.Error
	ours := errors.Is(err, storecache.ErrSource) && !errors.Is(err, nix.ErrUntrusted)
	switch {
	case ctx.Err() != nil:
		return errors.Join(err, ctx.Err())
	case err == nil, errors.As(err, &wrong), !a.action.Running() && !ours:
		return err
	}
	reuse.WarnCache(a.log, title, err)
	return nil
}
