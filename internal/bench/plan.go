package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/plan"
)

const (
	planTargets = 1000
	planHosts   = 200 // of them
	planDrvs    = 50_000
	planTime    = 2 * time.Second
	unitsTime   = 500 * time.Millisecond
	planMemory  = 512 << 20 // bytes
)

// plan is all that happens between the evaluation and the matrix but for the asking:
// the worst case, in which nothing is offered, so that all derivations are read.
func (b *bench) plan(ctx context.Context) error {
	if _, err := b.fresh(); err != nil {
		return err
	}
	if err := writeDrvs("/nix/store"); err != nil {
		return err
	}
	var all, cpu []time.Duration
	var peak int64
	for range turns(rounds) {
		planned, err := planOnce(ctx, false)
		if err != nil {
			return err
		}
		all, cpu = append(all, planned.Took), append(cpu, planned.CPU)
		peak = max(peak, planned.Peak)
	}
	took := median(all)
	const what = "planning 1,000 targets over 50,000 derivations, none of which is offered: .drv files to matrix"
	b.rows = append(b.rows, row{
		Work: what, Against: "–", Value: fmt.Sprintf("%s (%s of the processors)", seconds(took), seconds(median(cpu))), Goal: "≤ 2 s", Met: took <= planTime,
	}, row{
		Work: what + ": peak resident memory of the process", Against: "–",
		Value: fmt.Sprintf("%.0f MiB", float64(peak)/(1<<20)), Goal: "≤ 512 MiB", Met: peak <= planMemory,
	})
	return nil
}

// planDrv is the path of a derivation, or of its output.
func planDrv(n int, suffix string) string {
	return fmt.Sprintf("/nix/store/%032d-derivation-number-%d%s", n, n, suffix)
}

// writeDrvs writes files of the size that those of nixpkgs have. The first are the
// targets. Each needs some of the next, so that neighbours share most of what they
// need, and the far ones nothing.
func writeDrvs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	const spread = 8
	for n := range planDrvs {
		inputs := map[int]bool{n + planTargets: true}
		for i := range spread - 1 {
			inputs[n+planTargets-spread/2+(n*(i+3)+i*i)%spread] = true
		}
		f, err := os.Create(filepath.Join(dir, filepath.Base(planDrv(n, ".drv"))))
		if err != nil {
			return err
		}
		w := bufio.NewWriter(f)
		_, _ = fmt.Fprintf(w, `Derive([("out",%q,"","")],[`, planDrv(n, ""))
		separator := ""
		for input := n; input < min(planDrvs, n+planTargets+spread); input++ {
			if inputs[input] {
				_, _ = fmt.Fprintf(w, `%s(%q,["out"])`, separator, planDrv(input, ".drv"))
				separator = ","
			}
		}
		_, _ = fmt.Fprintf(w, `],[%q],"x86_64-linux","/bin/sh",["-e",%q],[`, planDrv(planDrvs, "-builder.sh"), planDrv(planDrvs, "-builder.sh"))
		for variable := range 30 {
			_, _ = fmt.Fprintf(w, `("aVariable%02d",%q),`, variable, strings.Repeat("value \n", 8))
		}
		_, _ = fmt.Fprintf(w, `("name",%q),("out",%q),("system","x86_64-linux")])`, fmt.Sprint("derivation-number-", n), planDrv(n, ""))
		if err := w.Flush(); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// units is the cutting of units that comes on top, with as many helpers as pay, in the same worst case.
func (b *bench) units(ctx context.Context) error {
	if _, err := b.fresh(); err != nil {
		return err
	}
	if err := writeDrvs("/nix/store"); err != nil {
		return err
	}
	var without, units, cpu []time.Duration
	var peak int64
	for range rounds {
		planned, err := planOnce(ctx, true)
		if err != nil {
			return err
		}
		without, units, cpu = append(without, planned.Took), append(units, planned.Shared), append(cpu, planned.CutCPU)
		peak = max(peak, planned.Peak)
	}
	took := median(units)
	const what = "planning units, and how many helpers pay, for 1,000 targets over 50,000 derivations"
	b.rows = append(b.rows, row{
		Work: what, Against: "planning without", Value: fmt.Sprintf("+ %s (%s of the processors) to %s", seconds(took), seconds(median(cpu)), seconds(median(without))), Goal: "+ ≤ 0.5 s", Met: took <= unitsTime,
	}, row{
		Work: what + ": peak resident memory of the process", Against: "–",
		Value: fmt.Sprintf("%.0f MiB", float64(peak)/(1<<20)), Goal: "≤ 512 MiB", Met: peak <= planMemory,
	})
	return nil
}

// plannerArgument makes this program a process whose memory is that of planning, with units if there is a
// further argument.
const plannerArgument = "planner"

// A planReport is what it says.
type planReport struct {
	Took    time.Duration
	Shared  time.Duration // to cut units, after Took
	CutCPU  time.Duration // of the processors for that
	CPU     time.Duration `json:"-"`
	Peak    int64         // of resident memory, bytes
	Missing int
	Entries int
	Units   int
}

func planOnce(ctx context.Context, units bool) (*planReport, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{plannerArgument}
	if units {
		args = append(args, "units")
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	var report planReport
	if err := json.Unmarshal(out, &report); err != nil {
		return nil, err
	}
	if report.Missing != planDrvs || report.Entries <= planHosts || report.Entries > planHosts+4 || units && report.Units == 0 {
		return nil, fmt.Errorf("the plan is another one: %+v", report)
	}
	report.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return &report, nil
}

// planner plans, and writes a planReport to stdout.
func planner(ctx context.Context, units bool) error {
	n, err := nix.Find(ctx, os.Stderr, nix.Config{})
	if err != nil {
		return err
	}
	p := &job.Plan{Targets: make([]job.Target, planTargets)}
	for i := range p.Targets {
		name := fmt.Sprint("packages.x86_64-linux.p", i)
		t := job.Target{Attr: name, Name: name, Kind: job.Package, System: "x86_64-linux", DrvPath: planDrv(i, ".drv"), Outputs: []string{"out"}, State: job.StateBuild}
		if i%(planTargets/planHosts) == 0 {
			t.Kind, t.Host = job.NixOS, name
		}
		p.Targets[i] = t
	}
	start := time.Now()
	missing, err := plan.FindMissing(ctx, p.Targets, plan.Source{
		Derivations: n.Derivations,
		Offered:     func(context.Context, []string) (map[string]bool, error) { return map[string]bool{}, nil },
	})
	if err != nil {
		return err
	}
	if p.Entries, err = plan.Entries(p.Targets, plan.Options{Missing: missing}); err != nil {
		return err
	}
	if _, err := plan.Matrix(p, "key"); err != nil {
		return err
	}
	report := planReport{Took: time.Since(start), Missing: missing.Count(), Entries: len(p.Entries)}
	if units {
		start, cpu := time.Now(), used()
		p.Units, _ = plan.Share(p.Entries, plan.Options{Missing: missing, Helpers: plan.HelpersAuto})
		report.Shared, report.CutCPU, report.Units = time.Since(start), used()-cpu, len(p.Units)
	}
	if report.Peak, err = peakMemory(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}
