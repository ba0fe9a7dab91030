package main

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// checkNixpkgs returns a usage error for a value of --nixpkgs that Nix would not take for
// the reference of a flake.
func (d *discovery) checkNixpkgs() error {
	if ref := d.surroundings.nixpkgs; ref == "" || strings.HasPrefix(ref, "-") || strings.ContainsAny(ref, "# \t\r\n\x00") {
		return usagef("invalid value %q for --nixpkgs: must be the reference of a flake, such as github:NixOS/nixpkgs/nixos-26.05", ref)
	}
	return nil
}

// programs names in the Plan the programs that workers need to push, evaluated for the
// systems of their machines unless they are known from an earlier evaluation. Without
// them, a worker needs them on PATH.
func (d *discovery) programs(ctx context.Context, at *site, how *planner, known []job.Program, p *job.Plan) {
	p.Programs = nil
	for i := range at.to {
		to := &at.to[i]
		name := to.Program()
		if name == "" || to.Lacks(at.push.Secrets) != "" || slices.ContainsFunc(p.Programs, func(p job.Program) bool { return p.Name == name }) {
			continue
		}
		systems := d.machines(at, how, p)
		if d.local && len(systems) > 0 {
			if _, err := exec.LookPath(name); err == nil {
				continue
			}
			systems = []string{at.nix.System}
		}
		programs, err := d.resolve(ctx, at, name, systems, known)
		if err != nil && ctx.Err() == nil {
			at.app.warn("cannot resolve the program "+name, fmt.Errorf("%w. A runner without it on PATH can't push to %s: install it in a step before the build, or name another nixpkgs with the input nixpkgs", err, to.Name))
		}
		p.Programs = append(p.Programs, programs...)
	}
	at.provide(p.Programs)
}

// machines returns the systems of the machines that entries run on, as far as they are
// known.
func (d *discovery) machines(at *site, how *planner, p *job.Plan) []string {
	const runner = "x86_64-linux" // of plan.AnyRunner
	systems := map[string]bool{}
	for i := range p.Targets {
		t := &p.Targets[i]
		switch {
		case t.State != job.StateBuild:
		case at.elsewhere(t.System) && len(how.options.Runners[t.System]) == 0, t.System == "i686-linux", how.options.EmulatesTarget(t):
			systems[runner] = true
		case at.elsewhere(t.System): // on a runner that may be anything
			systems[t.System], systems[at.nix.System] = true, true
		default:
			systems[t.System] = true
		}
	}
	return slices.Sorted(maps.Keys(systems))
}

// resolve returns a program for each of the systems, as far as they can be evaluated.
func (d *discovery) resolve(ctx context.Context, at *site, name string, systems []string, known []job.Program) ([]job.Program, error) {
	var programs []job.Program
	var unknown []string
	for _, system := range systems {
		i := slices.IndexFunc(known, func(p job.Program) bool {
			return p.Name == name && p.System == system && p.Nixpkgs == d.surroundings.nixpkgs
		})
		if i < 0 {
			unknown = append(unknown, system)
		} else {
			programs = append(programs, known[i])
		}
	}
	if len(unknown) == 0 {
		return programs, nil
	}
	at.app.show.Doing("evaluating %s", name)
	impatient := *at
	impatient.with(nix.Set("download-attempts", "2"))
	resolved, err := impatient.nix.ResolvePrograms(ctx, d.surroundings.nixpkgs, name, unknown...)
	var paths []string
	for _, r := range resolved {
		paths = append(paths, r.OutPath)
	}
	fetched := newPlace("")
	if !d.local && len(paths) > 0 {
		fetched = d.substituters(ctx, at, paths)
	}
	for _, system := range unknown {
		r, ok := resolved[system]
		if !ok {
			continue
		}
		p := job.Program{Name: name, System: system, Nixpkgs: d.surroundings.nixpkgs, DrvPath: r.DrvPath, Output: r.Output, OutPath: r.OutPath}
		if fetched.has[r.OutPath] {
			p.DrvPath = "" // its closure would be thousands of derivations in the drv pack
		}
		programs = append(programs, p)
	}
	return programs, err
}

// provide makes those of the programs that are for this machine known to Nix.
func (s *site) provide(programs []job.Program) {
	var known []nix.Program
	for _, p := range programs {
		if p.System == s.nix.System {
			known = append(known, nix.Program{Name: p.Name, DrvPath: p.DrvPath, Output: p.Output, OutPath: p.OutPath})
		}
	}
	s.nix = s.nix.WithPrograms(known...)
	s.with()
}

// programDrvs returns the derivations, in the drv pack, of programs that this worker needs
// to push and does not have on PATH.
func (s *site) programDrvs(p *job.Plan) []string {
	var drvs []string
	for i := range s.to {
		name := s.to[i].Program()
		if name == "" || s.to[i].Lacks(s.push.Secrets) != "" {
			continue
		}
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if program, ok := p.Program(name, s.nix.System); ok && program.DrvPath != "" {
			drvs = append(drvs, program.DrvPath)
		}
	}
	return drvs
}
