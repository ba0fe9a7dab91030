package hooks

import (
	"context"
	"time"

	"github.com/org/nix-matrix/pkg/job"
)

// PostGreen runs the user's script after a green verdict. Its variable NIX_MATRIX_PATHS names a file that
// has paths, a JSON object, as long as the script runs: attribute paths are the text of the flake's author, and so
// are in no text that a shell reads. The end of ctx stops the script.
func (r *Runner) PostGreen(ctx context.Context, script string, paths []byte) *job.Step {
	start := time.Now()
	r.Log.Doing("post_green")
	step := &job.Step{Outcome: job.StepDone}
	log := r.newLog()
	if err := r.postGreen(ctx, script, paths, log); err != nil {
		step = &job.Step{Outcome: job.StepFailed, Error: err.Error(), Log: log.last}
	}
	step.Seconds = time.Since(start).Seconds()
	r.Log.Printf("post_green: %s", step.Outcome)
	return step
}

func (r *Runner) postGreen(ctx context.Context, script string, paths []byte, log *scriptLog) error {
	file, remove, err := r.Secrets.File(append(paths, '\n'))
	if err != nil {
		return err
	}
	defer remove()
	cmd, removeScript, err := r.bash(ctx, script, "NIX_MATRIX_PATHS="+file)
	if err != nil {
		return err
	}
	defer removeScript()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return log.explain(err)
	}
	return nil
}
