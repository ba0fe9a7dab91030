package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// The user's own steps are scripts for bash, as a workflow's are: what they do is
// theirs. They have the variables of the secret env.

func (a *app) setUpFlag(cmd *cobra.Command, script *string) {
	cmd.Flags().StringVar(script, "setup", a.action.Input("setup"), "bash `SCRIPT` to run before anything; what it exports is in effect afterwards, also for evaluators and builders")
}

// setUp runs the user's script before anything, and takes over what it exports.
func (a *app) setUp(ctx context.Context, script string) error {
	if strings.TrimSpace(script) == "" {
		return nil
	}
	env, err := a.secretEnv()
	if err != nil {
		return err
	}
	a.show.Doing("setting up")
	exported, remove, err := a.secretDir.File(nil) // a place for them
	if err != nil {
		return err
	}
	defer remove()
	// However it ends, the last thing that it does is to tell its environment.
	const tell = `env -0 >"$NIX_MATRIX_EXPORTED"`
	cmd, remove, err := a.bash(ctx, "trap '"+tell+"' EXIT\n"+script+"\n"+tell, append(slices.Clone(env), "NIX_MATRIX_EXPORTED="+exported))
	if err != nil {
		return err
	}
	defer remove()
	step := a.newStepLog(env)
	cmd.Stdout, cmd.Stderr = step, step
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("setup failed: %w", step.explain(err))
	}
	return a.takeOver(exported, env)
}

// takeOver makes the variables that a script has left in a file ours, but those of
// the secret env, which are for who needs them.
func (a *app) takeOver(file string, secrets []string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	for variable := range strings.SplitSeq(string(data), "\x00") {
		name, value, ok := strings.Cut(variable, "=")
		if !ok || slices.Contains(secrets, variable) || slices.Contains([]string{"_", "SHLVL", "PWD", "OLDPWD", "NIX_MATRIX_EXPORTED"}, name) {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("setup: %w", err)
		}
	}
	return nil
}

// bash prepares a script as a workflow's step would have it, with variables beside
// the environment, which has no secret of ours. The context ends it and what it
// started.
func (a *app) bash(ctx context.Context, script string, env []string) (cmd *exec.Cmd, remove func(), err error) {
	file, remove, err := a.secretDir.File([]byte(script + "\n")) // no argument, since it may have secrets too
	if err != nil {
		return nil, nil, err
	}
	cmd = exec.CommandContext(ctx, "bash", "--noprofile", "--norc", "-eo", "pipefail", file)
	cmd.Env = append(nix.StepEnviron(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = time.Second
	return cmd, remove, nil
}

// A stepLog shows what a script says, and keeps the last of it, without secrets. A
// mask that the script asks for is one.
type stepLog struct {
	app     *app
	secrets []string
	lines   []string
	part    []byte
	most    int // lines to show; 0 is all
	said    int // lines
}

// newStepLog makes one for a script that has these variables of the secret env.
func (a *app) newStepLog(env []string) *stepLog {
	l := &stepLog{app: a}
	for _, variable := range env {
		if _, value, _ := strings.Cut(variable, "="); value != "" {
			l.secrets = append(l.secrets, value)
		}
	}
	return l
}

const (
	stepLines = 25   // that are kept
	stepLine  = 4000 // bytes of one
)

func (l *stepLog) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	for {
		line, rest, ended := bytes.Cut(l.part, []byte("\n"))
		const longest = 64 << 10
		if !ended && len(l.part) < longest {
			return len(p), nil
		}
		l.line(string(line))
		l.part = append(l.part[:0], rest...)
	}
}

func (l *stepLog) line(said string) {
	if secret, ok := strings.CutPrefix(strings.TrimSpace(said), "::add-mask::"); ok && secret != "" {
		l.secrets = append(l.secrets, secret)
		l.app.action.Mask(secret)
		return
	}
	for _, secret := range l.secrets {
		said = strings.ReplaceAll(said, secret, "***")
	}
	said = text.Clip(said, stepLine)
	switch l.said++; {
	case l.most == 0 || l.said <= l.most:
		_, _ = l.app.show.Write([]byte(said + "\n"))
	case l.said == l.most+1:
		_, _ = l.app.show.Write([]byte("… the rest is left out\n"))
	}
	if l.lines = append(l.lines, said); len(l.lines) > stepLines {
		l.lines = l.lines[1:]
	}
}

// explain adds the last of what was said to how a script ended.
func (l *stepLog) explain(err error) error {
	if len(l.part) > 0 {
		l.line(string(l.part))
		l.part = nil
	}
	if len(l.lines) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, l.lines[len(l.lines)-1])
}

// postBuild runs the user's command for each target that is built.
func (w *worker) postBuild(ctx context.Context, result *job.Result) {
	if strings.TrimSpace(w.post) == "" {
		return
	}
	unfit := w.unfit(result)
	for i := range result.Targets {
		t := &result.Targets[i]
		switch {
		case !t.Outcome.OK():
		case unfit != "":
			t.PostBuild = &job.Step{Outcome: job.StepSkipped, Error: unfit}
		case ctx.Err() != nil:
			t.Outcome, t.Error = job.OutcomeCancelled, "it was stopped before post_build"
		default:
			w.app.show.Doing("post_build of %s", t.Attr)
			t.PostBuild = w.postStep(ctx, t)
			switch {
			case t.PostBuild.Outcome != job.StepFailed:
			case ctx.Err() != nil: // it is not to blame
				t.PostBuild = nil
				t.Outcome, t.Error = job.OutcomeCancelled, "post_build was stopped"
			default:
				t.Outcome, t.Error, t.Log = job.OutcomeFailed, "post_build failed: "+t.PostBuild.Error, t.PostBuild.Log
			}
		}
	}
}

// unfit says why the command after the build can't be run, or nothing.
func (w *worker) unfit(result *job.Result) string {
	for _, p := range result.Pushes {
		if p.Error != "" && !p.Optional {
			return "not all was pushed to " + p.Destination
		}
	}
	const fork = " is not set, as in a pull request from a fork"
	for _, variable := range w.site.env {
		if name, value, _ := strings.Cut(variable, "="); value == "" {
			return name + fork
		}
	}
	has := slices.Concat(nix.StepEnviron(), w.site.env)
	for _, name := range w.postNeeds {
		if !slices.ContainsFunc(has, func(variable string) bool { return strings.HasPrefix(variable, name+"=") && variable != name+"=" }) {
			return name + fork
		}
	}
	return ""
}

func (w *worker) postStep(ctx context.Context, t *job.TargetResult) *job.Step {
	start := time.Now()
	failed := func(err error) *job.Step {
		return &job.Step{Outcome: job.StepFailed, Seconds: time.Since(start).Seconds(), Error: err.Error()}
	}
	target := &w.plan.Targets[t.N]
	paths := map[string]string{}
	first := ""
	for _, o := range t.Outputs {
		paths[o.Name] = o.Path
		first = or(first, o.Path)
	}
	outputs, err := json.Marshal(paths)
	if err != nil {
		return failed(err)
	}
	env := append(slices.Clone(w.site.env),
		"NIX_MATRIX_ATTR="+t.Attr, "NIX_MATRIX_NAME="+target.Name, "NIX_MATRIX_HOST="+target.Host, "NIX_MATRIX_KIND="+string(target.Kind),
		"NIX_MATRIX_SYSTEM="+target.System, "NIX_MATRIX_DRV="+t.DrvPath, "NIX_MATRIX_OUT="+first, "NIX_MATRIX_OUTPUTS="+string(outputs))
	if w.site.remote != "" { // where the outputs are
		env = append(env, "NIX_REMOTE="+w.site.remote, "NIX_SSHOPTS="+w.site.ssh)
	}
	cmd, remove, err := w.app.bash(ctx, w.post, env)
	if err != nil {
		return failed(err)
	}
	defer remove()
	log := w.app.newStepLog(w.site.env)
	cmd.Stdout, cmd.Stderr = log, log
	step := &job.Step{Outcome: job.StepDone}
	if err = cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		step = failed(log.explain(err))
		step.Log = log.lines
	}
	step.Seconds = time.Since(start).Seconds()
	w.app.show.Printf("post_build of %s: %s", t.Attr, step.Outcome)
	return step
}
