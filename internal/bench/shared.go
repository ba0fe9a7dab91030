package main

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const (
	sharedHosts    = 8
	sharedPackages = 4500
	sharedModules  = 9000
	sharedSample   = 2 // hosts that are evaluated alone in a round, in place of all
)

// sharedFlake is a flake with hosts that share a set of packages, as those of one nixpkgs
// do: about 2 s and 300 MB each to evaluate, of which six tenths are in common. The
// configuration of a host is a fixed point of its modules.
const sharedFlake = `{
  outputs = _:
    let
      inherit (builtins) attrValues concatMap concatStringsSep elemAt genList isAttrs isList length listToAttrs mapAttrs toJSON zipAttrsWith;
      number = n: toString (100000 + n);
      packages = listToAttrs (genList
        (n: {
          name = "p${number n}";
          value = derivation {
            name = "p${number n}";
            system = "x86_64-linux";
            builder = "/bin/sh";
            flags = map (f: "--with-${toString f}-of-${number n}") (genList (x: x) 40);
            inputs = if n == 0 then [ ] else map (k: packages."p${number (n / k)}") [ 2 3 5 7 ];
          };
        })
        %[1]d);
      merge = zipAttrsWith (_: values:
        if length values == 1 then elemAt values 0
        else if isList (elemAt values 0) then concatMap (x: x) values
        else if isAttrs (elemAt values 0) then merge values
        else elemAt values (length values - 1));
      resolve = mapAttrs (_: v: if v ? condition then (if v.condition then v.content else { }) else v);
      module = host: n: config: {
        services = {
          condition = n - n / 7 * 7 != 0;
          content."s${number (n / 2)}" = {
            enable = true;
            port = n + host;
            args = map (x: "${toString x}-${toString n}-${toString host}") (genList (x: x) 60);
            user = config.users."u${number n}".name;
          };
        };
        users."u${number n}" = {
          name = "user-${toString n}-${toString host}";
          groups = map (g: "g${toString g}") (genList (x: x) 10);
        };
        environment."f${number n}".text = concatStringsSep "\n" (map (x: "${x} ${toString host}") config.users."u${number n}".groups);
      };
      system = host:
        let
          config = merge (map (m: resolve (m config)) (genList (module host) %[2]d));
        in
        config // {
          system.build.toplevel = derivation {
            name = "nixos-system-${toString host}";
            system = "x86_64-linux";
            builder = "/bin/sh";
            text = map (part: builtins.hashString "sha256" (toJSON part)) (attrValues config);
            packages = attrValues packages;
          };
        };
    in
    {
      nixosConfigurations = listToAttrs (genList (n: { name = "host${toString (100 + n)}"; value.config = system n; }) %[3]d);
    };
}
`

// shared is a discovery of hosts that have much in common.
func (b *bench) shared(ctx context.Context) error {
	flake, err := b.makeFlake("shared", fmt.Sprintf(sharedFlake, sharedPackages, sharedModules, sharedHosts))
	if err != nil {
		return err
	}
	var ours, theirs series
	err = inTurn(rounds, func(int) error {
		env, err := b.fresh()
		if err != nil {
			return err
		}
		m, err := b.meter(ctx, nil, append(env, "NIX_CONFIG=substituters =\n"), b.program, "discover", flake+"#nixosConfigurations", "--cache", "dir:"+filepath.Join(b.dir, "home", "cache"))
		if err != nil {
			return err
		}
		entries, err := matrix(m.stdout)
		if err == nil && len(entries) != sharedHosts {
			err = fmt.Errorf("discover found %d hosts", len(entries))
		}
		ours = append(ours, m)
		return err
	}, func(i int) error {
		env, err := b.fresh()
		if err != nil {
			return err
		}
		sum := &metered{}
		for n := range sharedSample {
			host := 100 + (sharedSample*i+n)%sharedHosts
			m, err := b.meter(ctx, nil, env, "nix", "eval", "--raw", fmt.Sprintf("%s#nixosConfigurations.host%d.config.system.build.toplevel.drvPath", flake, host))
			if err != nil {
				return err
			}
			sum.Took += m.Took * sharedHosts / sharedSample
			sum.CPU += m.CPU * sharedHosts / sharedSample
			sum.Peak = max(sum.Peak, m.Peak)
		}
		theirs = append(theirs, sum)
		return nil
	})
	if err != nil {
		return err
	}
	against := fmt.Sprintf("one process for each host, one after another (%d of %d, times %d)", sharedSample, sharedHosts, sharedHosts/sharedSample)
	const what = "all of discover for 8 hosts of 2 s and 300 MB, of which 60 % are in common"
	share := func(what string, ours, theirs []time.Duration, most float64) {
		part := median(ours).Seconds() / median(theirs).Seconds()
		b.rows = append(b.rows, row{
			Work: what, Against: against,
			Value: fmt.Sprintf("%s against %s, %.2f of it", seconds(median(ours)), seconds(median(theirs)), part),
			Goal:  fmt.Sprintf("≤ %.1f of it", most), Met: part <= most,
		})
	}
	share(what+": processor time", ours.cpu(), theirs.cpu(), 0.9)
	if runtime.NumCPU() > 1 {
		share(what+": time, on two free cores", ours.took(), theirs.took(), 0.6)
	}
	times := float64(ours.peak()) / float64(theirs.peak())
	b.rows = append(b.rows, row{
		Work: what + ": memory of the largest evaluator", Against: "one host's",
		Value: fmt.Sprintf("%s against %s, %.2f times", mebibytes(ours.peak()), mebibytes(theirs.peak()), times),
		Goal:  "≤ 2 times", Met: times <= 2,
	})
	return os.RemoveAll(filepath.Join(b.dir, "shared"))
}

const (
	askedHosts = 25
	askedEach  = 54 // derivations that a host has for itself, with its own
)

// askedFlake is a flake with hosts that share nothing.
const askedFlake = `{
  outputs = _:
    let
      drv = name: inputs: derivation { inherit name inputs; system = "x86_64-linux"; builder = "/bin/sh"; };
      numbers = builtins.genList toString;
    in
    {
      nixosConfigurations = builtins.listToAttrs (map
        (n: { name = "host${n}"; value.config.system.build.toplevel = drv "nixos-system-host${n}" (map (i: drv "part-${n}-${i}" [ ]) (numbers (%d - 1))); })
        (numbers %d));
    };
}
`

// asked is a rerun of an unchanged commit, whose derivations are looked for in a binary
// cache that has none of them.
func (b *bench) asked(ctx context.Context) error {
	dir := filepath.Join(b.dir, "asked")
	if _, err := b.makeFlake("asked", fmt.Sprintf(askedFlake, askedEach, askedHosts)); err != nil {
		return err
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "-qm", "bench"}} {
		if _, err := b.run(ctx, dir, nil, "git", args...); err != nil {
			return err
		}
	}
	server := httptest.NewServer(narinfos(missingDelay, nil, nil))
	defer server.Close()
	var again []time.Duration
	for i := range turns(rounds + 1) {
		env, err := b.fresh()
		if err != nil {
			return err
		}
		ran, err := b.run(ctx, dir, append(env, "NIX_CONFIG=substituters = "+server.URL+"?trusted=1\n"), b.program, "discover", ".#nixosConfigurations", "--cache", "dir:"+filepath.Join(b.dir, "asked-cache"))
		if err != nil {
			return err
		}
		if want := fmt.Sprintf("%d derivations to build", askedHosts*askedEach); !strings.Contains(ran.stderr, want) {
			return fmt.Errorf("discover found something else than %s:\n%s", want, ran.stderr)
		}
		if i == 0 {
			continue // the first one evaluates
		}
		if !strings.Contains(ran.stderr, "nothing has changed") {
			return errors.New("it evaluates again:\n" + ran.stderr)
		}
		again = append(again, ran.took)
	}
	b.rows = append(b.rows, row{
		Work: "discover of an unchanged commit on an empty machine, 1,350 derivations to ask about, a cache that answers after 20 ms", Against: "–",
		Value: seconds(median(again)), Goal: "≤ 1.5 s", Met: median(again) <= 1500*time.Millisecond,
	})
	return os.RemoveAll(dir)
}
