package child_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/org/nix-matrix/internal/child"
)

const endAll = "CHILD_TEST_END_ALL"

func TestMain(m *testing.M) {
	if os.Getenv(endAll) == "" {
		os.Exit(m.Run())
	}
	if _, _, err := start(context.Background(), time.Hour, stubborn); err != nil {
		panic(err)
	}
	child.EndAll()
	fmt.Fprintln(os.Stderr, child.Command(context.Background(), 0, "true").Run())
}

// stubborn heeds no signal, and nor does a process that it starts.
const stubborn = `trap "" TERM INT; sleep 1000 & echo started; wait`

// start starts a script, waits until it has written a line and returns what more it writes.
func start(ctx context.Context, grace time.Duration, script string) (*child.Cmd, io.Reader, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd := child.Command(ctx, grace, "sh", "-c", script)
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	_ = w.Close()
	out := bufio.NewReader(r)
	_, err = out.ReadString('\n')
	return cmd, out, err
}

// The end of the context is that of all processes of the group.
func TestGroupEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, script string
		grace        time.Duration
	}{
		{"stubborn", stubborn, time.Millisecond},
		{"left behind", `trap "" TERM; sleep 1000 & trap - TERM; echo started; wait`, time.Hour},
		{"polite", `trap "echo told; exit" TERM; echo started; while :; do sleep 0.01; done`, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			cmd, out, err := start(ctx, tt.grace, tt.script)
			if err != nil {
				t.Fatal(err)
			}
			if group, err := syscall.Getpgid(cmd.Process.Pid); err != nil || group != cmd.Process.Pid {
				t.Errorf("its process group is %d, %v", group, err)
			}
			cancel()
			if err := cmd.Wait(); err == nil {
				t.Error("no error")
			}
			said, err := io.ReadAll(out) // which ends with the last process
			if err != nil || (string(said) == "told\n") != (tt.name == "polite") {
				t.Errorf("it said %q, %v", said, err)
			}
			if err := cmd.Kill(); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("kill after its end: %v", err)
			}
		})
	}
}

// A process that a program has left behind at its own end is the user's.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cmd, out, err := start(ctx, time.Second, `sleep 1000 & echo started; echo $!`)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	cancel()
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

func TestEndAll(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), endAll+"=1")
	said, err := cmd.CombinedOutput() // which ends with the last process
	if err != nil || string(said) != "the program ends\n" {
		t.Errorf("it said %q, %v", said, err)
	}
}

func TestOutput(t *testing.T) {
	t.Parallel()
	out, err := child.Command(t.Context(), 0, "sh", "-c", "echo out; echo reason >&2; exit 3").Output()
	exit := new(exec.ExitError)
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || string(exit.Stderr) != "reason\n" || string(out) != "out\n" {
		t.Errorf("%q, %v, %+v", out, err, exit)
	}
}

// All that a program has written before its end is read, however late the reader comes to it, and also if
// another process has its streams open.
func TestReadsAll(t *testing.T) {
	t.Parallel()
	const size = 60_000 // fits into a pipe
	for range 50 {
		out, err := child.Command(t.Context(), 1, "sh", "-c", "sleep 1000 & echo $!; head -c 60000 /dev/zero").Output()
		line, rest, _ := bytes.Cut(out, []byte("\n"))
		if pid, err := strconv.Atoi(string(line)); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil || len(rest) != size {
			t.Fatalf("got %d bytes, want %d, %v", len(rest), size, err)
		}
	}
}

// Both streams of a program may go to the same writer.
func TestOneWriter(t *testing.T) {
	t.Parallel()
	cmd := child.Command(t.Context(), 0, "sh", "-c", "for n in 1 2 3; do echo $n; echo $n >&2; done")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil || said.String() != "1\n1\n2\n2\n3\n3\n" {
		t.Errorf("it said %q, %v", &said, err)
	}
}

// A program ends if its output cannot be taken. If it does well all the same, that is the error.
func TestWriterFails(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	for script, want := range map[string]bool{"yes": false, "echo one line": true} {
		cmd := child.Command(t.Context(), 0, "sh", "-c", script)
		r, w := io.Pipe()
		_ = r.CloseWithError(full)
		cmd.Stdout = w
		if err := cmd.Run(); err == nil || errors.Is(err, full) != want {
			t.Errorf("%s: %v", script, err)
		}
	}
}
