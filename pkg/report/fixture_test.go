package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/org/nix-matrix/pkg/job"
)

const (
	planKey      = "nix-matrix-plan0-5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c"
	otherPlanKey = "nix-matrix-plan0-77aa77aa77aa77aa77aa77aa77aa77aa"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// drv makes a store path of a derivation.
func drv(name string) string { return storePath(name) + ".drv" }

func storePath(name string) string {
	return "/nix/store/" + "0123456789abcdfghijklmnpqrsvwxyz" + "-" + name
}

func host(name, system string) job.Target {
	return job.Target{
		Attr: "nixosConfigurations." + name + ".config.system.build.toplevel", Name: "nixosConfigurations." + name,
		Kind: job.NixOS, Host: name, System: system,
		DrvPath: drv("nixos-system-" + name), Outputs: []string{"out"},
		OutPaths:  map[string]string{"out": storePath("nixos-system-" + name)},
		Reproduce: "nix build .#nixosConfigurations." + name + ".config.system.build.toplevel",
		State:     job.Build,
	}
}

func pkg(name string) job.Target {
	attr := "packages.x86_64-linux." + name
	return job.Target{
		Attr: attr, Name: attr, Kind: job.Package, System: "x86_64-linux",
		DrvPath: drv(name), Outputs: []string{"out"}, OutPaths: map[string]string{"out": storePath(name)},
		Reproduce: "nix build .#" + attr, State: job.Build,
	}
}

func skipped(t job.Target, reason string) job.Target {
	t.State, t.Reason = job.Skip, reason
	return t
}

func unevaluated(t job.Target, message string) job.Target {
	t.State, t.Error = job.Failed, message
	t.DrvPath, t.Outputs, t.OutPaths = "", nil, nil
	return t
}

// planOf makes a Plan in which each host is an entry and all packages are one.
func planOf(targets ...job.Target) *job.Plan {
	p := &job.Plan{Version: job.Version, ID: job.DefaultID, Created: noon, Source: ".", Targets: targets}
	shared := -1
	for n, t := range targets {
		if t.State != job.Build {
			continue
		}
		ref := job.Ref{N: n, Attr: t.Attr, DrvPath: t.DrvPath}
		if !t.Kind.IsHost() && shared >= 0 {
			p.Entries[shared].Targets = append(p.Entries[shared].Targets, ref)
			continue
		}
		e := job.Entry{
			Name: t.Name, ID: job.NewEntryID(t.Name), System: t.System, Platform: t.System,
			Attr: t.Attr, DrvPath: t.DrvPath, Outputs: t.Outputs, Targets: []job.Ref{ref},
		}
		if t.Kind.IsHost() {
			e.Host = &t.Host
		} else {
			e.Name = t.System + " 1/1"
			e.ID = job.NewEntryID(e.Name)
			shared = len(p.Entries)
		}
		p.Entries = append(p.Entries, e)
	}
	return p
}

// resultsOf makes a good Result of each entry of a Plan.
func resultsOf(p *job.Plan) []*job.Result {
	var results []*job.Result
	for i, e := range p.Entries {
		r := &job.Result{
			Version: job.Version, Plan: planKey, Entry: e.ID, Name: e.Name, Outcome: job.Built,
			Started: noon.Add(time.Duration(i) * 10 * time.Second), Finished: noon.Add(time.Duration(i)*10*time.Second + 72*time.Second),
			URL:    jobURL(i),
			Builds: []job.DrvBuild{buildAt(e.Name, 1, 60), buildAt(e.Name+"-units", 3, 1)}, Imported: 321, Downloaded: 7 << 20,
		}
		for _, ref := range e.Targets {
			t := p.Targets[ref.N]
			r.Targets = append(r.Targets, job.TargetResult{
				N: ref.N, Attr: t.Attr, DrvPath: t.DrvPath, Outcome: job.Built, Seconds: 61.5, Reproduce: t.Reproduce,
				Outputs: []job.Output{{Name: "out", Path: t.OutPaths["out"], Size: 5 << 20, Closure: 3 << 29}},
			})
		}
		results = append(results, r)
	}
	return results
}

// emulate makes a Result one of builds under emulation.
func emulate(r *job.Result) {
	r.Emulated = true
	for i := range r.Builds {
		r.Builds[i].Emulated = true
	}
	for i := range r.Targets {
		r.Targets[i].Emulated = true
	}
}

const runURL = "https://github.com/org/fleet/actions/runs/7"

func jobURL(i int) string { return fmt.Sprintf("%s/job/%d", runURL, 4000+i) }

// fail makes a target of a Result fail for the derivation cause.
func fail(r *job.Result, at int, cause string, log ...string) {
	t := &r.Targets[at]
	t.Outcome, t.Cause, t.Log, t.Outputs = job.Broken, cause, log, nil
	t.Error = fmt.Sprintf("error: builder for '%s' failed with exit code 1;\n       last 1 log lines:\n       > %s\n       For full logs, run 'nix log %s'.", cause, "make: *** [all] Error 2", cause)
	r.Outcome = job.Broken
}

// fleet is a verdict on fifty hosts of which two failed, and on what else a
// repository has.
func fleet() *Verdict {
	places := []string{"berlin", "lisbon", "oslo", "vienna", "zurich"}
	roles := []string{"backup", "builder", "dns", "gateway", "git", "mail", "monitor", "nas", "proxy", "web"}
	var targets []job.Target
	for _, place := range places {
		for _, role := range roles {
			system := "x86_64-linux"
			if role == "dns" {
				system = "aarch64-linux"
			}
			t := host(place+"-"+role, system)
			if role == "builder" {
				t = skipped(t, "cachix:fleet has it")
			}
			targets = append(targets, t)
		}
	}
	targets = append(targets, pkg("website"), pkg("dashboards"), skipped(pkg("docs"), "cachix:fleet has it"))
	p := planOf(targets...)
	p.Notices = []string{"Left out, since only x86_64-linux and aarch64-linux are wanted: darwinConfigurations.mini"}
	results := resultsOf(p)
	for i, r := range results {
		took := time.Duration(70+(i*i*37)%400) * time.Second
		r.Started = noon.Add(time.Duration(i/10*150+i%10*7) * time.Second)
		r.Finished = r.Started.Add(took)
		for k := range r.Targets {
			r.Targets[k].Seconds = took.Seconds() - 20
			r.Targets[k].Outputs[0].Closure = int64(1<<30 + i*(71<<20))
		}
		r.Pushes = []job.Push{{Destination: "cachix:fleet", Paths: 40 + i, Seconds: float64(3 + i%7)}}
		if i%9 == 4 {
			r.Outcome, r.Targets[0].Outcome, r.Builds = job.Fetched, job.Fetched, nil
		}
	}
	log := []string{
		"building '/nix/store/…-nginx-1.28.0.drv'", "unpacking sources", "configuring", "checking for OS",
		" + Linux 6.12.57 x86_64", "checking for C compiler ... found", " + using GNU C compiler",
		"cc -c -pipe -O -W -Wall -Wpointer-arith -Wno-unused-parameter -Werror -g -I src/core -I src/event -I src/event/modules -I src/os/unix -I objs -o objs/src/core/nginx.o src/core/nginx.c",
		"src/core/nginx.c:214:5: error: implicit declaration of function 'ngx_set_cpu_affinity' [-Wimplicit-function-declaration]",
		"make: *** [objs/Makefile:412: objs/src/core/nginx.o] Error 1",
	}
	for i, e := range p.Entries {
		switch e.Name {
		case "nixosConfigurations.lisbon-web", "nixosConfigurations.oslo-proxy":
			fail(results[i], 0, drv("nginx-1.28.0"), log...)
			results[i].Pushes[0].Paths = 12
		}
	}
	return judged(p, planKey, results, needsOf(Success, Failure))
}

// thePlan stands in outputs for what is said of the Plan that is judged.
const thePlan = "the plan"

// needsOf makes the needs of a workflow whose discovery, unless it was skipped, left
// its outputs.
func needsOf(discover, build Status) Needs {
	n := Needs{"discover": {Result: discover}, "build": {Result: build}}
	if discover != Skipped {
		n["discover"] = Need{Result: discover, Outputs: map[string]string{"matrix": thePlan, "count": thePlan, "plan": planKey}}
	}
	return n
}

// judged is Judge with needs in which thePlan is that.
func judged(p *job.Plan, key string, results []*job.Result, needs Needs) *Verdict {
	return Judge(p, key, results, needsFor(p, needs))
}

func needsFor(p *job.Plan, needs Needs) Needs {
	if p == nil {
		p = &job.Plan{}
	}
	matrix, err := json.Marshal(p.Matrix(planKey))
	if err != nil {
		panic(err) // texts only
	}
	filled := maps.Clone(needs)
	for id, need := range filled {
		need.Outputs = maps.Clone(need.Outputs)
		for name, value := range map[string]string{"matrix": string(matrix), "count": strconv.Itoa(len(p.Entries))} {
			if need.Outputs[name] == thePlan {
				need.Outputs[name] = value
			}
		}
		filled[id] = need
	}
	return filled
}
