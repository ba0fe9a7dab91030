package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

// The connection of the jobs to the service: as that of GitHub's runners, but for the latency, which is
// shorter on a machine that has two cores for eight jobs.
const (
	farmDelay = 50 * time.Millisecond
	farmRate  = 20_000_000 // bytes a second and connection
)

// sharedFleet is a flake of twelve hosts with a toolchain, a kernel that needs it, and three services.
// Each has a part and a system of its own. A builder sleeps, and hands over a megabyte.
const sharedFleet = `{
  outputs = _:
    let
      sleep = name: seconds: inputs: derivation {
        inherit name inputs; system = "x86_64-linux"; PATH = "/usr/bin:/bin"; builder = "/bin/sh";
        args = [ "-c" "sleep ${toString seconds}; { echo $inputs; head -c 1000000 /dev/urandom; } >$out" ];
      };
      toolchain = sleep "toolchain" 30 [ ];
      kernel = sleep "kernel" 40 [ toolchain ];
      services = map (name: sleep name 15 [ toolchain ]) [ "web" "mail" "backup" ];
    in
    {
      nixosConfigurations = builtins.listToAttrs (builtins.genList
        (n: let name = "host${toString n}"; in {
          inherit name;
          value.config.system.build.toplevel = sleep "nixos-system-${name}" 2 ([ kernel (sleep "own-${name}" 4 [ ]) ] ++ services);
        })
        12);
    };
}
`

const (
	onceHosts = 12
	onceJobs  = 8
	onceChain = 30 + 40 + 2.0
	onceWork  = 30 + 40 + 3*15 + onceHosts*(4+2.0)
)

// once is hosts that share much, whose jobs run at the same time.
func (b *bench) once(ctx context.Context) error {
	f, err := b.farm(ctx, "once", sharedFleet)
	if err != nil {
		return err
	}
	defer f.close()
	run, err := f.run(ctx, onceJobs)
	if err != nil {
		return err
	}
	over := run.shared.BuildSeconds / run.shared.UniqueSeconds
	bound := max(onceChain, onceWork/onceJobs)
	b.rows = append(b.rows, row{
		Work: "12 hosts with a toolchain, a kernel and three services in common, 8 jobs at a time: seconds of builders", Against: "each derivation once",
		Value: fmt.Sprintf("%.1f s against %.1f s, %.2f×; %d builds", run.shared.BuildSeconds, run.shared.UniqueSeconds, over, run.builds), Goal: "≤ 1.05×",
		Met: over <= 1.05 && run.builds == 5+2*onceHosts,
	}, row{
		Work: "… the time of the run", Against: "the lower bound: the longest chain, or the work divided by the jobs",
		Value: fmt.Sprintf("%s against %.0f s, %.2f×", seconds(run.took), bound, run.took.Seconds()/bound), Goal: "≤ 1.25×", Met: run.took.Seconds() <= 1.25*bound,
	}, row{
		Work: "… creations in the cache in a minute, at most", Against: "GitHub's limit of 200",
		Value: fmt.Sprint(run.creations), Goal: "≤ 150", Met: run.creations <= 150,
	})
	return nil
}

// bigHost is a flake of one host with 200 derivations of 1 to 4 s, in layers that need a part of the one
// before.
const bigHost = `{
  outputs = _:
    let
      sleep = name: seconds: inputs: derivation {
        inherit name inputs; system = "x86_64-linux"; PATH = "/usr/bin:/bin"; builder = "/bin/sh";
        args = [ "-c" "sleep ${toString seconds}; { echo $inputs; head -c 100000 /dev/urandom; } >$out" ];
      };
      layer = n: builtins.genList
        (i: sleep "part-${toString n}-${toString i}" (1 + builtins.bitAnd (n + i) 3)
          (if n == 0 then [ ] else [ (builtins.elemAt (layers n) i) (builtins.elemAt (layers n) (if i == 39 then 0 else i + 1)) ]))
        40;
      all = builtins.genList layer 5;
      layers = n: builtins.elemAt all (n - 1);
    in
    {
      nixosConfigurations.host.config.system.build.toplevel = sleep "nixos-system" 1 (builtins.concatLists all);
    };
}
`

// helpers is one host, alone and with seven helpers.
func (b *bench) helpers(ctx context.Context) error {
	const work, chain = 200*2.5 + 1, 5*2.5 + 1
	var took [2]time.Duration
	for i, helpers := range []int{0, onceJobs - 1} {
		f, err := b.farm(ctx, fmt.Sprint("helpers", helpers), bigHost, "--helpers", fmt.Sprint(helpers))
		if err != nil {
			return err
		}
		run, err := f.run(ctx, onceJobs)
		f.close()
		if err != nil {
			return err
		}
		if run.builds != 201 {
			return fmt.Errorf("%d helpers: %d derivations were built", helpers, run.builds)
		}
		took[i] = run.took
	}
	bound := max(chain, work/float64(onceJobs))
	times := took[0].Seconds() / took[1].Seconds()
	b.rows = append(b.rows, row{
		Work: "one host with 200 derivations of 1 to 4 s, with 7 helpers", Against: "without",
		Value: fmt.Sprintf("%s against %s, %.1f×", seconds(took[1]), seconds(took[0]), times), Goal: "≥ 4×", Met: times >= 4,
	}, row{
		Work: "… with 7 helpers", Against: "the lower bound",
		Value: fmt.Sprintf("%s against %.0f s, %.2f×", seconds(took[1]), bound, took[1].Seconds()/bound), Goal: "≤ 1.35×", Met: took[1].Seconds() <= 1.35*bound,
	})
	return nil
}

// machines have stores of their own, and build the entries of one run.
type machines struct {
	*bench
	service *service
	dir     string
	env     []string
	jobs    []entry
	plan    *job.Plan
	key     string
}

// farm discovers a flake.
func (b *bench) farm(ctx context.Context, name, flake string, args ...string) (*machines, error) {
	f := &machines{bench: b, dir: filepath.Join(b.dir, name+"-farm")}
	env, err := b.fresh()
	if err != nil {
		return nil, err
	}
	if f.service, err = b.serve(ctx, name+"-service"); err != nil {
		return nil, err
	}
	f.service.delay.Store(int64(farmDelay))
	f.service.each.Store(farmRate)
	job, err := b.job(f.service)
	if err := errors.Join(err, b.resolve(), os.Mkdir(f.dir, 0o755)); err != nil {
		return nil, err
	}
	f.env = append(append(env, job...), "GITHUB_EVENT_NAME=push")
	dir, err := b.makeFlake(name, flake)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(f.dir, "plan.json")
	found, err := b.run(ctx, b.dir, f.env, b.program, append([]string{"discover", dir, "--plan-out", file}, args...)...)
	if err != nil {
		return nil, err
	}
	if f.jobs, err = matrix(found.stdout); err != nil {
		return nil, err
	}
	return f, f.readPlan(file)
}

func (f *machines) readPlan(file string) error {
	data, err := os.ReadFile(file)
	if err == nil {
		f.plan, err = job.ParsePlan(data)
	}
	if err == nil {
		f.key = job.PlanKey(f.plan.ID, "", data)(0)
	}
	return err
}

func (f *machines) close() {
	f.service.close()
	removeAll(f.dir)
}

// A farmRun is what became of the jobs.
type farmRun struct {
	took      time.Duration
	builds    int
	creations int // most in a minute
	shared    *verdict.Shared
}

// run builds all entries, so many at a time, each on a machine of its own.
func (f *machines) run(ctx context.Context, atOnce int) (*farmRun, error) {
	start := time.Now()
	room := make(chan struct{}, atOnce)
	results, errs := make([]*job.Result, len(f.jobs)), make([]error, len(f.jobs))
	var running sync.WaitGroup
	for i := range f.jobs {
		room <- struct{}{}
		running.Go(func() {
			results[i], errs[i] = f.build(ctx, i)
			<-room
		})
	}
	running.Wait()
	run := &farmRun{took: time.Since(start)}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	v := verdict.Judge(f.plan, f.key, results, nil)
	if v.Status != verdict.Success {
		return nil, fmt.Errorf("the verdict is %s: %s", v.Status, v.Reason)
	}
	for _, r := range results {
		run.builds += len(r.Builds)
	}
	run.shared = v.Shared
	run.creations = mostInAMinute(f.service.creations())
	return run, nil
}

// inStore runs a program with a store of its own: $0 is the directory.
const inStore = `mount --bind "$0/nix" /nix && exec "$@"`

// build builds an entry.
func (f *machines) build(ctx context.Context, i int) (*job.Result, error) {
	dir := filepath.Join(f.dir, fmt.Sprint(i))
	result := filepath.Join(dir, "result.json")
	for _, sub := range []string{"nix", "temp", "home"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	temp := filepath.Join(dir, "temp")
	env := append(slices.Clone(f.env), "TMPDIR="+temp, "RUNNER_TEMP="+temp, "GITHUB_OUTPUT="+filepath.Join(temp, "output"),
		"HOME="+filepath.Join(dir, "home"), "XDG_CACHE_HOME="+filepath.Join(dir, "home"))
	ran, err := f.bench.run(ctx, dir, env, "unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", inStore, dir,
		f.program, "build", "--job", f.jobs[i].job, "--result", result)
	if err != nil {
		return nil, err
	}
	if strings.Contains(ran.stdout+ran.stderr, "::warning") {
		return nil, fmt.Errorf("%s: %s%s", f.plan.Entries[i].Name, ran.stdout, ran.stderr)
	}
	data, err := os.ReadFile(result)
	if err != nil {
		return nil, err
	}
	var r job.Result
	return &r, json.Unmarshal(data, &r)
}

// mostInAMinute returns the most of some times that lie within a minute.
func mostInAMinute(times []time.Time) int {
	slices.SortFunc(times, time.Time.Compare)
	most, first := 0, 0
	for last := range times {
		for times[last].Sub(times[first]) >= time.Minute {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// nothingShared is a flake of hosts that share nothing.
const nothingShared = `{
  outputs = _:
    let
      sleep = name: inputs: derivation {
        inherit name inputs; system = "x86_64-linux"; PATH = "/usr/bin:/bin"; builder = "/bin/sh"; args = [ "-c" "sleep 1; echo $inputs >$out" ];
      };
    in
    {
      nixosConfigurations = builtins.listToAttrs (builtins.genList
        (n: let name = "host${toString n}"; in {
          inherit name;
          value.config.system.build.toplevel = sleep "nixos-system-${name}" (builtins.genList (i: sleep "${name}-${toString i}" [ ]) 10);
        })
        2);
    };
}
`

// alone is hosts that share nothing, for which the scheduler must cost nothing.
func (b *bench) alone(ctx context.Context) error {
	f, err := b.farm(ctx, "alone", nothingShared, "--helpers", "0")
	if err != nil {
		return err
	}
	defer f.close()
	entries := 0
	if _, err := f.run(ctx, 1); err != nil {
		return err
	}
	for _, e := range f.service.Entries() {
		if strings.Contains(e.Key, "-claim-") || strings.Contains(e.Key, "-done-") {
			entries++
		}
	}
	b.rows = append(b.rows, row{
		Work: "two hosts that share nothing: units, and cache entries for them", Against: "without units",
		Value: fmt.Sprintf("%d units, %d entries", len(f.plan.Units), entries), Goal: "0, 0", Met: entries == 0 && len(f.plan.Units) == 0,
	})
	return nil
}
