package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/report"
	"github.com/org/nix-matrix/pkg/text"
	"github.com/org/nix-matrix/pkg/verdict"
)

// maxPathsOutput is the most UTF-16 code units of the output paths: half of what the outputs of the report may have.
const maxPathsOutput = job.MaxMatrix / 2

// outputPaths sets the output paths after a green verdict, for jobs that deploy. It returns the paths, and the room
// that is left for other outputs. Paths that are too large for an output go into a file, which becomes an artifact.
func (r *reporter) outputPaths(v *verdict.Verdict) (data []byte, room int, err error) {
	a := r.app
	room = job.MaxMatrix
	if v.Status != verdict.Success {
		return nil, room, nil
	}
	paths, data, err := a.paths(v)
	if err != nil {
		return nil, room, err
	}
	if size := verdict.OutputSize(data); size <= maxPathsOutput {
		return data, room - size, a.action.SetOutput("paths", string(data))
	}
	if !a.action.Running() {
		return data, room, nil
	}
	dir, err := a.action.TempDir(a.id)
	if err != nil {
		return nil, room, err
	}
	file := filepath.Join(dir, "paths.json")
	if err := r.docs.WritePaths(file, data); err != nil {
		return nil, room, err
	}
	a.action.Annotate(action.LevelNotice, "The output paths is empty", fmt.Sprintf("%s are too many for an output of a job. The artifact %s.paths has them", text.Plural(len(paths), "target"), a.id))
	return data, room, a.action.SetOutput("paths_file", file)
}

// paths returns the paths of a verdict and their JSON.
func (a *app) paths(v *verdict.Verdict) (paths verdict.Paths, data []byte, err error) {
	paths, ambiguous := v.Paths()
	if len(ambiguous) > 0 {
		a.log.Warn("Some targets are not in the output paths", fmt.Errorf("several flakes have these attributes, with different outputs: %s. Build each flake with an id of its own", text.Some(ambiguous, 20)))
	}
	data, err = paths.Marshal()
	return paths, data, err
}

// afterGreen runs the user's script after a green verdict, with the paths. Its failure changes no verdict, and makes the
// job red under its own name.
func (a *app) afterGreen(ctx context.Context, script string, paths []byte) error {
	if strings.TrimSpace(script) == "" {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if why := a.action.ForeignChange(); why != "" {
		a.log.Printf("post_green is skipped: %s", why)
		a.action.Annotate(action.LevelNotice, "post_green is skipped", why)
		return nil
	}
	scripts, err := a.hooks()
	if err != nil {
		return err
	}
	step := scripts.PostGreen(ctx, script, paths)
	a.log.Close()
	if step.Outcome == job.StepDone {
		return nil
	}
	a.log.Bad("post_green failed: %s", step.Error)
	a.action.Annotate(action.LevelError, "post_green failed", step.Error+". The verdict is green: run the failed jobs again once it is mended")
	if err := a.action.AddSummary(report.PostGreen(step)); err != nil {
		return err
	}
	return &redError{"post_green failed"}
}
