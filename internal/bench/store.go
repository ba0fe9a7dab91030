package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// resolve has the name of the blobs' host lead to this machine.
func (b *bench) resolve() error {
	hosts := filepath.Join(b.dir, "hosts")
	_ = syscall.Unmount("/etc/hosts", syscall.MNT_DETACH)
	return errors.Join(
		os.WriteFile(hosts, []byte("127.0.0.1 localhost "+blobHost+"\n"), 0o644),
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount(hosts, "/etc/hosts", "", syscall.MS_BIND, ""),
	)
}

// job is the environment of a job's step that uses the service. Its temporary files are
// in memory too.
func (b *bench) job(s *service) ([]string, error) {
	temp := filepath.Join(b.dir, "temp")
	return append(s.environ(), "TMPDIR="+temp, "RUNNER_TEMP="+temp, "GITHUB_OUTPUT="+filepath.Join(temp, "output"),
		"GITHUB_EVENT_NAME=push", "GITHUB_REF=refs/heads/main", "GITHUB_RUN_ID=1", "GITHUB_RUN_ATTEMPT=1"), errors.Join(os.RemoveAll(temp), os.Mkdir(temp, 0o755))
}

// ours runs a command of ours, and gives what it prints as JSON.
func (b *bench) ours(ctx context.Context, s *service, env []string, answer any, args ...string) (*metered, error) {
	job, err := b.job(s)
	if err != nil {
		return nil, err
	}
	m, err := b.meter(ctx, nil, append(env, job...), b.program, append(args, "--cache", "actions", "--json")...)
	if err != nil {
		return nil, err
	}
	if strings.Contains(m.stdout+m.stderr, "::warning") {
		return nil, fmt.Errorf("%v: %s%s", args, m.stdout, m.stderr)
	}
	return m, json.Unmarshal([]byte(m.stdout), answer)
}

// restore restores the closure of a path into the store, of which nothing is there.
func (b *bench) restore(ctx context.Context, s *service, env []string, engine, path string) (*metered, error) {
	var restored struct{ Paths int }
	m, err := b.ours(ctx, s, env, &restored, "restore", "--engine", engine, path)
	if err != nil {
		return nil, err
	}
	closure, err := b.run(ctx, b.dir, env, "nix-store", "--query", "--requisites", path)
	if err != nil {
		return nil, fmt.Errorf("restored %d paths: %s%w", restored.Paths, m.stderr, err)
	}
	if len(strings.Fields(closure.stdout)) != restored.Paths {
		return nil, fmt.Errorf("restored %d paths: %s", restored.Paths, m.stderr)
	}
	return m, nil
}

// save saves the closure of a path, and gives the bytes of the new packs.
func (b *bench) save(ctx context.Context, s *service, env []string, path string) (*metered, int64, error) {
	var saved struct{ Size int64 }
	m, err := b.ours(ctx, s, env, &saved, "save", "--store-cache", "all", path)
	return m, saved.Size, err
}

// beginSave returns a store that has a closure, and a service that has nothing.
func (b *bench) beginSave(ctx context.Context) (*closure, *service, []string, error) {
	c, err := b.newClosure(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	env, err := b.fresh()
	if err := errors.Join(err, b.useStore(c.store), b.resolve()); err != nil {
		return nil, nil, nil, err
	}
	s, err := b.serve(ctx, "service")
	return c, s, append(env, c.conf), err
}

// firstFormat returns a service that has the closure in the first format, or nil.
func (b *bench) firstFormat(ctx context.Context, c *closure, env []string) (*service, error) {
	if b.before == nil {
		say("without the rows that compare with the first format, since NIX_MATRIX_BENCH_BEFORE is not set")
		return nil, nil //nolint:nilnil // none
	}
	s, err := b.serve(ctx, "service-first")
	if err != nil {
		return nil, err
	}
	_, _, err = b.before.save(ctx, s, env, c.all)
	return s, err
}
