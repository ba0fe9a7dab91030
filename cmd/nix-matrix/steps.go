package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push"
)

// The user's own steps are scripts for bash, as a workflow's are: what they do is
// theirs. They have the variables of the secret env.

func (a *app) setUpFlag(cmd *cobra.Command, script *string) {
	cmd.Flags().StringVar(script, "setup", a.action.Input("setup"), "bash `SCRIPT` to run before anything; what it exports is in effect afterwards")
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
	// The last thing that it does, however it ends, is to tell its environment.
	const tell = "trap 'code=$?; env -0 >&3; exit $code' EXIT\n"
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd, remove, err := bash(ctx, tell+script, env)
	if err != nil {
		return errors.Join(err, w.Close())
	}
	defer remove()
	cmd.ExtraFiles = []*os.File{w}
	step := &stepLog{show: a.show}
	cmd.Stdout, cmd.Stderr = step, step
	if err := errors.Join(cmd.Start(), w.Close()); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	// What the script leaves running may keep the pipe open: a zero byte ends a
	// variable, two end nothing, so we read until the script is gone.
	exported := make(chan []byte, 1)
	go func() {
		data, _ := io.ReadAll(r)
		exported <- data
	}()
	if err := cmd.Wait(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("setup failed: %w", step.explain(err))
	}
	_ = r.SetReadDeadline(time.Now().Add(time.Second))
	for variable := range bytes.SplitSeq(<-exported, []byte{0}) {
		name, value, ok := strings.Cut(string(variable), "=")
		if !ok || slices.Contains(env, name+"="+value) || name == "_" || name == "SHLVL" || name == "PWD" || name == "OLDPWD" {
			continue // a secret of the env is for who needs it
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
func bash(ctx context.Context, script string, env []string) (cmd *exec.Cmd, remove func(), err error) {
	file, remove, err := push.SecretFile(script) // no argument, since it may have secrets too
	if err != nil {
		return nil, nil, err
	}
	cmd = exec.CommandContext(ctx, "bash", "--noprofile", "--norc", "-eo", "pipefail", file)
	cmd.Env = append(nix.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = time.Second
	return cmd, remove, nil
}

// A stepLog shows what a script says, and keeps the last of it.
type stepLog struct {
	show  io.Writer
	lines []string
	part  []byte
}

const stepLines = 25

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

func (l *stepLog) line(text string) {
	_, _ = l.show.Write([]byte(text + "\n"))
	if l.lines = append(l.lines, text); len(l.lines) > stepLines {
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

// provisoTime is how long the user's command may take to decide about a target.
var provisoTime = time.Minute

// askProviso lets the user's command decide which targets there is work for. Where
// it fails, the target is built.
func (d *discovery) askProviso(ctx context.Context, at *site, targets []job.Target) {
	if strings.TrimSpace(d.proviso) == "" {
		return
	}
	const atATime = 8
	var g errgroup.Group
	g.SetLimit(atATime)
	for i := range targets {
		t := &targets[i]
		if t.State != job.Build {
			continue
		}
		g.Go(func() error {
			at.app.show.Doing("proviso of %s", t.Name)
			reason, err := proviso(ctx, at, d.proviso, t)
			switch {
			case err != nil && ctx.Err() == nil:
				at.app.warn("proviso of "+t.Name, fmt.Errorf("it is built, since the command failed: %w", err))
			case reason != "":
				t.State, t.Reason = job.Skip, "proviso: "+reason
			}
			return nil
		})
	}
	_ = g.Wait()
}

// proviso gives the reason to leave a target out, or nothing.
func proviso(ctx context.Context, at *site, script string, t *job.Target) (reason string, err error) {
	ctx, cancel := context.WithTimeout(ctx, provisoTime)
	defer cancel()
	target, err := json.Marshal(t)
	if err != nil {
		return "", err
	}
	cmd, remove, err := bash(ctx, script, at.env)
	if err != nil {
		return "", err
	}
	defer remove()
	var out bytes.Buffer
	log := &stepLog{show: at.app.show}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(target), &out, log
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("it did not end within %v", provisoTime)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return "", log.explain(err)
	}
	for line := range strings.Lines(out.String()) {
		if word, reason, _ := strings.Cut(strings.TrimSpace(line), " "); word == "skip" {
			return or(strings.TrimSpace(reason), "nothing to do"), nil
		}
	}
	return "", nil
}

// postBuild runs the user's command for each target that is built.
func (w *worker) postBuild(ctx context.Context, result *job.Result) {
	if strings.TrimSpace(w.post) == "" {
		return
	}
	missing := w.missing()
	for i := range result.Targets {
		t := &result.Targets[i]
		switch {
		case !t.Outcome.OK():
		case missing != "":
			t.PostBuild = &job.Step{Outcome: job.StepSkipped, Error: missing + " is not set, as in a pull request from a fork"}
		default:
			w.app.show.Doing("post_build of %s", t.Attr)
			t.PostBuild = w.postStep(ctx, t)
			if t.PostBuild.Outcome == job.StepFailed {
				t.Outcome = job.Broken
				t.Error = t.PostBuild.Error
				t.Log = t.PostBuild.Log
			}
		}
	}
}

// missing names a variable that the command after the build needs and that is not
// there.
func (w *worker) missing() string {
	for _, variable := range w.site.env {
		if name, value, _ := strings.Cut(variable, "="); value == "" {
			return name
		}
	}
	for _, name := range w.postNeeds {
		if os.Getenv(name) == "" && !slices.ContainsFunc(w.site.env, func(v string) bool { return strings.HasPrefix(v, name+"=") }) {
			return name
		}
	}
	return ""
}

func (w *worker) postStep(ctx context.Context, t *job.TargetResult) *job.Step {
	start := time.Now()
	target := &w.plan.Targets[t.N]
	paths := map[string]string{}
	first := ""
	for _, o := range t.Outputs {
		paths[o.Name] = o.Path
		first = or(first, o.Path)
	}
	outputs, err := json.Marshal(paths)
	if err != nil {
		return &job.Step{Outcome: job.StepFailed, Error: err.Error()}
	}
	cmd, remove, err := bash(ctx, w.post, append(slices.Clone(w.site.env),
		"NIX_MATRIX_ATTR="+t.Attr, "NIX_MATRIX_NAME="+target.Name, "NIX_MATRIX_HOST="+target.Host, "NIX_MATRIX_KIND="+string(target.Kind),
		"NIX_MATRIX_SYSTEM="+target.System, "NIX_MATRIX_DRV="+t.DrvPath, "NIX_MATRIX_OUT="+first, "NIX_MATRIX_OUTPUTS="+string(outputs)))
	if err != nil {
		return &job.Step{Outcome: job.StepFailed, Error: err.Error()}
	}
	defer remove()
	log := &stepLog{show: w.app.show}
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Run()
	step := &job.Step{Outcome: job.StepDone, Seconds: time.Since(start).Seconds()}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		step.Outcome, step.Error = job.StepFailed, "post_build failed: "+log.explain(err).Error()
	}
	step.Log = log.lines
	w.app.show.Printf("post_build of %s: %s", t.Attr, step.Outcome)
	if step.Outcome == job.StepFailed {
		w.app.action.Annotate(action.LevelError, t.Attr, step.Error)
	}
	return step
}
