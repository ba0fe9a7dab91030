package hooks

import (
	"context"
	"strings"
	"testing"

	"github.com/org/nix-matrix/pkg/job"
)

// built returns a Plan of one target, and its Result.
func built() (*job.Plan, *job.Result) {
	plan := &job.Plan{Targets: []job.Target{{Attr: "packages.a", Name: "a", System: "x86_64-linux", Kind: job.Package}}}
	return plan, &job.Result{Targets: []job.TargetResult{{
		N: 0, Attr: "packages.a", DrvPath: "/nix/store/a.drv", Outcome: job.OutcomeBuilt,
		Outputs: []job.Output{{Name: "out", Path: "/nix/store/a"}, {Name: "dev", Path: "/nix/store/a-dev"}},
	}}}
}

// The script gets the target in its environment.
func TestPostBuild(t *testing.T) {
	r, l, _ := newRunner(t, "TOKEN=s3cret-token")
	plan, result := built()
	r.PostBuild(t.Context(), &PostBuild{
		Script: `echo "$NIX_MATRIX_ATTR $NIX_MATRIX_NAME $NIX_MATRIX_KIND $NIX_MATRIX_SYSTEM $NIX_MATRIX_DRV $NIX_MATRIX_OUT $NIX_MATRIX_OUTPUTS ${#TOKEN} $NIX_REMOTE $NIX_SSHOPTS"`,
		Remote: "ssh-ng://builder", SSH: "-i key",
	}, plan, result)
	want := `packages.a a package x86_64-linux /nix/store/a.drv /nix/store/a {"dev":"/nix/store/a-dev","out":"/nix/store/a"} 12 ssh-ng://builder -i key` + "\n"
	if l.text() != want {
		t.Errorf("got %q, want %q", l.text(), want)
	}
	if got := result.Targets[0]; got.Outcome != job.OutcomeBuilt || got.PostBuild.Outcome != job.StepDone {
		t.Errorf("the target is %s, post_build %+v", got.Outcome, got.PostBuild)
	}
}

// A target is red if its script fails, and cancelled if the end of the run ended the script.
func TestPostBuildOutcome(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	for name, test := range map[string]struct {
		ctx     context.Context
		script  string
		outcome job.Outcome
		says    string
		step    string
	}{
		"fails":             {t.Context(), "echo no route\nexit 4", job.OutcomeFailed, "post_build failed: exit status 4: no route", job.StepFailed},
		"the run has ended": {ended, "true", job.OutcomeCancelled, "it was stopped before post_build", ""},
		"no script":         {ended, " ", job.OutcomeBuilt, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, _, _ := newRunner(t)
			plan, result := built()
			r.PostBuild(test.ctx, &PostBuild{Script: test.script}, plan, result)
			got := result.Targets[0]
			if got.Outcome != test.outcome || got.Error != test.says || (got.PostBuild == nil) != (test.step == "") || got.PostBuild != nil && got.PostBuild.Outcome != test.step {
				t.Errorf("the target is %s: %q, post_build %+v", got.Outcome, got.Error, got.PostBuild)
			}
		})
	}
	t.Run("log", func(t *testing.T) {
		r, _, _ := newRunner(t)
		plan, result := built()
		r.PostBuild(t.Context(), &PostBuild{Script: "echo one\necho two\nfalse"}, plan, result)
		if got := result.Targets[0]; len(got.Log) != 2 || len(got.PostBuild.Log) != 2 {
			t.Errorf("the log is %q, that of post_build %q", got.Log, got.PostBuild.Log)
		}
	})
	t.Run("stopped", func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		r, l, _ := newRunner(t)
		l.wrote = func(string) { stop() }
		plan, result := built()
		r.PostBuild(ctx, &PostBuild{Script: "echo started\nsleep 1000"}, plan, result)
		if got := result.Targets[0]; got.Outcome != job.OutcomeCancelled || got.PostBuild != nil {
			t.Errorf("the target is %s: %q, post_build %+v", got.Outcome, got.Error, got.PostBuild)
		}
	})
}

// A script that lacks a variable, or the pushed outputs, is skipped, and one target that failed has none.
func TestPostBuildSkipped(t *testing.T) {
	for name, test := range map[string]struct {
		env    []string
		needs  []string
		pushes []job.Push
		want   string // empty if the script runs
	}{
		"an empty secret":     {[]string{"TOKEN="}, nil, nil, "TOKEN is not set"},
		"no such variable":    {nil, []string{"NEEDED_HERE"}, nil, "NEEDED_HERE is not set"},
		"an empty variable":   {nil, []string{"EMPTY_HERE"}, nil, "EMPTY_HERE is not set"},
		"all variables":       {[]string{"TOKEN=s3cret-token"}, []string{"TOKEN", "SET_HERE"}, nil, ""},
		"a push that failed":  {nil, nil, []job.Push{{Destination: "ours", Error: "refused"}}, "not all was pushed to ours"},
		"an optional push":    {nil, nil, []job.Push{{Destination: "ours", Error: "refused", Optional: true}}, ""},
		"a push that is done": {nil, nil, []job.Push{{Destination: "ours"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("EMPTY_HERE", "")
			t.Setenv("SET_HERE", "yes")
			r, _, _ := newRunner(t, test.env...)
			plan, result := built()
			result.Pushes = test.pushes
			result.Targets = append(result.Targets, job.TargetResult{Outcome: job.OutcomeFailed})
			r.PostBuild(t.Context(), &PostBuild{Script: "true", Needs: test.needs}, plan, result)
			step := result.Targets[0].PostBuild
			switch {
			case step == nil:
				t.Fatal("there is no step")
			case test.want == "" && step.Outcome != job.StepDone:
				t.Errorf("got %+v", step)
			case test.want != "" && (step.Outcome != job.StepSkipped || !strings.HasPrefix(step.Error, test.want)):
				t.Errorf("got %+v, want %q", step, test.want)
			}
			if failed := result.Targets[1]; failed.PostBuild != nil || result.Targets[0].Outcome != job.OutcomeBuilt {
				t.Errorf("the failed target has %+v, the other is %s", failed.PostBuild, result.Targets[0].Outcome)
			}
		})
	}
}
