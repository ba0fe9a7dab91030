// Package hooks runs the user's own scripts: setup before everything, proviso for each target that is
// to be built, post_build for each target that was built, and post_green after a green verdict. A script is
// bash, as a step of a workflow is; it gets the variables of the secret env, and no other secret.
package hooks

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/secretdir"
)

// A Runner runs scripts.
type Runner struct {
	Secrets *secretdir.Dir // for the texts of scripts, which may contain secrets
	Env     []string       // variables of the secret env
	Log     Log
	Mask    func(secret string) // keeps a text out of the log of a job
}

// Log is where a person sees the output of scripts.
type Log interface {
	io.Writer
	Doing(format string, args ...any)
	Printf(format string, args ...any)
	Warn(title string, err error)
}

// SetUp runs a script before everything else, and adds the variables that it exports to the
// environment of this process. An empty script is none.
func (r *Runner) SetUp(ctx context.Context, script string) error {
	if strings.TrimSpace(script) == "" {
		return nil
	}
	r.Log.Doing("setting up")
	exported, remove, err := r.Secrets.File(nil)
	if err != nil {
		return err
	}
	defer remove()
	// However the script ends, it writes its environment last.
	const export = `env -0 >"$NIX_MATRIX_EXPORTED"`
	cmd, remove, err := r.bash(ctx, "trap '"+export+"' EXIT\n"+script+"\n"+export, "NIX_MATRIX_EXPORTED="+exported)
	if err != nil {
		return err
	}
	defer remove()
	step := r.newLog()
	cmd.Stdout, cmd.Stderr = step, step
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("setup failed: %w", step.explain(err))
	}
	return importEnv(exported, r.Env)
}

// importEnv adds the variables in a file to the environment of this process, without those of the
// secret env, which only some programs get.
func importEnv(file string, secrets []string) error {
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

// grace is how long a script may take to stop after SIGTERM.
const grace = time.Second

// bash prepares a script with the options of a workflow's step. Its environment has no secret of ours
// except env. The end of the context ends the script and its processes.
func (r *Runner) bash(ctx context.Context, script string, env ...string) (cmd *child.Cmd, remove func(), err error) {
	file, remove, err := r.Secrets.File([]byte(script + "\n")) // not an argument, because it may contain secrets
	if err != nil {
		return nil, nil, err
	}
	cmd = child.Command(ctx, grace, "bash", "--noprofile", "--norc", "-eo", "pipefail", file)
	cmd.Env = slices.Concat(nix.StepEnviron(), r.Env, env)
	return cmd, remove, nil
}
