package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// steps are derivations that sleep for half a second, a number of them and one
// that needs them all. The seed makes them new.
const steps = `let
  sleep = name: more: derivation ({
    inherit name;
    seed = %q;
    system = builtins.currentSystem;
    PATH = "/usr/bin:/bin";
    builder = "/bin/sh";
    args = [ "-c" "echo $name begins; sleep 0.5; echo $name ends; echo $seed >$out" ];
  } // more);
in
{ all = sleep "all" { steps = map (n: sleep "step-${toString n}" { }) (builtins.genList (n: n) %d); }; }
`

// builtSteps is how many there are.
const builtSteps = 20

// overhead is what a build takes longer with us than with nix-store alone. Both
// have the derivations, each in a store of its own.
func (b *bench) overhead(ctx context.Context) error {
	var ours, theirs []time.Duration
	file := filepath.Join(b.dir, "steps.nix")
	cache := "dir:" + filepath.Join(b.dir, "steps-cache")
	for i := range turns(rounds) {
		if err := os.WriteFile(file, fmt.Appendf(nil, steps, fmt.Sprint(i), builtSteps-1), 0o644); err != nil {
			return err
		}
		env, err := b.fresh()
		if err != nil {
			return err
		}
		found, err := b.run(ctx, b.dir, env, b.program, "discover", "-f", file, "--cache", cache)
		if err != nil {
			return err
		}
		entries, err := matrix(found.stdout)
		if err != nil {
			return err
		}
		if len(entries) != 1 {
			return fmt.Errorf("discover found %d entries", len(entries))
		}
		build := func() error {
			result := filepath.Join(b.dir, "result.json")
			ran, err := b.run(ctx, b.dir, env, b.program, "build", "--job", entries[0].job, "--cache", cache, "--result", result)
			if err != nil {
				return err
			}
			n, err := builds(result)
			if err == nil && n != builtSteps {
				err = fmt.Errorf("ours built %d derivations:\n%s", n, ran.stderr)
			}
			ours = append(ours, ran.took)
			return err
		}
		realise := func() error {
			ran, err := b.run(ctx, b.dir, env, "nix-store", "--realise", entries[0].Drv)
			if err != nil {
				return err
			}
			if n := len(building.FindAllString(ran.stderr, -1)); n != builtSteps {
				return fmt.Errorf("nix-store built %d derivations:\n%s", n, ran.stderr)
			}
			theirs = append(theirs, ran.took)
			return nil
		}
		both := []func() error{build, realise}
		if i%2 == 1 {
			both[0], both[1] = both[1], both[0]
		}
		for _, one := range both {
			if err := b.copyStore(ctx, "fresh", "steps"); err != nil {
				return err
			}
			if err := one(); err != nil {
				return err
			}
		}
	}
	o, t := median(ours), median(theirs)
	more := o - t
	percent := 100 * more.Seconds() / t.Seconds()
	b.rows = append(b.rows, row{
		Work:    fmt.Sprintf("nix-matrix build of %d derivations that sleep for half a second, all of them in the store", builtSteps),
		Against: "nix-store --realise",
		Value:   fmt.Sprintf("%s against %s, %+.2f s, %+.1f %%", seconds(o), seconds(t), more.Seconds(), percent),
		Goal:    "≤ +3 % or ≤ +0.3 s", Met: percent <= 3 || more <= 300*time.Millisecond,
	})
	return nil
}

// copyStore makes /nix a copy of another store.
func (b *bench) copyStore(ctx context.Context, from, to string) error {
	b.leaveStore()
	copied := filepath.Join(b.dir, to)
	if err := os.RemoveAll(copied); err != nil {
		return err
	}
	if _, err := b.run(ctx, b.dir, nil, "cp", "-a", filepath.Join(b.dir, from), copied); err != nil {
		return err
	}
	return b.useStore(to)
}
