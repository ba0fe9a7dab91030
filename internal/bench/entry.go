package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// evaluation is how much of a processor's time the evaluation of a host takes.
const evaluation = 3 * time.Second

// slowBase takes the place of a module that all hosts have: it is that module,
// and a file in /etc that takes work to evaluate.
const slowBase = `args@{ config, ... }:
let
  base = import ./quick-base.nix args;
  work = import ./work.nix %d (builtins.stringLength config.networking.hostName);
in
base // { environment = base.environment // { etc = base.environment.etc // { work.text = work; }; }; }
`

// work is a thousand additions and as many calls, n times.
const work = `n: seed:
let
  thousand = builtins.genList (i: i) 1000;
  add = sum: i: builtins.foldl' (sum: j: builtins.bitAnd (sum + i * j) 65535) sum thousand;
in
toString (builtins.foldl' add seed (builtins.genList (i: i) n))
`

// entry is one host of a fleet that is slow to evaluate. All is in the binary
// cache but the system itself, a small file.
func (b *bench) entry(ctx context.Context) error {
	f := &fleet{
		bench: b, dir: filepath.Join(b.dir, "fleet"), cache: filepath.Join(b.dir, "fleet-cache"),
		conf: "NIX_CONFIG=extra-platforms = aarch64-linux\n",
	}
	if err := f.slow(ctx); err != nil {
		return err
	}
	binaryCache := filepath.Join(b.dir, "fleet-binary-cache")
	if err := f.fill(ctx, binaryCache); err != nil {
		return err
	}
	server := httptest.NewServer(http.FileServer(http.Dir(binaryCache)))
	defer server.Close()
	f.conf += "substituters = " + server.URL + "?trusted=1\n" +
		"always-allow-substitutes = true\n" // the small files of a system too

	var discovers, ours, theirs []time.Duration
	var oursAll, theirsAll []time.Duration // of four hosts
	for range turns(rounds) {
		took, entries, err := f.discover(ctx)
		if err != nil {
			return err
		}
		discovers = append(discovers, took)
		err = inTurn(len(entries), func(i int) error {
			took, err := f.build(ctx, entries[i])
			ours = append(ours, took)
			return err
		}, func(i int) error {
			took, err := f.nixBuild(ctx, entries[i].Host)
			theirs = append(theirs, took)
			return err
		})
		if err != nil {
			return err
		}
		oursAll = append(oursAll, took+sum(ours[len(ours)-len(entries):]))
		theirsAll = append(theirsAll, sum(theirs[len(theirs)-len(entries):]))
	}
	value, times := faster(ours, theirs)
	all, _ := faster(oursAll, theirsAll)
	b.rows = append(b.rows, row{
		Work:    "nix-matrix build of a host in a fresh store, all cached but a small derivation; its evaluation, which takes 3 s, was done before, by discover",
		Against: "nix build of the host, fresh too",
		Value:   value, Goal: "≥ 3×", Met: times >= 3,
	}, row{
		Work:    "the same for all 4 hosts, one after another, and discover before",
		Against: "4 times nix build",
		Value:   fmt.Sprintf("%s (discover alone %s)", all, seconds(median(discovers))), Goal: "–", Met: true,
	})
	return nil
}

func sum(all []time.Duration) (total time.Duration) {
	for _, d := range all {
		total += d
	}
	return total
}

// A fleet is a copy of the example.
type fleet struct {
	*bench
	dir   string
	cache string // ours
	conf  string // of Nix, for everything
}

// slow makes the evaluation of a host take so long.
func (f *fleet) slow(ctx context.Context) error {
	if err := os.CopyFS(f.dir, os.DirFS("examples/fleet")); err != nil {
		return err
	}
	modules := filepath.Join(f.dir, "modules")
	env, err := f.fresh()
	if err != nil {
		return err
	}
	n, err := f.writeWork(ctx, modules, env, evaluation)
	if err != nil {
		return err
	}
	base := filepath.Join(modules, "base.nix")
	if err := os.Rename(base, filepath.Join(modules, "quick-base.nix")); err != nil {
		return err
	}
	return os.WriteFile(base, fmt.Appendf(nil, slowBase, n), 0o644)
}

// writeWork writes work.nix, and gives the number for which it takes so much of a
// processor's time.
func (b *bench) writeWork(ctx context.Context, dir string, env []string, cpu time.Duration) (int, error) {
	if err := os.WriteFile(filepath.Join(dir, "work.nix"), []byte(work), 0o644); err != nil {
		return 0, err
	}
	const probe = 5000
	ran, err := b.run(ctx, dir, env, "nix-instantiate", "--eval", "--expr", fmt.Sprintf("import ./work.nix %d 0", probe))
	if err != nil {
		return 0, err
	}
	return int(probe * cpu.Seconds() / ran.cpu.Seconds()), nil
}

func toplevel(host string) string {
	return ".#nixosConfigurations." + host + ".config.system.build.toplevel"
}

// fill builds the hosts, and puts all into the binary cache but themselves.
func (f *fleet) fill(ctx context.Context, binaryCache string) error {
	env, err := f.fresh()
	if err != nil {
		return err
	}
	env = append(env, f.conf)
	built, err := f.run(ctx, f.dir, env, "nix", "build", "--no-link", "--print-out-paths",
		toplevel("nixsl"), toplevel("hetzner"), toplevel("notado"), toplevel("pi3"))
	if err != nil {
		return err
	}
	parts, err := f.run(ctx, f.dir, env, "nix-store", append([]string{"--query", "--references"}, strings.Fields(built.stdout)...)...)
	if err != nil {
		return err
	}
	_, err = f.run(ctx, f.dir, env, "nix", append([]string{"copy", "--to", "file://" + binaryCache + "?compression=zstd"}, strings.Fields(parts.stdout)...)...)
	return err
}

// An entry is a row of the matrix.
type entry struct {
	Host string `json:"host"`
	Drv  string `json:"drvPath"`
	job  string
}

// matrix reads what discover prints.
func matrix(stdout string) ([]entry, error) {
	var m struct {
		Include []json.RawMessage `json:"include"`
	}
	if err := json.Unmarshal([]byte(stdout), &m); err != nil {
		return nil, err
	}
	entries := make([]entry, len(m.Include))
	for i, raw := range m.Include {
		if err := json.Unmarshal(raw, &entries[i]); err != nil {
			return nil, err
		}
		entries[i].job = string(raw)
	}
	return entries, nil
}

func (f *fleet) discover(ctx context.Context) (time.Duration, []entry, error) {
	env, err := f.fresh()
	if err != nil {
		return 0, nil, err
	}
	if err := os.RemoveAll(f.cache); err != nil {
		return 0, nil, err
	}
	ran, err := f.run(ctx, f.dir, append(env, f.conf), f.program, "discover", ".#nixosConfigurations", "--cache", "dir:"+f.cache)
	if err != nil {
		return 0, nil, err
	}
	entries, err := matrix(ran.stdout)
	if err == nil && len(entries) != 4 {
		err = fmt.Errorf("discover found %d hosts: %s", len(entries), ran.stdout)
	}
	return ran.took, entries, err
}

// build is what a job does with an entry: it has no checkout.
func (f *fleet) build(ctx context.Context, e entry) (time.Duration, error) {
	env, err := f.fresh()
	if err != nil {
		return 0, err
	}
	result := filepath.Join(f.bench.dir, "result.json")
	ran, err := f.run(ctx, f.bench.dir, append(env, f.conf), f.program, "build", "--job", e.job, "--cache", "dir:"+f.cache, "--result", result)
	if err != nil {
		return 0, err
	}
	builds, err := builds(result)
	if err == nil && builds != 1 {
		err = fmt.Errorf("ours built %d derivations:\n%s", builds, ran.stderr)
	}
	return ran.took, err
}

// builds counts the derivations that a Result says were built.
func builds(file string) (int, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var result struct {
		Builds []json.RawMessage `json:"builds"`
	}
	err = json.Unmarshal(data, &result)
	return len(result.Builds), err
}

func (f *fleet) nixBuild(ctx context.Context, host string) (time.Duration, error) {
	env, err := f.fresh()
	if err != nil {
		return 0, err
	}
	ran, err := f.run(ctx, f.dir, append(env, f.conf), "nix", "build", "--no-link", toplevel(host))
	if err != nil {
		return 0, err
	}
	if n := len(building.FindAllString(ran.stderr, -1)); n != 1 {
		return 0, fmt.Errorf("nix built %d derivations:\n%s", n, ran.stderr)
	}
	return ran.took, nil
}

var building = regexp.MustCompile(`(?m)^building '`)
