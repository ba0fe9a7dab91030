package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/cache/actions"
	"github.com/org/nix-matrix/pkg/engine"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/storecache"
)

const (
	handoverHosts  = 50
	handoverDrvs   = 20_000 // that all hosts need
	handoverOwn    = 40     // that only one of them needs
	handoverFiles  = 40_000 // of the source
	handoverBytes  = 400_000_000
	handoverSample = 2 // hosts of which a pack is made, in place of all
)

// sharing is a flake of hosts that need all of a tree of derivations and a source, with
// some of their own, and at last a package that needs little.
const sharing = `let
  drv = name: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; text = builtins.concatStringsSep " " (builtins.genList (n: "${name} ${toString n}") 50); } // more);
  count = %d;
  tree = builtins.genList (n: drv "common-${toString n}" { inputs = builtins.genList (i: builtins.elemAt tree (2 * n + 1 + i)) (if 2 * n + 2 < count then 2 else if 2 * n + 1 < count then 1 else 0); }) count;
  own = host: builtins.genList (n: drv "own-${host}-${toString n}" { }) %d;
in
builtins.genList (n: drv "host-${toString n}" { inputs = own (toString n); common = builtins.head tree; src = ./src; }) %d
++ [ (drv "package" { inputs = own "package"; }) ]
`

// handover is how much the jobs of a run give to each other.
func (b *bench) handover(ctx context.Context) error {
	drvs, err := b.sharing(ctx, handoverDrvs, handoverHosts, handoverFiles)
	if err != nil {
		return err
	}
	n, err := nix.Find(ctx, os.Stderr, nix.Config{})
	if err != nil {
		return err
	}
	var each int64
	for i := range handoverSample {
		packed, err := storecache.PackDrvs(ctx, n, "bench", filepath.Join(b.dir, "one.pack"), drvs[i:i+1], nil)
		if err != nil {
			return err
		}
		each += packed.Size * handoverHosts / handoverSample
	}
	file := filepath.Join(b.dir, "all.pack")
	start := time.Now()
	all, err := storecache.PackDrvs(ctx, n, "bench", file, drvs, nil)
	if err != nil {
		return err
	}
	took := time.Since(start)
	percent := 100 * float64(all.Size) / float64(each)
	b.rows = append(b.rows, row{
		Work:    fmt.Sprintf("handing over 50 hosts with 20,000 derivations and a source of 40,000 files and 400 MB in common: bytes of the pack (made in %s)", seconds(took)),
		Against: fmt.Sprintf("a pack per host (%d of 50, times %d)", handoverSample, handoverHosts/handoverSample),
		Value:   fmt.Sprintf("%s against %s, %.1f %%", megabytes(all.Size), megabytes(each), percent), Goal: "≤ 5 %", Met: percent <= 5,
	})
	const others = handoverHosts - 1
	host := all.Paths - others*(handoverOwn+1) - (handoverOwn + 1)
	for _, worker := range []struct {
		what  string
		drv   string
		paths int
		most  float64 // percent of the pack
	}{
		{"a host", drvs[0], host, 100},
		{"a package with 40 derivations of its own", drvs[handoverHosts], handoverOwn + 1, 1},
	} {
		if _, err := b.fresh(); err != nil {
			return err
		}
		restored, took, err := restore(ctx, n, file, all.SHA256, worker.drv)
		if err != nil {
			return err
		}
		part := 100 * float64(restored.Bytes) / float64(all.Size)
		b.rows = append(b.rows, row{
			Work:    "what the worker of " + worker.what + " takes of that pack into an empty store",
			Against: "all of it",
			Value:   fmt.Sprintf("%d of %d paths, %s of %s, in %s", restored.Paths, all.Paths, megabytes(restored.Bytes), megabytes(all.Size), seconds(took)),
			Goal:    fmt.Sprintf("%d paths, ≤ %.0f %% of the bytes", worker.paths, worker.most),
			Met:     restored.Paths == worker.paths && part <= worker.most,
		})
	}
	return nil
}

const (
	takeDrvs  = 3_700
	takeDelay = 20 * time.Millisecond
)

// take is a job that takes the derivations of its host from the cache.
func (b *bench) take(ctx context.Context) error {
	drvs, err := b.sharing(ctx, takeDrvs, 1, 1)
	if err != nil {
		return err
	}
	n, err := nix.Find(ctx, os.Stderr, nix.Config{})
	if err != nil {
		return err
	}
	s, err := b.serve(ctx, "service")
	if err != nil {
		return err
	}
	defer s.close()
	if err := b.resolve(); err != nil {
		return err
	}
	config, err := actions.FromEnv(func(name string) string { return s.Env(s.url)[name] })
	if err != nil {
		return err
	}
	c := actions.New(config)
	file := filepath.Join(b.dir, "one.pack")
	packed, err := storecache.PackDrvs(ctx, n, "bench", file, drvs[:1], nil)
	if err != nil {
		return err
	}
	key, err := packed.Save(ctx, c, file)
	if err != nil {
		return err
	}
	s.delay.Store(int64(takeDelay))
	var took []time.Duration
	var requests int64
	for range turns(rounds) {
		if _, err := b.fresh(); err != nil {
			return err
		}
		s.requests.Store(0)
		start := time.Now()
		src, err := storecache.OpenDrvs(ctx, c, key, packed.Size)
		if err != nil {
			return err
		}
		restored, err := storecache.RestoreDrvs(ctx, n, engine.Protocol(n), src, packed.SHA256, drvs[:1], nil, storecache.Everything())
		took = append(took, time.Since(start))
		requests = s.requests.Load()
		if err != nil {
			return err
		}
		if restored.Paths != packed.Paths {
			return fmt.Errorf("%d of %d paths came", restored.Paths, packed.Paths)
		}
	}
	b.rows = append(b.rows, row{
		Work:    fmt.Sprintf("a job takes %d derivations and sources of its host, %s, from a cache that answers after 20 ms", packed.Paths, megabytes(packed.Size)),
		Against: "–",
		Value:   fmt.Sprintf("%s, %d requests", seconds(median(took)), requests), Goal: "≤ 1.2 s, 2 requests", Met: median(took) <= 1200*time.Millisecond && requests <= 2,
	})
	return nil
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// sharing makes /nix a store with the derivations.
func (b *bench) sharing(ctx context.Context, count, hosts, files int) ([]string, error) {
	env, err := b.fresh()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "sharing")
	defer os.RemoveAll(dir)
	random := rand.NewChaCha8([32]byte{1})
	half := make([]byte, handoverBytes/handoverFiles/2)
	for i := range files {
		sub := filepath.Join(dir, "src", fmt.Sprint(i/100))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return nil, err
		}
		random.Read(half)
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), []byte(hex.EncodeToString(half)), 0o644); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "default.nix"), fmt.Appendf(nil, sharing, count, handoverOwn, hosts), 0o644); err != nil {
		return nil, err
	}
	made, err := b.run(ctx, dir, env, "nix-instantiate", "default.nix")
	if err != nil {
		return nil, err
	}
	drvs := strings.Fields(made.stdout)
	if len(drvs) != hosts+1 {
		return nil, fmt.Errorf("nix-instantiate made %d derivations", len(drvs))
	}
	return drvs, nil
}

func restore(ctx context.Context, n *nix.Nix, file, sum, drv string) (*storecache.Restored, time.Duration, error) {
	pack, err := storecache.File(file)
	if err != nil {
		return nil, 0, err
	}
	defer pack.Close()
	start := time.Now()
	restored, err := storecache.RestoreDrvs(ctx, n, engine.Protocol(n), pack, sum, []string{drv}, nil, storecache.Everything())
	return &restored, time.Since(start), err
}
