package job_test

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/job"
)

// A host that is skipped saves the job that built it the last time, another target its own build.
func TestSkippedTime(t *testing.T) {
	drv := func(name string) string { return "/nix/store/" + strings.Repeat("0", 32) + "-" + name + ".drv" }
	target := func(name string, kind job.Kind, system string) job.Target {
		return job.Target{Name: name, Kind: kind, System: system, DrvPath: drv(name + "-1.2"), State: job.StateSkip, Available: true}
	}
	targets := []job.Target{
		target("host", job.NixOS, "x86_64-linux"), target("pi", job.NixOS, "aarch64-linux"), target("new", job.NixOS, "x86_64-linux"),
		target("deploy.a.system", job.NixOS, "x86_64-linux"), target("deploy.a.home", job.Home, "x86_64-linux"),
		target("tool", job.Package, "x86_64-linux"), target("built", job.Package, "x86_64-linux"), target("broken", job.Package, "x86_64-linux"),
	}
	targets[3].Node, targets[4].Node = "deploy.a", "deploy.a"
	targets[5].Available, targets[5].Proved = false, true
	targets[6].State = job.StateBuild
	targets[7].Available, targets[7].Refused = false, true
	record := &job.Record{
		Seconds: map[string]float64{"tool x86_64-linux": 5, "host x86_64-linux": 1, "broken x86_64-linux": 7},
		Entries: map[string]job.EntryTime{
			"host x86_64-linux": {Seconds: 100}, "pi aarch64-linux emulated": {Seconds: 1000}, "pi aarch64-linux": {Seconds: 1}, "deploy.a x86_64-linux": {Seconds: 30},
		},
	}
	emulated := func(system string) bool { return system == "aarch64-linux" }
	var got, none job.Saved
	got.AddSkipped(targets, record, emulated)
	if diff := cmp.Diff(job.Saved{Skipped: 6, SkippedSeconds: 100 + 1000 + 30 + 5, SkippedUnknown: 1}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	none.AddSkipped(targets, nil, emulated)
	if diff := cmp.Diff(job.Saved{Skipped: 6, SkippedUnknown: 5}, none); diff != "" {
		t.Errorf("without a record (-want +got):\n%s", diff)
	}
}

// Numbers and texts of a machine come from a document that others may have written.
func TestMachineIsChecked(t *testing.T) {
	for name, change := range map[string]func(p *job.Plan){
		"cores":           func(p *job.Plan) { p.Machine.Cores = -1 },
		"a name in lines": func(p *job.Plan) { p.Machine.OS = "a\nb" },
		"a long name":     func(p *job.Plan) { p.Machine.Arch = strings.Repeat("x", 100) },
		"time":            func(p *job.Plan) { p.Saved.SkippedSeconds = -1 },
		"much time":       func(p *job.Plan) { p.Saved.ReusedSeconds = math.MaxFloat64 },
		"more than all":   func(p *job.Plan) { p.Saved.SkippedUnknown = 2 },
	} {
		p := &job.Plan{Version: job.Version, ID: job.DefaultID, Machine: &job.Machine{OS: "Linux", Arch: "X64", Cores: 4}, Saved: &job.Saved{Skipped: 1}}
		for _, wrong := range []bool{false, true} {
			if wrong {
				change(p)
			}
			data, err := p.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := job.ParsePlan(data); (err != nil) != wrong {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
