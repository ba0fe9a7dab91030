package engine

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	reapCommand   = "reap"
	orphanCommand = "orphan"
)

// reap runs a command, kills it when stdin ends, and returns its exit code when the
// command and all processes that it started have ended. Processes whose parent was
// killed become children of this one.
func reap(command []string) int {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		panic(err)
	}
	p, err := os.StartProcess(command[0], command, &os.ProcAttr{Files: []*os.File{null, os.Stdout, os.Stderr}})
	if err != nil {
		panic(err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = p.Kill()
	}()
	code := 1
	for {
		var status unix.WaitStatus
		switch pid, err := unix.Wait4(-1, &status, 0, nil); {
		case err == unix.ECHILD:
			return code
		case err == nil && pid == p.Pid:
			code = status.ExitStatus() // -1 of a process that was killed
		}
	}
}

// startReaped starts a command that kill kills. wait returns when all processes that it
// started have ended, too, because only then none of them has the store open. The command's
// stdout is out.
func startReaped(t *testing.T, cmd *exec.Cmd) (out *bufio.Reader, kill func(), wait func() error) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd.Args = append([]string{self, reapCommand, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = self
	in, err := cmd.StdinPipe()
	must(t, err)
	r, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	out = bufio.NewReader(r)
	return out, func() { _ = in.Close() }, func() error {
		_, _ = io.Copy(io.Discard, out)
		return cmd.Wait()
	}
}

// orphan creates a file when it has read a pipe to its end.
func orphan(pipe, file string) {
	if _, err := os.ReadFile(pipe); err != nil {
		panic(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		panic(err)
	}
}

// wait waits for the processes that a killed process started.
func TestReap(t *testing.T) {
	dir := t.TempDir()
	pipe, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	must(t, unix.Mkfifo(pipe, 0o600))
	out, kill, wait := startReaped(t, exec.CommandContext(t.Context(), "/bin/sh", "-c", `"$@" >/dev/null & echo started; kill -STOP $$`, "sh", os.Args[0], orphanCommand, pipe, file))
	if line, err := out.ReadString('\n'); line != "started\n" {
		t.Fatalf("%q, %v", line, err)
	}
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for the reader
	must(t, err)
	kill()
	waited := make(chan error, 1)
	go func() { waited <- wait() }()
	must(t, w.Close())
	if err := <-waited; err == nil {
		t.Error("it was not killed")
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a process goes on: %v", err)
	}
}
