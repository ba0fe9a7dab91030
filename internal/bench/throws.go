package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/org/nix-matrix/pkg/nix"
)

const throwAttrs = 5000

// throwingSet is a flake with so many packages, of which so many in a hundred are replaced
// by a value.
const throwingSet = `{
  outputs = _:
    let
      fib = n: if n < 2 then n else fib (n - 1) + fib (n - 2);
      drv = name: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; } // more);
      base = builtins.genList (n: drv "base-${toString n}" { n = fib 16; }) 40;
      name = n: "p${toString (10000 + n)}";
      rest = n: n - n / 100 * 100;
    in
    {
      packages.x86_64-linux = builtins.listToAttrs (builtins.genList
        (n: { name = name n; value = if rest (n * 37) < %[2]d then %[3]s else drv (name n) { inherit base; n = fib 14; }; })
        %[1]d);
    };
}
`

// throws is the evaluation of sets with packages that throw, in processor time.
func (b *bench) throws(ctx context.Context) error {
	n, err := nix.Find(ctx, os.Stderr, nix.Config{})
	if err != nil {
		return err
	}
	for _, test := range []struct {
		percent int
		goal    float64
	}{{3, 1.5}, {30, 3}} {
		failed := throwAttrs * test.percent / 100
		bad, err := b.makeFlake(fmt.Sprintf("throws-%d", test.percent), fmt.Sprintf(throwingSet, throwAttrs, test.percent, `throw "${name n} is gone"`))
		if err != nil {
			return err
		}
		good, err := b.makeFlake(fmt.Sprintf("throws-not-%d", test.percent), fmt.Sprintf(throwingSet, throwAttrs, test.percent, "null"))
		if err != nil {
			return err
		}
		var ours, theirs []time.Duration
		err = inTurn(rounds, func(int) error {
			used, err := processorTime(func() error {
				_, err := b.runDiscovery(ctx, n, bad, throwAttrs, failed)
				return err
			})
			ours = append(ours, used)
			return err
		}, func(int) error {
			env, err := b.fresh()
			if err != nil {
				return err
			}
			ran, err := b.run(ctx, b.dir, env, "nix", "eval", "--json", good+"#packages.x86_64-linux", "--apply", "builtins.mapAttrs (_: p: p.drvPath or null)")
			if err != nil {
				return err
			}
			theirs = append(theirs, ran.cpu)
			return nil
		})
		if err != nil {
			return err
		}
		share := median(ours).Seconds() / median(theirs).Seconds()
		b.rows = append(b.rows, row{
			Work:    fmt.Sprintf("evaluation of 5,000 attributes, %d %% of which throw, processor time", test.percent),
			Against: "one process that evaluates the good ones",
			Value:   fmt.Sprintf("%s against %s, %.2f of it", seconds(median(ours)), seconds(median(theirs)), share),
			Goal:    fmt.Sprintf("≤ %.1f of it", test.goal), Met: share <= test.goal,
		})
	}
	return nil
}

// processorTime is what this process and those that it waits for use in a function.
func processorTime(f func() error) (time.Duration, error) {
	before := used()
	err := f()
	return used() - before, err
}

func used() (sum time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			panic(err) // of this process, it is always known
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}
