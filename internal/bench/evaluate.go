package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/org/nix-matrix/pkg/evaluate"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

const (
	abortAttrs    = 400
	abortSample   = 10 // attributes that are evaluated alone, in place of all
	separateHosts = 16
	separateEach  = 2 * time.Second // of a processor
	hostsSample   = 4
)

// aborting is a flake with packages, of which the last ones replace as many.
const aborting = `{
  outputs = _:
    let
      fib = n: if n < 2 then n else fib (n - 1) + fib (n - 2);
      drv = name: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; } // more);
      base = builtins.genList (n: drv "base-${toString n}" { n = fib 16; }) 40;
      package = name: drv name { inherit base; n = fib 16; };
      name = n: "p${builtins.substring 1 3 (toString (1000 + n))}";
    in
    {
      packages.x86_64-linux = builtins.listToAttrs (builtins.genList (n: { name = name n; value = package (name n); }) %d) // %s;
    };
}
`

// The good ones alone, and three that end an evaluator.
const (
	noAbort    = `builtins.listToAttrs [ ]`
	threeAbort = `{ p100 = (({ missing }: package missing) { }); p200 = let x = x; in x; p300 = builtins.abort "stop here"; }`
)

// separate is a flake with hosts that have nothing in common.
const separate = `{
  outputs = _: {
    nixosConfigurations = builtins.listToAttrs (builtins.genList
      (n: {
        name = "host${toString (100 + n)}";
        value.config.system.build.toplevel = derivation {
          name = "nixos-system-${toString n}";
          text = import ./work.nix %d n;
          system = "x86_64-linux";
          builder = "/bin/sh";
        };
      })
      %d);
  };
}
`

// makeFlake writes a flake, and gives the reference to it.
func (b *bench) makeFlake(name, text string) (string, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	return "path:" + dir, os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(text), 0o644)
}

// runDiscovery evaluates a flake as the command does. The store is an empty one.
func (b *bench) runDiscovery(ctx context.Context, n *nix.Nix, flake string, attrs, failed int) (time.Duration, error) {
	if _, err := b.fresh(); err != nil {
		return 0, err
	}
	start := time.Now()
	found, err := evaluate.Run(ctx, n, evaluate.Options{Installables: []string{flake}, Systems: []string{n.System}, System: n.System})
	took := time.Since(start)
	if err != nil {
		return 0, err
	}
	states := map[job.State]int{}
	for _, t := range found.Targets {
		states[t.State]++
	}
	if states[job.StateBuild] != attrs-failed || states[job.StateFailed] != failed {
		return 0, fmt.Errorf("discovery of %s found %v", flake, states)
	}
	return took, nil
}

// each evaluates attributes, a process for each. The store is an empty one.
func (b *bench) each(ctx context.Context, attrs []string) (time.Duration, error) {
	env, err := b.fresh()
	if err != nil {
		return 0, err
	}
	var took time.Duration
	for _, attr := range attrs {
		ran, err := b.run(ctx, b.dir, env, "nix", "eval", "--raw", attr+".drvPath")
		if err != nil {
			return 0, err
		}
		took += ran.took
	}
	return took, nil
}

// aborts is the evaluation alone, by the package that discover uses for it.
func (b *bench) aborts(ctx context.Context) error {
	n, err := nix.Find(ctx, os.Stderr, nix.Config{})
	if err != nil {
		return err
	}
	bad, err := b.makeFlake("aborting", fmt.Sprintf(aborting, abortAttrs, threeAbort))
	if err != nil {
		return err
	}
	good, err := b.makeFlake("good", fmt.Sprintf(aborting, abortAttrs, noAbort))
	if err != nil {
		return err
	}
	var ours, each, one []time.Duration
	attrs := make([]string, abortSample)
	for i := range attrs {
		attrs[i] = fmt.Sprintf("%s#packages.x86_64-linux.p%03d", good, i*abortAttrs/abortSample)
	}
	for range turns(rounds) {
		took, err := b.runDiscovery(ctx, n, bad, abortAttrs, 3)
		if err != nil {
			return err
		}
		ours = append(ours, took)
		if took, err = b.each(ctx, attrs); err != nil {
			return err
		}
		each = append(each, took*abortAttrs/abortSample)
		env, err := b.fresh()
		if err != nil {
			return err
		}
		ran, err := b.run(ctx, b.dir, env, "nix", "eval", "--json", good+"#packages.x86_64-linux", "--apply", "builtins.mapAttrs (_: p: p.drvPath)")
		if err != nil {
			return err
		}
		one = append(one, ran.took)
	}
	const what = "evaluation of 400 attributes, 3 of which abort"
	value, times := faster(ours, each)
	b.rows = append(b.rows, row{
		Work: what, Against: fmt.Sprintf("one process per attribute (%d of 400, times %d)", abortSample, abortAttrs/abortSample),
		Value: value, Goal: "≥ 20×", Met: times >= 20,
	})
	share := median(ours).Seconds() / median(one).Seconds()
	b.rows = append(b.rows, row{
		Work: what, Against: "one process that evaluates 400 good ones alone",
		Value: fmt.Sprintf("%s against %s, %.2f of its time", seconds(median(ours)), seconds(median(one)), share),
		Goal:  "≤ 1.3 of its time", Met: share <= 1.3,
	})
	return nil
}

// separate is the evaluation of what has nothing in common.
func (b *bench) separate(ctx context.Context) error {
	n, err := nix.Find(ctx, os.Stderr, nix.Config{})
	if err != nil {
		return err
	}
	env, err := b.fresh()
	if err != nil {
		return err
	}
	flake, err := b.makeFlake("separate", "")
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "separate")
	times, err := b.writeWork(ctx, dir, env, separateEach)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), fmt.Appendf(nil, separate, times, separateHosts), 0o644); err != nil {
		return err
	}
	attrs := make([]string, hostsSample)
	for i := range attrs {
		attrs[i] = fmt.Sprintf("%s#nixosConfigurations.host%d.config.system.build.toplevel", flake, 100+i*separateHosts/hostsSample)
	}
	var ours, theirs []time.Duration
	err = inTurn(rounds, func(int) error {
		took, err := b.runDiscovery(ctx, n, flake, separateHosts, 0)
		ours = append(ours, took)
		return err
	}, func(int) error {
		took, err := b.each(ctx, attrs)
		theirs = append(theirs, took*separateHosts/hostsSample)
		return err
	})
	if err != nil {
		return err
	}
	value, faster := faster(ours, theirs)
	b.rows = append(b.rows, row{
		Work:    "evaluation of 16 hosts that take 2 s each and have nothing in common",
		Against: fmt.Sprintf("one process after another (%d of 16, times %d)", hostsSample, separateHosts/hostsSample),
		Value:   value, Goal: "≥ 1.7×", Met: faster >= 1.7,
	})
	return nil
}
