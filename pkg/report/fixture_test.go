package report

import (
	"fmt"
	"time"

	"github.com/org/nix-matrix/pkg/job"
)

const (
	planKey      = "nix-matrix-plan0-5f0c"
	otherPlanKey = "nix-matrix-plan0-77aa"
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

// fail makes a target of a Result fail for the derivation cause.
func fail(r *job.Result, at int, cause string, log ...string) {
	t := &r.Targets[at]
	t.Outcome, t.Cause, t.Log, t.Outputs = job.Broken, cause, log, nil
	t.Error = fmt.Sprintf("error: builder for '%s' failed with exit code 1;\n       last 1 log lines:\n       > %s\n       For full logs, run 'nix log %s'.", cause, "make: *** [all] Error 2", cause)
	r.Outcome = job.Broken
}

// needsOf makes the needs of a workflow whose discovery left the matrix.
func needsOf(discover, build Status) Needs {
	n := Needs{"discover": {Result: discover}, "build": {Result: build}}
	if discover == Success {
		n["discover"] = Need{Result: discover, Outputs: map[string]string{"matrix": `{"include":[]}`, "count": "1", "plan": planKey}}
	}
	return n
}
