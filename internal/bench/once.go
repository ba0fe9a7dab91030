package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
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
	s, err := b.serveFarm(ctx, "once")
	if err != nil {
		return err
	}
	defer s.close()
	f, err := b.farm(ctx, s, "once", sharedFleet)
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
		Value: run.against(bound), Goal: "≤ 1.25×", Met: run.took.Seconds() <= 1.25*bound,
	}, row{
		Work: "… creations in the cache in a minute, at most", Against: "GitHub's limit of 200",
		Value: fmt.Sprint(run.creations), Goal: "≤ 150", Met: run.creations <= 150,
	})
	return nil
}

// bigHost is a flake of one host with 200 derivations of 1 to 4 s, in layers that need a part of the one
// before. %s is in all of them.
const bigHost = `{
  outputs = _:
    let
      sleep = name: seconds: inputs: derivation {
        inherit name inputs; system = "x86_64-linux"; PATH = "/usr/bin:/bin"; builder = "/bin/sh"; release = "%s";
        args = [ "-c" "sleep ${toString seconds}; { echo $inputs; head -c 100000 /dev/urandom; } >$out" ];
      };
      layer = n: builtins.genList
        (i: sleep "layer${toString n}part${toString i}" (1 + builtins.bitAnd (n + i) 3)
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

const (
	bigWork  = 200*2.5 + 1
	bigChain = 5*2.5 + 1
)

// helpers is one host, alone and with seven helpers, which know from a run before how long its derivations
// take, and in that run, which does not.
func (b *bench) helpers(ctx context.Context) error {
	s, err := b.serveFarm(ctx, "helpers")
	if err != nil {
		return err
	}
	defer s.close()
	build := func(release string, helpers int) (*farmRun, error) {
		f, err := b.farm(ctx, s, "release"+release, fmt.Sprintf(bigHost, release), "--helpers", fmt.Sprint(helpers))
		if err != nil {
			return nil, err
		}
		defer f.close()
		run, err := f.run(ctx, onceJobs)
		if err == nil && run.builds != 201 {
			err = fmt.Errorf("%d derivations were built", run.builds)
		}
		if err == nil {
			err = f.report(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("%d helpers: %w", helpers, err)
		}
		return run, nil
	}
	first, err := build("1", onceJobs-1)
	if err != nil {
		return err
	}
	helped, err := build("2", onceJobs-1)
	if err != nil {
		return err
	}
	alone, err := build("3", 0)
	if err != nil {
		return err
	}
	bound := max(bigChain, bigWork/float64(onceJobs))
	times := alone.took.Seconds() / helped.took.Seconds()
	b.rows = append(b.rows, row{
		Work: "one host with 200 derivations of 1 to 4 s, with 7 helpers", Against: "without",
		Value: fmt.Sprintf("%s against %s, %.1f×", seconds(helped.took), seconds(alone.took), times), Goal: "≥ 4×", Met: times >= 4,
	}, row{
		Work: "… with 7 helpers", Against: "the lower bound",
		Value: helped.against(bound), Goal: "≤ 1.35×", Met: helped.took.Seconds() <= 1.35*bound,
	}, row{
		Work: "… with 7 helpers, in the first run, when no duration is known", Against: "the lower bound",
		Value: first.against(bound), Goal: "≤ 1.35×", Met: first.took.Seconds() <= 1.35*bound,
	})
	return nil
}

// machines have stores of their own, and build the entries of one run.
type machines struct {
	*bench
	service *service
	dir     string
	env     []string
	matrix  string
	jobs    []entry
	plan    *job.Plan
	key     string
}

// serveFarm starts the service of the runs of one repository.
func (b *bench) serveFarm(ctx context.Context, name string) (*service, error) {
	s, err := b.serve(ctx, name+"-service")
	if err != nil {
		return nil, err
	}
	s.delay.Store(int64(farmDelay))
	s.each.Store(farmRate)
	return s, b.resolve()
}

// farm discovers a flake, in a run of its own.
func (b *bench) farm(ctx context.Context, s *service, name, flake string, args ...string) (*machines, error) {
	f := &machines{bench: b, service: s, dir: filepath.Join(b.dir, name+"-farm")}
	env, err := b.fresh()
	if err != nil {
		return nil, err
	}
	job, err := b.job(s)
	event := f.file("event.json")
	err = errors.Join(err, os.Mkdir(f.dir, 0o755), os.WriteFile(event, []byte(`{"repository": {"full_name": "org/fleet", "default_branch": "main"}}`), 0o644))
	if err != nil {
		return nil, err
	}
	s.runs++
	f.env = append(append(env, job...), "GITHUB_EVENT_PATH="+event, "GITHUB_REPOSITORY=org/fleet", fmt.Sprint("GITHUB_RUN_ID=", s.runs))
	dir, err := b.makeFlake(name, flake)
	if err != nil {
		return nil, err
	}
	file := f.file("plan.json")
	found, err := b.run(ctx, b.dir, f.env, b.program, append([]string{"discover", dir, "--plan-out", file}, args...)...)
	if err != nil {
		return nil, err
	}
	f.matrix = found.stdout
	if f.jobs, err = matrix(found.stdout); err != nil {
		return nil, err
	}
	return f, f.readPlan(file)
}

func (f *machines) file(name string) string { return filepath.Join(f.dir, name) }

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

func (f *machines) close() { removeAll(f.dir) }

// report judges the run, and leaves its record for the next one.
func (f *machines) report(ctx context.Context) error {
	results := f.file("results")
	if err := os.Mkdir(results, 0o755); err != nil {
		return err
	}
	for i := range f.jobs {
		if err := os.Rename(f.result(i), filepath.Join(results, fmt.Sprint(i)+".json")); err != nil {
			return err
		}
	}
	needs, err := json.Marshal(map[string]any{
		"discover": map[string]any{"result": "success", "outputs": map[string]string{"matrix": f.matrix}},
		"build":    map[string]string{"result": "success"},
	})
	if err != nil {
		return err
	}
	ran, err := f.bench.run(ctx, f.dir, f.env, f.program, "report", "--plan", f.file("plan.json"), "--results", results, "--needs", string(needs))
	if err == nil && strings.Contains(ran.stdout+ran.stderr, "::warning") {
		err = fmt.Errorf("report: %s%s", ran.stdout, ran.stderr)
	}
	return err
}

// A farmRun is what became of the jobs.
type farmRun struct {
	took      time.Duration
	cpu       time.Duration // of all jobs, which share this machine's processors
	builds    int
	creations int // most in a minute
	shared    *verdict.Shared
}

// against compares the time of the run with a bound in seconds.
func (r *farmRun) against(bound float64) string {
	return fmt.Sprintf("%s against %.0f s, %.2f×; the jobs took %s of %d processors", seconds(r.took), bound, r.took.Seconds()/bound, seconds(r.cpu), runtime.NumCPU())
}

// run builds all entries, so many at a time, each on a machine of its own.
func (f *machines) run(ctx context.Context, atOnce int) (*farmRun, error) {
	start := time.Now()
	room := make(chan struct{}, atOnce)
	results, errs := make([]*job.Result, len(f.jobs)), make([]error, len(f.jobs))
	cpu := make([]time.Duration, len(f.jobs))
	var running sync.WaitGroup
	for i := range f.jobs {
		room <- struct{}{}
		running.Go(func() {
			results[i], cpu[i], errs[i] = f.build(ctx, i)
			<-room
		})
	}
	running.Wait()
	run := &farmRun{took: time.Since(start), cpu: sum(cpu)}
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

func (f *machines) result(i int) string { return filepath.Join(f.dir, fmt.Sprint(i), "result.json") }

// build builds an entry, and returns the processors' time that it took.
func (f *machines) build(ctx context.Context, i int) (*job.Result, time.Duration, error) {
	dir := filepath.Join(f.dir, fmt.Sprint(i))
	result := f.result(i)
	for _, sub := range []string{"nix", "temp", "home"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, 0, err
		}
	}
	temp := filepath.Join(dir, "temp")
	env := append(slices.Clone(f.env), "TMPDIR="+temp, "RUNNER_TEMP="+temp, "GITHUB_OUTPUT="+filepath.Join(temp, "output"),
		"HOME="+filepath.Join(dir, "home"), "XDG_CACHE_HOME="+filepath.Join(dir, "home"))
	ran, err := f.bench.run(ctx, dir, env, "unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", inStore, dir,
		f.program, "build", "--job", f.jobs[i].job, "--result", result)
	if err != nil {
		return nil, 0, err
	}
	if strings.Contains(ran.stdout+ran.stderr, "::warning") {
		return nil, 0, fmt.Errorf("%s: %s%s", f.plan.Entries[i].Name, ran.stdout, ran.stderr)
	}
	data, err := os.ReadFile(result)
	if err != nil {
		return nil, 0, err
	}
	var r job.Result
	return &r, ran.cpu, json.Unmarshal(data, &r)
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
	s, err := b.serveFarm(ctx, "alone")
	if err != nil {
		return err
	}
	defer s.close()
	f, err := b.farm(ctx, s, "alone", nothingShared, "--helpers", "0")
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
