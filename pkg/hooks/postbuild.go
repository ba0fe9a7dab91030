package hooks

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
)

// A PostBuild is a script for each target that was built.
type PostBuild struct {
	Script string   // empty for none
	Needs  []string // variables without which it is skipped
	Remote string   // address of the store that has the outputs, empty for this machine's
	SSH    string   // options for ssh to it
}

// PostBuild runs the script for each target of a Result that was built or is there, and records the
// outcomes in the Result.
func (r *Runner) PostBuild(ctx context.Context, p *PostBuild, plan *job.Plan, result *job.Result) {
	if strings.TrimSpace(p.Script) == "" {
		return
	}
	unfit := r.unfit(p, result)
	for i := range result.Targets {
		t := &result.Targets[i]
		switch {
		case !t.Outcome.OK():
		case unfit != "":
			t.PostBuild = &job.Step{Outcome: job.StepSkipped, Error: unfit}
		case ctx.Err() != nil:
			t.Outcome, t.Error = job.OutcomeCancelled, "it was stopped before post_build"
		default:
			r.Log.Doing("post_build of %s", t.Attr)
			t.PostBuild = r.postStep(ctx, p, &plan.Targets[t.N], t)
			switch {
			case t.PostBuild.Outcome != job.StepFailed:
			case ctx.Err() != nil: // the end of the run made it fail
				t.PostBuild = nil
				t.Outcome, t.Error = job.OutcomeCancelled, "post_build was stopped"
			default:
				t.Outcome, t.Error, t.Log = job.OutcomeFailed, "post_build failed: "+t.PostBuild.Error, t.PostBuild.Log
			}
		}
	}
}

// unfit returns why the script cannot run, or an empty text.
func (r *Runner) unfit(p *PostBuild, result *job.Result) string {
	for _, to := range result.Pushes {
		if to.Error != "" && !to.Optional {
			return "not all was pushed to " + to.Destination
		}
	}
	const fork = " is not set, as in a pull request from a fork"
	for _, variable := range r.Env {
		if name, value, _ := strings.Cut(variable, "="); value == "" {
			return name + fork
		}
	}
	has := slices.Concat(nix.StepEnviron(), r.Env)
	for _, name := range p.Needs {
		if !slices.ContainsFunc(has, func(variable string) bool { return strings.HasPrefix(variable, name+"=") && variable != name+"=" }) {
			return name + fork
		}
	}
	return ""
}

// postStep runs the script for a target.
func (r *Runner) postStep(ctx context.Context, p *PostBuild, target *job.Target, t *job.TargetResult) *job.Step {
	start := time.Now()
	failed := func(err error) *job.Step {
		return &job.Step{Outcome: job.StepFailed, Seconds: time.Since(start).Seconds(), Error: err.Error()}
	}
	paths := map[string]string{}
	first := ""
	for _, o := range t.Outputs {
		paths[o.Name] = o.Path
		first = cmp.Or(first, o.Path)
	}
	outputs, err := json.Marshal(paths)
	if err != nil {
		return failed(err)
	}
	env := []string{
		"NIX_MATRIX_ATTR=" + t.Attr, "NIX_MATRIX_NAME=" + target.Name, "NIX_MATRIX_HOST=" + target.Host, "NIX_MATRIX_KIND=" + string(target.Kind),
		"NIX_MATRIX_SYSTEM=" + target.System, "NIX_MATRIX_DRV=" + t.DrvPath, "NIX_MATRIX_OUT=" + first, "NIX_MATRIX_OUTPUTS=" + string(outputs),
	}
	if p.Remote != "" {
		env = append(env, "NIX_REMOTE="+p.Remote, "NIX_SSHOPTS="+p.SSH)
	}
	cmd, remove, err := r.bash(ctx, p.Script, env...)
	if err != nil {
		return failed(err)
	}
	defer remove()
	log := r.newLog()
	cmd.Stdout, cmd.Stderr = log, log
	step := &job.Step{Outcome: job.StepDone}
	if err = cmd.Run(); err != nil {
		step = failed(log.explain(err))
		step.Log = log.last
	}
	step.Seconds = time.Since(start).Seconds()
	r.Log.Printf("post_build of %s: %s", t.Attr, step.Outcome)
	return step
}
