// Package verdicttest makes Plans, Results and verdicts for tests.
package verdicttest

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/verdict"
)

// The keys of the Plan that is judged, and of another one.
const (
	PlanKey      = "nix-matrix-plan0-5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c"
	OtherPlanKey = "nix-matrix-plan0-77aa77aa77aa77aa77aa77aa77aa77aa"
)

// Noon is the time at which the Plans were made.
var Noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// Drv makes a store path of a derivation.
func Drv(name string) string { return StorePath(name) + ".drv" }

// StorePath returns a store path with a name.
func StorePath(name string) string {
	return "/nix/store/" + "0123456789abcdfghijklmnpqrsvwxyz" + "-" + name
}

// Host returns a target that is a NixOS host, to be built.
func Host(name, system string) job.Target {
	return job.Target{
		Attr: "nixosConfigurations." + name + ".config.system.build.toplevel", Name: "nixosConfigurations." + name,
		Kind: job.NixOS, Host: name, System: system,
		DrvPath: Drv("nixos-system-" + name), Outputs: []string{"out"},
		OutPaths:  map[string]string{"out": StorePath("nixos-system-" + name)},
		Reproduce: "nix build .#nixosConfigurations." + name + ".config.system.build.toplevel",
		State:     job.StateBuild,
	}
}

// Package returns a target that is a package, to be built.
func Package(name string) job.Target {
	attr := "packages.x86_64-linux." + name
	return job.Target{
		Attr: attr, Name: attr, Kind: job.Package, System: "x86_64-linux",
		DrvPath: Drv(name), Outputs: []string{"out"}, OutPaths: map[string]string{"out": StorePath(name)},
		Reproduce: "nix build .#" + attr, State: job.StateBuild,
	}
}

// Skipped returns a target that is skipped for a reason.
func Skipped(t job.Target, reason string) job.Target {
	t.State, t.Reason = job.StateSkip, reason
	return t
}

// Unevaluated returns a target that cannot be evaluated.
func Unevaluated(t job.Target, message string) job.Target {
	t.State, t.Error = job.StateFailed, message
	t.DrvPath, t.Outputs, t.OutPaths = "", nil, nil
	return t
}

// PlanOf makes a Plan in which each host is an entry and all packages are one.
func PlanOf(targets ...job.Target) *job.Plan {
	p := &job.Plan{Version: job.Version, ID: job.DefaultID, Created: Noon, Source: ".", Targets: targets}
	shared := -1
	for n, t := range targets {
		if t.State != job.StateBuild {
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

// ResultsOf makes a good Result of each entry of a Plan.
func ResultsOf(p *job.Plan) []*job.Result {
	var results []*job.Result
	for i, e := range p.Entries {
		r := &job.Result{
			Version: job.Version, Plan: PlanKey, Entry: e.ID, Name: e.Name, Outcome: job.OutcomeBuilt,
			Started: Noon.Add(time.Duration(i) * 10 * time.Second), Finished: Noon.Add(time.Duration(i)*10*time.Second + 72*time.Second),
			URL:    JobURL(i),
			Builds: []job.DrvBuild{BuildAt(e.Name, 1, 60), BuildAt(e.Name+"-units", 3, 1)}, Imported: 321, Downloaded: 7 << 20,
		}
		for _, ref := range e.Targets {
			t := p.Targets[ref.N]
			r.Targets = append(r.Targets, job.TargetResult{
				N: ref.N, Attr: t.Attr, DrvPath: t.DrvPath, Outcome: job.OutcomeBuilt, Seconds: 61.5, Reproduce: t.Reproduce,
				Outputs: []job.Output{{Name: "out", Path: t.OutPaths["out"], Size: 5 << 20, Closure: 3 << 29}},
			})
		}
		results = append(results, r)
	}
	return results
}

// RunURL is the page of the run.
const RunURL = "https://github.com/org/fleet/actions/runs/7"

// JobURL returns the page of the job of the entry number i.
func JobURL(i int) string { return fmt.Sprintf("%s/job/%d", RunURL, 4000+i) }

// Fail makes a target of a Result fail for the derivation cause.
func Fail(r *job.Result, at int, cause string, log ...string) {
	t := &r.Targets[at]
	t.Outcome, t.Cause, t.Log, t.Outputs = job.OutcomeFailed, cause, log, nil
	t.Error = fmt.Sprintf("error: builder for '%s' failed with exit code 1;\n       last 1 log lines:\n       > %s\n       For full logs, run 'nix log %s'.", cause, "make: *** [all] Error 2", cause)
	r.Outcome = job.OutcomeFailed
}

// Fleet returns a verdict on fifty hosts, of which two failed, and on other targets of a
// repository.
func Fleet() *verdict.Verdict {
	places := []string{"berlin", "lisbon", "oslo", "vienna", "zurich"}
	roles := []string{"backup", "builder", "dns", "gateway", "git", "mail", "monitor", "nas", "proxy", "web"}
	var targets []job.Target
	for _, place := range places {
		for _, role := range roles {
			system := "x86_64-linux"
			if role == "dns" {
				system = "aarch64-linux"
			}
			t := Host(place+"-"+role, system)
			if role == "builder" {
				t = Skipped(t, "cachix:fleet has it")
			}
			targets = append(targets, t)
		}
	}
	targets = append(targets, Package("website"), Package("dashboards"), Skipped(Package("docs"), "cachix:fleet has it"))
	p := PlanOf(targets...)
	p.Notices = []string{"Left out, since only x86_64-linux and aarch64-linux are wanted: darwinConfigurations.mini"}
	results := ResultsOf(p)
	for i, r := range results {
		took := time.Duration(70+(i*i*37)%400) * time.Second
		r.Started = Noon.Add(time.Duration(i/10*150+i%10*7) * time.Second)
		r.Finished = r.Started.Add(took)
		for k := range r.Targets {
			r.Targets[k].Seconds = took.Seconds() - 20
			r.Targets[k].Outputs[0].Closure = int64(1<<30 + i*(71<<20))
		}
		r.Pushes = []job.Push{{Destination: "cachix:fleet", Paths: 40 + i, Seconds: float64(3 + i%7)}}
		if i%9 == 4 {
			r.Outcome, r.Targets[0].Outcome, r.Builds = job.OutcomeFetched, job.OutcomeFetched, nil
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
			Fail(results[i], 0, Drv("nginx-1.28.0"), log...)
			results[i].Pushes[0].Paths = 12
		}
	}
	return Judged(p, PlanKey, results, NeedsOf(verdict.Success, verdict.Failure))
}

// ThePlan stands in outputs for those of the judged Plan.
const ThePlan = "the plan"

// NeedsOf makes the needs of a workflow whose discovery, unless it was skipped, left
// its outputs.
func NeedsOf(discover, build verdict.Status) verdict.Needs {
	n := verdict.Needs{"discover": {Result: discover}, "build": {Result: build}}
	if discover != verdict.Skipped {
		n["discover"] = verdict.Need{Result: discover, Outputs: map[string]string{"matrix": ThePlan, "count": ThePlan, "plan": PlanKey}}
	}
	return n
}

// Judged returns verdict.Judge with needs in which ThePlan is replaced by those outputs.
func Judged(p *job.Plan, key string, results []*job.Result, needs verdict.Needs) *verdict.Verdict {
	return verdict.Judge(p, key, results, needsFor(p, needs))
}

func needsFor(p *job.Plan, needs verdict.Needs) verdict.Needs {
	if p == nil {
		p = &job.Plan{}
	}
	matrix, err := json.Marshal(p.Matrix(PlanKey))
	if err != nil {
		panic(err) // texts only
	}
	filled := maps.Clone(needs)
	for id, need := range filled {
		need.Outputs = maps.Clone(need.Outputs)
		for name, value := range map[string]string{"matrix": string(matrix), "count": strconv.Itoa(len(p.Entries))} {
			if need.Outputs[name] == ThePlan {
				need.Outputs[name] = value
			}
		}
		filled[id] = need
	}
	return filled
}

// BuildAt returns the build of a derivation, in seconds after Noon.
func BuildAt(name string, start, took float64) job.DrvBuild {
	return job.DrvBuild{DrvPath: Drv(name), Started: Noon.Add(time.Duration(start * float64(time.Second))), Seconds: took}
}

// MainRun returns the record of a run of the default branch.
func MainRun() *job.Record {
	p := PlanOf(Host("nas", "x86_64-linux"), Host("notado", "x86_64-linux"), Host("pi3", "aarch64-linux"), Host("router", "x86_64-linux"), Package("gone"), Unevaluated(Package("mended"), "error: no"))
	results := ResultsOf(p)
	results[1].Targets[0].Outputs[0].Parts = map[string]int64{"linux": 100 << 20, "perl": 50 << 20, "firmware": 7 << 20}
	v := Judged(p, PlanKey, results, nil)
	return v.Record(job.Record{ID: job.DefaultID, Created: Noon, Commit: "0123456789abcdef0123456789abcdef01234567", Branch: "main", URL: "https://github.com/org/fleet/actions/runs/5"}, p, results, nil)
}

// Changed returns the verdict on a pull request that changes a host of four.
func Changed() *verdict.Verdict {
	p := PlanOf(Host("nas", "x86_64-linux"), Host("notado", "x86_64-linux"), Host("pi3", "aarch64-linux"), Unevaluated(Host("router", "x86_64-linux"), "error: no"), Package("new"), Package("mended"))
	p.Targets[1].DrvPath = Drv("nixos-system-notado-2")
	p.Entries[1].Targets[0].DrvPath, p.Entries[1].DrvPath = p.Targets[1].DrvPath, p.Targets[1].DrvPath
	results := ResultsOf(p)
	out := &results[1].Targets[0].Outputs[0]
	out.Closure += 30 << 20
	out.Parts = map[string]int64{"linux": 150 << 20, "perl": 30 << 20, "firmware": 7 << 20, "go": 1 << 20}
	p.Missing = 17
	v := Judged(p, PlanKey, results, NeedsOf(verdict.Success, verdict.Success))
	v.Change = v.Compare(MainRun(), p)
	return v
}

// Emulate marks the builds of a Result as emulated.
func Emulate(r *job.Result) {
	r.Emulated = true
	for i := range r.Builds {
		r.Builds[i].Emulated = true
	}
	for i := range r.Targets {
		r.Targets[i].Emulated = true
	}
}
