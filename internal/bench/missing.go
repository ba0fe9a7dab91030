package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	missingHosts  = 50
	missingCommon = 5000 // derivations that all hosts need
	missingDelay  = 20 * time.Millisecond
	missingSample = 2 // hosts that are measured in a round, in place of all
)

// farm is a flake with hosts. What they have in common is in groups of a hundred,
// which nobody offers, of what is in the binary cache.
const farm = `{
  outputs = _:
    let
      drv = name: inputs: derivation { inherit name inputs; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "exit 1" ]; };
      numbers = builtins.genList (n: toString n);
      groups = map (group: drv "group-${group}" (map (n: drv "cached-${group}-${n}" [ ]) (numbers 99))) (numbers (%d / 100));
    in
    {
      nixosConfigurations = builtins.listToAttrs (map
        (n: { name = "host${n}"; value.config.system.build.toplevel = drv "nixos-system-host${n}" groups; })
        (numbers %d));
    };
}
`

// missing is finding out what is missing and what can be fetched.
func (b *bench) missing(ctx context.Context) error {
	dir := filepath.Join(b.dir, "farm")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), fmt.Appendf(nil, farm, missingCommon, missingHosts), 0o644); err != nil {
		return err
	}
	env, err := b.fresh()
	if err != nil {
		return err
	}
	cache := "dir:" + filepath.Join(b.dir, "farm-cache")
	found, err := b.run(ctx, dir, env, b.program, "discover", "--cache", cache)
	if err != nil {
		return err
	}
	entries, err := matrix(found.stdout)
	if err != nil {
		return err
	}
	if len(entries) != missingHosts {
		return fmt.Errorf("discover found %d hosts", len(entries))
	}
	outputs, err := b.run(ctx, dir, env, "sh", "-c", "nix-store --query --outputs /nix/store/*-cached-*.drv")
	if err != nil {
		return err
	}
	server := httptest.NewServer(narinfos(missingDelay, withoutReferences(strings.Fields(outputs.stdout)), nil))
	defer server.Close()

	var ours, theirs []time.Duration
	// Nothing is remembered of what the cache has said.
	forget := func() []string {
		_ = os.RemoveAll(filepath.Join(b.dir, "home"))
		return append(env, "NIX_CONFIG=substituters = "+server.URL+"?trusted=1\n")
	}
	err = inTurn(rounds, func(int) error {
		ran, err := b.run(ctx, dir, forget(), b.program, "discover", "--cache", cache)
		if err != nil {
			return err
		}
		if want := fmt.Sprintf("%d derivations to build", missingHosts+missingCommon/100); !strings.Contains(ran.stderr, want) {
			return fmt.Errorf("discover found something else than %s:\n%s", want, ran.stderr)
		}
		ours = append(ours, ran.took)
		return nil
	}, func(i int) error {
		var took time.Duration
		for n := range missingSample {
			host := entries[(missingSample*i+n)%len(entries)]
			ran, err := b.run(ctx, dir, forget(), "nix", "build", "--dry-run", host.Drv+"^*")
			if err != nil {
				return err
			}
			if want := fmt.Sprintf("%d paths will be fetched", missingCommon-missingCommon/100); !strings.Contains(ran.stderr, want) {
				return errors.New("nix build found something else than " + want)
			}
			took += ran.took
		}
		theirs = append(theirs, took*missingHosts/missingSample)
		return nil
	})
	if err != nil {
		return err
	}
	value, times := faster(ours, theirs)
	b.rows = append(b.rows, row{
		Work:    "missing and fetchable for 50 hosts with 5,000 derivations in common, a cache that answers after 20 ms: all of discover, the evaluation too",
		Against: fmt.Sprintf("nix build --dry-run of each host's derivation, one after another (%d of 50, times %d)", missingSample, missingHosts/missingSample),
		Value:   value, Goal: "≥ 5×", Met: times >= 5,
	})
	return nil
}

func withoutReferences(paths []string) map[string]string {
	all := map[string]string{}
	for _, path := range paths {
		all[path] = ""
	}
	return all
}

// inquiry is what a binary cache was asked.
type inquiry struct {
	sync.Mutex
	questions   int
	first, last time.Time
}

func (q *inquiry) note() {
	q.Lock()
	defer q.Unlock()
	if q.last = time.Now(); q.questions == 0 {
		q.first = q.last
	}
	q.questions++
}

// narinfos is a binary cache that has paths, given with the names of what they refer to. It
// answers after a while, and notes the questions.
func narinfos(delay time.Duration, paths map[string]string, asked *inquiry) http.Handler {
	all := map[string]string{}
	for path, references := range paths {
		hash, _, _ := strings.Cut(filepath.Base(path), "-")
		all["/"+hash+".narinfo"] = fmt.Sprintf("StorePath: %s\nURL: nar/%s.nar\nCompression: none\nNarHash: sha256:%052d\nNarSize: 1000\nReferences: %s\n", path, hash, 0, references)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked != nil {
			asked.note()
		}
		time.Sleep(delay)
		switch info, ok := all[r.URL.Path]; {
		case ok:
			_, _ = fmt.Fprint(w, info)
		case r.URL.Path == "/nix-cache-info":
			_, _ = fmt.Fprint(w, "StoreDir: /nix/store\n")
		default:
			http.NotFound(w, r)
		}
	})
}
