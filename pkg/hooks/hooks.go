// Package hooks runs the user's own scripts: before everything, for each target that is to be
// built, and after each that was. A script is bash, as a step of a workflow is; it has the
// variables of the secret env, and nothing else that is secret.
package hooks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/secretdir"
)

// A Runner runs scripts.
type Runner struct {
	Secrets *secretdir.Dir // for the texts of scripts, which may have secrets
	Env     []string       // variables of the secret env
	Log     Log
	Mask    func(secret string) // keeps a text out of the log of a job
}

// Log is where a person sees what happens.
type Log interface {
	Write(line []byte) (int, error)
	Doing(format string, args ...any)
	Printf(format string, args ...any)
	Warn(title string, err error)
}

// SetUp runs a script before everything else, and takes over the variables that it exports. An
// empty script is none.
func (r *Runner) SetUp(ctx context.Context, script string) error {
	if strings.TrimSpace(script) == "" {
		return nil
	}
	r.Log.Doing("setting up")
	exported, remove, err := r.Secrets.File(nil) // a place for them
	if err != nil {
		return err
	}
	defer remove()
	// However it ends, the last thing that it does is to tell its environment.
	const tell = `env -0 >"$NIX_MATRIX_EXPORTED"`
	cmd, remove, err := r.bash(ctx, "trap '"+tell+"' EXIT\n"+script+"\n"+tell, "NIX_MATRIX_EXPORTED="+exported)
	if err != nil {
		return err
	}
	defer remove()
	step := r.newLog()
	cmd.Stdout, cmd.Stderr = step, step
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("setup failed: %w", step.explain(err))
	}
	return takeOver(exported, r.Env)
}

// takeOver makes the variables that a script has left in a file ours, but those of
// the secret env, which are for who needs them.
func takeOver(file string, secrets []string) error {
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

// grace is how long a script may take to stop after it was told to.
const grace = time.Second

// bash prepares a script as a workflow's step would have it, with variables beside
// the environment, which has no secret of ours. The context ends it and what it
// started.
func (r *Runner) bash(ctx context.Context, script string, env ...string) (cmd *child.Cmd, remove func(), err error) {
	file, remove, err := r.Secrets.File([]byte(script + "\n")) // no argument, since it may have secrets too
	if err != nil {
		return nil, nil, err
	}
	cmd = child.Command(ctx, grace, "bash", "--noprofile", "--norc", "-eo", "pipefail", file)
	cmd.Env = slices.Concat(nix.StepEnviron(), r.Env, env)
	return cmd, remove, nil
}
