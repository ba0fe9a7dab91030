package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// unchanged is a rerun: an empty machine, the same commit, and what the first run
// left in the cache.
func (b *bench) unchanged(ctx context.Context) error {
	f := &fleet{bench: b, dir: filepath.Join(b.dir, "unchanged"), cache: filepath.Join(b.dir, "unchanged-cache")}
	if err := f.slow(ctx); err != nil {
		return err
	}
	commit := []string{"-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "-qm", "bench"}
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, commit} {
		if _, err := b.run(ctx, f.dir, nil, "git", args...); err != nil {
			return err
		}
	}
	var first, second []time.Duration
	for range turns(rounds) {
		took, _, err := f.discover(ctx)
		if err != nil {
			return err
		}
		first = append(first, took)
		env, err := f.fresh()
		if err != nil {
			return err
		}
		ran, err := f.run(ctx, f.dir, env, f.program, "discover", ".#nixosConfigurations", "--cache", "dir:"+f.cache)
		switch {
		case err != nil:
			return err
		case !strings.Contains(ran.stderr, "nothing has changed"):
			return errors.New("it evaluates again:\n" + ran.stderr)
		}
		second = append(second, ran.took)
	}
	value, _ := faster(second, first)
	b.rows = append(b.rows, row{
		Work: "discover of an unchanged commit on an empty machine, what was evaluated is in the cache: no evaluator", Against: "first discovery, 4 hosts of 3 s",
		Value: value, Goal: "≤ 1 s", Met: median(second) <= time.Second,
	})
	return os.RemoveAll(f.dir)
}
