package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/action"
	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/reuse"
	"github.com/org/nix-matrix/pkg/storecache"
)

// A panic is an error, with which all that follows an error is done.
func TestCrash(t *testing.T) {
	var log bytes.Buffer
	a := newApp(streams{out: &log, err: &log}, func(string) string { return "" })
	err := execute(t.Context(), &cobra.Command{RunE: func(*cobra.Command, []string) error { panic("here") }, Args: cobra.ArbitraryArgs})
	a.fail("nix-matrix failed", err)
	if !strings.HasPrefix(log.String(), "nix-matrix: nix-matrix crashed: here. Report it, with the log") || !strings.Contains(log.String(), "main_test.go") {
		t.Errorf("got %s", &log)
	}
}

// Each kind of error has its exit code, as --help says.
func TestExitCodes(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, test := range []struct {
		name string
		err  error
		ctx  context.Context
		want int
	}{
		{"none", nil, t.Context(), 0},
		{"red", &redError{"failure"}, t.Context(), 1},
		{"anything else", errors.New("x"), t.Context(), 1},
		{"usage", usage.Errorf("x"), t.Context(), 2},
		{"no Nix", nix.ErrMissing, t.Context(), 3},
		{"no daemon", nix.ErrUnreachable, t.Context(), 3},
		{"distrust", nix.ErrUntrusted, t.Context(), 3},
		{"no permission at GitHub", action.ErrForbidden, t.Context(), 3},
		{"full disk", &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, t.Context(), 3},
		{"quota", &os.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}, t.Context(), 3},
		{"interrupted", errors.New("x"), stopped, 130},
		{"red and interrupted", &redError{"cancelled"}, stopped, 130},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			a := newApp(streams{out: &log, err: &log}, func(string) string { return "" })
			err := test.err
			if err != nil {
				err = fmt.Errorf("do something: %w", err)
			}
			if got := a.exitCode(test.ctx, err); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
			var red *redError
			if told := log.Len() > 0; told != (err != nil && !errors.As(err, &red)) {
				t.Errorf("it said %q", &log)
			}
		})
	}
}

// A Ctrl-C after a hangup is the first one: the Result is still written.
func TestHangupThenInterrupt(t *testing.T) {
	for _, test := range []struct {
		name string
		told []os.Signal
		hard bool
	}{
		{"twice Ctrl-C", []os.Signal{os.Interrupt, os.Interrupt}, true},
		{"Ctrl-C and SIGTERM", []os.Signal{os.Interrupt, syscall.SIGTERM}, false},
		{"hangup and Ctrl-C", []os.Signal{syscall.SIGHUP, os.Interrupt}, false},
		{"SIGTERM and Ctrl-C", []os.Signal{syscall.SIGTERM, os.Interrupt}, false},
		{"hangup and twice Ctrl-C", []os.Signal{syscall.SIGHUP, os.Interrupt, os.Interrupt}, true},
		{"Ctrl-C, hangup, Ctrl-C", []os.Signal{os.Interrupt, syscall.SIGHUP, os.Interrupt}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			told := make(chan os.Signal, len(test.told))
			for _, sig := range test.told {
				told <- sig
			}
			close(told)
			stopped := 0
			hard := second(told, func(error) { stopped++ })
			if hard != test.hard || stopped != 1 {
				t.Errorf("it ends the hard way: %v; stopped %d times", hard, stopped)
			}
		})
	}
}

// testRow is a row of a matrix.
const testRow = `{"name":"a","id":"ca978112ca","platform":"x86_64-linux","system":"x86_64-linux","drvPath":"/nix/store/00000000000000000000000000000000-a.drv","outputs":["out"],"runner":["ubuntu-latest"],"plan":"x","targets":[{"n":0,"attr":"a","drvPath":"/nix/store/00000000000000000000000000000000-a.drv"}]}`

// A worker's Result says that it crashed.
func TestCrashResult(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	file := filepath.Join(dir, "result.json")
	var log bytes.Buffer
	a := newApp(streams{out: &log, err: &log}, func(string) string { return "" })
	a.id = job.DefaultID
	b := &builder{app: a, job: testRow, resultFile: file, working: workingFlags{reclaim: "auto"}, packing: packing{policy: storecache.Off, engine: reuse.EngineChoice{Name: "auto"}}}
	a.log.Display = nil
	err := b.run(t.Context())
	var crash *crashError
	if !errors.As(err, &crash) {
		t.Fatalf("got %v", err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	result, err := job.ParseResult(data)
	if err != nil || result.Outcome != job.OutcomeFailed || !strings.HasPrefix(result.Error, "nix-matrix crashed: ") {
		t.Errorf("got %+v, %v", result, err)
	}
}

// A worker's Result says which values are wrong, in an input as in a flag.
func TestWrongValueResult(t *testing.T) {
	file := filepath.Join(t.TempDir(), "result.json")
	a, said := newTestApp(t, map[string]string{"timeout": "soon", "push_required": "yes"})
	if code := a.run(t.Context(), []string{"build", "--job", testRow, "--result", file, "--engine", "quick"}); code != exitUsage {
		t.Errorf("the exit code is %d, want %d: %s", code, exitUsage, said)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	result, err := job.ParseResult(data)
	if err != nil {
		t.Fatal(err)
	}
	const want = "invalid value \"quick\" for --engine: must be auto, direct, protocol or import\n" +
		"invalid value \"yes\" for --push-required: must be true or false\n" +
		"invalid value \"soon\" for --timeout: must be a time such as 90m or 1h30m"
	if result.Outcome != job.OutcomeFailed || result.Error != want {
		t.Errorf("it is %s: %s, want %s", result.Outcome, result.Error, want)
	}
}
