package realise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/nix"
)

const logName = "00000000000000000000000000000000-%s.log"

func logOf(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf(logName, name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The whole logs of failed derivations are kept, and no others.
func TestLogs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	var lines []string
	for i := range 5000 {
		lines = append(lines, fmt.Sprintf("line %d", i))
	}
	s := &store{
		valid: map[string]bool{}, inputs: map[string][]string{"host": {"good", "lib"}},
		lines: map[string][]string{"lib": lines, "mute": {}}, fails: map[string]string{"lib": failed("lib"), "mute": failed("mute")},
	}
	got, err := Run(t.Context(), s, targetsOf("host", "good", "mute"), Options{Emit: func(nix.Event) {}, Logs: dir})
	if err != nil || outcomes(got) != "failed built failed" {
		t.Fatal(err, outcomes(got))
	}
	// A build without output has no log.
	if diff := cmp.Diff([]string{fmt.Sprintf(logName, "lib")}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(strings.Join(lines, "\n")+"\n", logOf(t, dir, "lib")); diff != "" {
		t.Error(diff)
	}
	if log := got.Targets[0].Log; len(log) != logLines || log[logLines-1] != "line 4999" {
		t.Errorf("of the log, the result has %q", log)
	}
}

func TestLogsOfGood(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "logs")
	s := &store{valid: map[string]bool{}}
	if _, err := Run(t.Context(), s, targetsOf("good", "better"), Options{Emit: func(nix.Event) {}, Logs: dir}); err != nil {
		t.Fatal(err)
	}
	if left := files(t, parent); left != nil {
		t.Errorf("left behind: %q", left)
	}
	// Nor is one created if nothing is built.
	if _, err := Run(t.Context(), s, targetsOf("good"), Options{Emit: func(nix.Event) {}, Logs: dir}); err != nil {
		t.Fatal(err)
	}
	if left := files(t, parent); left != nil {
		t.Errorf("made: %q", left)
	}
	// The logs of an earlier run are removed.
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf(logName, "before")), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), s, targetsOf("good"), Options{Emit: func(nix.Event) {}, Logs: dir}); err != nil {
		t.Fatal(err)
	}
	if left := files(t, parent); left != nil {
		t.Errorf("left behind: %q", left)
	}
	// Without a directory, there are no logs, not even in the working directory.
	t.Chdir(parent)
	s.fails = map[string]string{"fourth": failed("fourth")}
	if _, err := Run(t.Context(), s, targetsOf("fourth"), Options{Emit: func(nix.Event) {}}); err != nil {
		t.Fatal(err)
	}
	if left := files(t, parent); left != nil {
		t.Errorf("made: %q", left)
	}
}

// A derivation's name may have characters that a file in an artifact may not.
func TestLogName(t *testing.T) {
	l := newLogs(t.TempDir(), false)
	drv := drvPath("a?b+c=d.e_f")
	l.see(nix.Event{Kind: nix.BuildLine, Path: drv, Text: "x"})
	l.end(drv)
	l.keepFailed([]string{drv})
	if diff := cmp.Diff([]string{fmt.Sprintf(logName, "a_b+c=d.e_f")}, files(t, l.dir)); diff != "" {
		t.Error(diff)
	}
}

// The log of a retried derivation is that of the last try.
func TestLogsOfTries(t *testing.T) {
	l := newLogs(t.TempDir(), false)
	for _, try := range []string{"first", "second"} {
		l.see(nix.Event{Kind: nix.BuildStarted, Path: drvPath("src")})
		l.see(nix.Event{Kind: nix.BuildLine, Path: drvPath("src"), Text: try})
		l.see(nix.Event{Kind: nix.BuildStopped, Path: drvPath("src")})
	}
	l.keepFailed([]string{drvPath("src")})
	if got := logOf(t, l.dir, "src"); got != "second\n" {
		t.Errorf("got %q", got)
	}
}

// Logs that are written during a stop are complete, of ended and of unfinished builds.
func TestLogsOfStopped(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	s := &store{
		valid: map[string]bool{}, stop: "slow", cancel: cancel, fails: map[string]string{"bad": failed("bad")},
		lines: map[string][]string{"slow": {"slow 1", "slow 2"}, "bad": {"bad"}},
	}
	emit := func(e nix.Event) {
		if e.Kind == nix.BuildLine && e.Text == "slow 2" {
			// Nix itself was killed, so there is no event for the end of this build.
			r := s.running
			r(nix.Event{Kind: nix.BuildStarted, Path: drvPath("endless")})
			r(nix.Event{Kind: nix.BuildLine, Path: drvPath("endless"), Text: "endless 1"})
		}
	}
	got, err := Run(ctx, s, targetsOf("good", "bad", "slow"), Options{Emit: emit, Logs: dir})
	if err != nil || outcomes(got) != "built failed cancelled" {
		t.Fatal(err, outcomes(got))
	}
	want := []string{fmt.Sprintf(logName, "bad"), fmt.Sprintf(logName, "endless"), fmt.Sprintf(logName, "slow")}
	if diff := cmp.Diff(want, files(t, dir)); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]string{"bad": "bad\n", "slow": "slow 1\nslow 2\n", "endless": "endless 1\n"} {
		if got := logOf(t, dir, name); got != want {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// If the store cannot be queried after the build, logs that may be needed are kept.
func TestLogsWithoutStore(t *testing.T) {
	for _, method := range []string{"Closure", "Outputs"} {
		dir := filepath.Join(t.TempDir(), "logs")
		s := &store{valid: map[string]bool{}, fails: map[string]string{"bad": failed("bad")}, broken: map[string]error{method: errors.New("gone")}}
		if _, err := Run(t.Context(), s, targetsOf("good", "bad"), Options{Emit: func(nix.Event) {}, Logs: dir}); err == nil {
			t.Error("no error")
		}
		want := []string{fmt.Sprintf(logName, "bad")}
		if method == "Outputs" { // by which it is known which of them failed
			want = append(want, fmt.Sprintf(logName, "good"))
		}
		if diff := cmp.Diff(want, files(t, dir)); diff != "" {
			t.Errorf("%s:\n%s", method, diff)
		}
	}
}

// A log that cannot be written is no failure.
func TestLogsNowhere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	blocked := filepath.Join(t.TempDir(), "blocked")
	for _, dir := range []string{filepath.Join(file, "logs"), blocked} {
		s := &store{valid: map[string]bool{}, fails: map[string]string{"bad": failed("bad"), "worse": failed("worse")}}
		got, err := Run(t.Context(), s, targetsOf("bad", "good", "worse"), Options{Logs: dir, Emit: func(e nix.Event) {
			if e.Kind == nix.BuildStarted && e.Path == drvPath("bad") { // whose log there is no room for
				_ = os.MkdirAll(filepath.Join(dir, fmt.Sprintf(logName, "bad")), 0o700)
			}
		}})
		if err != nil || outcomes(got) != "failed built failed" || len(got.Targets[0].Log) != logLines {
			t.Errorf("%s: %v, %s", dir, err, outcomes(got))
		}
	}
	if got := logOf(t, blocked, "worse"); !strings.HasPrefix(got, "line 0 of worse\n") {
		t.Errorf("the one that can be written has %q", got)
	}
}

// The beginning of an endless log is kept, with a note.
func TestLogsBound(t *testing.T) {
	l := newLogs(t.TempDir(), false)
	say := func(text string) { l.see(nix.Event{Kind: nix.BuildLine, Path: drvPath("x"), Text: text}) }
	say("first")
	if size := l.open[drvPath("x")].size; size != 6 {
		t.Errorf("it counts %d bytes", size)
	}
	l.open[drvPath("x")].size = maxLog - 4
	for _, text := range []string{"1", "2", "3", "4"} {
		say(text)
	}
	l.see(nix.Event{Kind: nix.BuildStopped, Path: drvPath("x")})
	if got := logOf(t, l.dir, "x"); got != "first\n1\n2\n… the log is longer than 256 MiB\n" {
		t.Errorf("got %q", got)
	}
	// The next build has the whole limit again.
	say("again")
	l.close()
	if got := logOf(t, l.dir, "x"); got != "again\n" {
		t.Errorf("got %q", got)
	}
}
