package discover

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"

	"github.com/org/nix-matrix/pkg/available"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// programs adds to the Plan the programs that workers need for pushes, evaluated for the systems of their
// machines unless an earlier evaluation has them. A worker without them needs them on PATH.
func (d *Discovery) programs(ctx context.Context, known []job.Program, p *job.Plan) {
	p.Programs = nil
	for i := range d.Env.Destinations {
		to := &d.Env.Destinations[i]
		name := to.Program()
		if name == "" || to.Lacks(d.Env.Push.Secrets) != nil || slices.ContainsFunc(p.Programs, func(p job.Program) bool { return p.Name == name }) {
			continue
		}
		systems := d.machines(p)
		if d.Local && len(systems) > 0 {
			if _, err := exec.LookPath(name); err == nil {
				continue
			}
			systems = []string{d.Env.System}
		}
		programs, err := d.resolve(ctx, name, systems, known)
		if err != nil && ctx.Err() == nil {
			d.log.Warn("cannot resolve the program "+name, fmt.Errorf("%w. A runner without it on PATH can't push to %s: install it in a step before the build, or name another nixpkgs with the input nixpkgs", err, to.Name))
		}
		p.Programs = append(p.Programs, programs...)
	}
	d.Env.Provide(p.Programs)
}

// machines returns the known systems of the machines that entries run on.
func (d *Discovery) machines(p *job.Plan) []string {
	const runner = "x86_64-linux" // of plan.AnyRunner
	systems := map[string]bool{}
	for i := range p.Targets {
		t := &p.Targets[i]
		switch {
		case t.State != job.StateBuild:
		case d.Env.Remotely(t.System) && len(d.Planning.Runners[t.System]) == 0, t.System == "i686-linux", d.Planning.EmulatesTarget(t):
			systems[runner] = true
		case d.Env.Remotely(t.System): // on a runner of any system
			systems[t.System], systems[d.Env.System] = true, true
		default:
			systems[t.System] = true
		}
	}
	return slices.Sorted(maps.Keys(systems))
}

// resolve returns a program for each system for which it can be evaluated.
func (d *Discovery) resolve(ctx context.Context, name string, systems []string, known []job.Program) ([]job.Program, error) {
	var programs []job.Program
	var unknown []string
	for _, system := range systems {
		i := slices.IndexFunc(known, func(p job.Program) bool {
			return p.Name == name && p.System == system && p.Nixpkgs == d.Access.Nixpkgs
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
	d.log.Doing("evaluating %s", name)
	impatient := d.Env.WithOptions(nix.Set("download-attempts", "2"))
	resolved, err := impatient.ResolvePrograms(ctx, d.Access.Nixpkgs, name, unknown...)
	var paths []string
	for _, r := range resolved {
		paths = append(paths, r.OutPath)
	}
	fetched := available.NewPlace("")
	if !d.Local && len(paths) > 0 {
		fetched = d.finder.Substituted(ctx, paths)
	}
	for _, system := range unknown {
		r, ok := resolved[system]
		if !ok {
			continue
		}
		p := job.Program{Name: name, System: system, Nixpkgs: d.Access.Nixpkgs, DrvPath: r.DrvPath, Output: r.Output, OutPath: r.OutPath}
		if fetched.Has[r.OutPath] {
			p.DrvPath = "" // its closure would be thousands of derivations in the drv pack
		}
		programs = append(programs, p)
	}
	return programs, err
}
