package main

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	questionHosts = 10
	questionLibs  = 2000
	questionDelay = 30 * time.Millisecond
)

// questionFlake is a flake with hosts of which a part is new, in several layers, and whose
// packages, which refer to each other, are in a binary cache. So are the tools that built
// them, of which nobody has to know.
const questionFlake = `{
  outputs = _:
    let
      inherit (builtins) elemAt genList listToAttrs;
      drv = name: inputs: derivation { inherit name inputs; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "exit 1" ]; };
      tools = genList (n: drv "tool-${toString n}" (if n == 0 then [ ] else [ (elemAt tools (n / 2)) ])) 400;
      libs = genList (n: drv "cached-${toString n}-lib" [ (elemAt tools (n / 5)) ]) %[1]d;
      layer = host: n: genList
        (i: drv "new-${host}-${toString n}-${toString i}" (genList (k: elemAt libs (200 * n + 20 * i + k)) 20 ++ (if n == 0 then [ ] else [ (elemAt (layer host (n - 1)) i) ])))
        10;
    in
    {
      nixosConfigurations = listToAttrs (genList
        (n: { name = "host${toString n}"; value.config.system.build.toplevel = drv "nixos-system-host${toString n}" (layer (toString n) 7); })
        %[2]d);
    };
}
`

// questions is how often a binary cache is asked what it has.
func (b *bench) questions(ctx context.Context) error {
	flake, err := b.makeFlake("questions", fmt.Sprintf(questionFlake, questionLibs, questionHosts))
	if err != nil {
		return err
	}
	env, err := b.fresh()
	if err != nil {
		return err
	}
	cache := "dir:" + filepath.Join(b.dir, "questions-cache")
	found, err := b.run(ctx, b.dir, env, b.program, "discover", flake, "--cache", cache)
	if err != nil {
		return err
	}
	entries, err := matrix(found.stdout)
	if err != nil {
		return err
	}
	var hosts []string
	for _, entry := range entries {
		hosts = append(hosts, entry.Drv)
	}
	outputs, err := b.run(ctx, b.dir, env, "sh", "-c", "nix-store --query --outputs /nix/store/*-cached-*.drv")
	if err != nil {
		return err
	}
	libs := map[string]string{}
	for _, path := range strings.Fields(outputs.stdout) {
		_, name, _ := strings.Cut(filepath.Base(path), "-cached-")
		libs[strings.TrimSuffix(name, "-lib")] = path
	}
	offered := map[string]string{}
	for number, path := range libs {
		var n int
		if _, err := fmt.Sscan(number, &n); err != nil {
			return err
		}
		if offered[path] = ""; n > 0 {
			offered[path] = filepath.Base(libs[fmt.Sprint(n/2)])
		}
	}
	asked := &inquiry{}
	server := httptest.NewServer(narinfos(questionDelay, offered, asked))
	defer server.Close()

	var ours, theirs []time.Duration
	var oursAsked, theirsAsked int
	measure := func(to *[]time.Duration, questions *int, want string, name string, args ...string) error {
		_ = os.RemoveAll(filepath.Join(b.dir, "home")) // nothing is remembered
		asked.questions = 0
		ran, err := b.run(ctx, b.dir, append(env, "NIX_CONFIG=substituters = "+server.URL+"?trusted=1\n"), name, args...)
		if err != nil {
			return err
		}
		if !strings.Contains(ran.stderr, want) {
			return errors.New("this has found something else than " + want + ":\n" + ran.stderr)
		}
		*to, *questions = append(*to, asked.last.Sub(asked.first)+questionDelay), asked.questions
		return nil
	}
	build := questionHosts * 81
	err = inTurn(rounds, func(int) error {
		return measure(&ours, &oursAsked, fmt.Sprintf("%d derivations to build", build), b.program, "discover", flake, "--cache", cache)
	}, func(int) error {
		return measure(&theirs, &theirsAsked, fmt.Sprintf("these %d derivations will be built", build), "nix-store", append([]string{"--realise", "--dry-run"}, hosts...)...)
	})
	if err != nil {
		return err
	}
	const what = "a binary cache that answers after 30 ms is asked about 10 hosts with 810 new derivations and 1,600 packages: "
	const against = "one dry run of Nix"
	times := median(ours).Seconds() / median(theirs).Seconds()
	more := float64(oursAsked) / float64(theirsAsked)
	b.rows = append(b.rows, row{
		Work: what + "questions", Against: against,
		Value: fmt.Sprintf("%d against %d, %.2f times", oursAsked, theirsAsked, more), Goal: "≤ 1.1 times", Met: more <= 1.1,
	}, row{
		Work: what + "time from the first to the last", Against: against,
		Value: fmt.Sprintf("%s against %s, %.2f times", seconds(median(ours)), seconds(median(theirs)), times), Goal: "≤ 1.2 times", Met: times <= 1.2,
	})
	return os.RemoveAll(filepath.Join(b.dir, "questions"))
}
