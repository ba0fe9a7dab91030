package hooks

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/org/nix-matrix/pkg/secretdir"
)

// log keeps what a person would see.
type log struct {
	mu    sync.Mutex
	lines []string
	warns []string
	wrote func(line string) // is called for each line of a script; may be nil
}

func (l *log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	if l.wrote != nil {
		l.wrote(string(line))
	}
	return len(line), nil
}

func (l *log) Doing(string, ...any)  {}
func (l *log) Printf(string, ...any) {}

func (l *log) Warn(title string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.warns = append(l.warns, fmt.Sprintf("%s: %v", title, err))
}

func (l *log) text() string { return strings.Join(l.lines, "") }

// newRunner returns a Runner with the variables of the secret env, its log, and the texts that it
// masks.
func newRunner(t *testing.T, env ...string) (r *Runner, l *log, masked *[]string) {
	t.Helper()
	l, masked = &log{}, new([]string)
	secrets := &secretdir.Dir{}
	t.Cleanup(func() {
		if err := secrets.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Runner{Secrets: secrets, Env: env, Log: l, Mask: func(secret string) { *masked = append(*masked, secret) }}, l, masked
}

// restore has the test put variables back that a setup changes.
func restore(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		t.Setenv(name, "before")
	}
}

// The exports of a setup are in the environment of this process, however the script ends, and secrets
// are not.
func TestSetUp(t *testing.T) {
	const script = "export EXPORTED=$'two\\nlines'\nexport SEEN=$TOKEN-$ACTIONS_RUNTIME_TOKEN\nLOCAL=no\n"
	for name, end := range map[string]string{"at its end": "", "by exit": "exit 0", "with a trap gone": "trap - EXIT"} {
		t.Run(name, func(t *testing.T) {
			restore(t, "EXPORTED", "SEEN", "TOKEN", "PWD")
			t.Setenv("ACTIONS_RUNTIME_TOKEN", "of-the-runner")
			r, _, _ := newRunner(t, "TOKEN=s3cret-token")
			if err := r.SetUp(t.Context(), script+"cd /\n"+end); err != nil {
				t.Fatal(err)
			}
			for variable, want := range map[string]string{"EXPORTED": "two\nlines", "SEEN": "s3cret-token-", "TOKEN": "before", "PWD": "before"} {
				if got := os.Getenv(variable); got != want {
					t.Errorf("%s is %q, want %q", variable, got, want)
				}
			}
			for _, variable := range []string{"LOCAL", "NIX_MATRIX_EXPORTED"} {
				if got, ok := os.LookupEnv(variable); ok {
					t.Errorf("%s is %q", variable, got)
				}
			}
		})
	}
}

// A setup that fails exports nothing, and says how it failed.
func TestSetUpFails(t *testing.T) {
	restore(t, "EXPORTED")
	r, _, _ := newRunner(t, "TOKEN=s3cret-token")
	err := r.SetUp(t.Context(), "export EXPORTED=yes\necho no route with $TOKEN >&2\nfalse | true\necho not here")
	if err == nil || !strings.HasSuffix(err.Error(), "exit status 1: no route with ***") {
		t.Errorf("got %v", err)
	}
	if got := os.Getenv("EXPORTED"); got != "before" {
		t.Errorf("EXPORTED is %q", got)
	}
	if err := r.SetUp(t.Context(), " \n"); err != nil {
		t.Errorf("without a script: %v", err)
	}
}

// Secrets, and texts that the script masks, are in no line of the log and in no error.
func TestMasking(t *testing.T) {
	r, l, masked := newRunner(t, "TOKEN=s3cret-token", "EMPTY=")
	err := r.SetUp(t.Context(), `echo "it is $TOKEN and 0therwise"
echo "  ::add-mask::0therwise"
echo "it is $TOKEN and 0therwise" >&2
printf 'the last has s3cret-token and 0therwise'
exit 1`)
	if want := "it is *** and 0therwise\nit is *** and ***\nthe last has *** and ***\n"; l.text() != want {
		t.Errorf("the log is %q, want %q", l.text(), want)
	}
	if len(*masked) != 1 || (*masked)[0] != "0therwise" {
		t.Errorf("masked is %q", *masked)
	}
	if err == nil || !strings.Contains(err.Error(), "the last has *** and ***") {
		t.Errorf("the error is %v", err)
	}
}

// A log keeps the last lines, and cuts those that are too long.
func TestScriptLog(t *testing.T) {
	r, l, _ := newRunner(t)
	out := r.newLog()
	out.limit = 2
	for i := range keptLines + 5 {
		fmt.Fprintf(out, "line %d\n", i)
	}
	if want := "line 0\nline 1\n… the rest is left out\n"; l.text() != want {
		t.Errorf("the log is %q, want %q", l.text(), want)
	}
	if len(out.last) != keptLines || out.last[0] != "line 5" {
		t.Errorf("%d lines are kept, from %q on", len(out.last), out.last[0])
	}
	for range 3 {
		fmt.Fprint(out, strings.Repeat("x", maxLinePart/2))
	}
	if len(out.part) >= maxLinePart {
		t.Errorf("%d bytes are kept of a line without an end", len(out.part))
	}
	if last := out.last[keptLines-1]; !strings.HasPrefix(last, "xxx") || len(last) > maxLine+len("…") {
		t.Errorf("a line of %d bytes is kept", len(last))
	}
}

// The end of the run ends a script with all processes that it started. They hold a pipe open, which the
// test reads until the last of them is gone.
func TestProcessGroup(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PIPE", pipe)
	reading, err := os.OpenFile(pipe, os.O_RDWR, 0) // does not wait for a writer
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r, l, _ := newRunner(t)
	l.wrote = func(line string) {
		if line == "started\n" {
			stop()
		}
	}
	err = r.SetUp(ctx, `exec 3>"$PIPE"
(trap '' TERM; while :; do sleep 1000; done) &
echo started
wait`)
	if err == nil {
		t.Error("a setup that was stopped is no error")
	}
	end, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := reading.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, end); err != nil { // ends with the last writer
		t.Error(err)
	}
}
