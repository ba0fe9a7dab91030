package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/nix-matrix/internal/testbench"
)

var ended = regexp.MustCompile(`(?m)^nix-matrix: interrupted: (interrupt|terminated) signal received\n\z`)

// Whenever restore or save is told to stop, it ends soon and says so, the store has no
// half of a path, and the next one does the rest.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	testbench.PrivateNix(t)
	dir := t.TempDir()
	testbench.UseStore(t, filepath.Join(dir, "full"))
	write(t, filepath.Join(dir, "default.nix"), `
builtins.genList (n: derivation {
  name = "files-${toString n}";
  system = "x86_64-linux";
  builder = "/bin/sh";
  PATH = "/bin:/usr/bin";
  args = [ "-c" "mkdir $out; for i in $(seq 100); do head -c 40000 /dev/urandom >$out/$i; done" ];
}) 12
`)
	temp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(program string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+testbench.NixPath(t, "2.34")+":"+os.Getenv("PATH"), "HOME="+dir, "TMPDIR="+temp)
		return cmd
	}
	must := func(cmd *exec.Cmd) string {
		t.Helper()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
		return string(out)
	}
	random := testbench.Random(t)
	const most = 50 // tries to be in the middle
	stopped := 0
	// interrupt tells it to stop somewhere in the time that all of it takes.
	interrupt := func(all time.Duration, cmd *exec.Cmd) {
		t.Helper()
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.Int64N(int64(all)))) // the moment that is tested
		_ = cmd.Process.Signal([]os.Signal{os.Interrupt, syscall.SIGTERM}[random.IntN(2)])
		err := cmd.Wait()
		var exit *exec.ExitError
		switch {
		case err == nil: // it was done
		case errors.As(err, &exit) && exit.ExitCode() == -1: // it had not begun to listen
		case !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted || !ended.Match(said.Bytes()):
			t.Errorf("%v: %v\n%s", cmd.Args, err, &said)
		default:
			stopped++
		}
		if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
			t.Errorf("it left %q", left)
		}
	}

	must(run("nix-build", "--no-out-link"))
	begun := time.Now()
	must(run("nix-matrix", "save", "--cache", "dir:"+filepath.Join(dir, "measure")))
	took := time.Since(begun)
	for n := 0; n < 5 || stopped == 0 && n < most; n++ {
		interrupt(took, run("nix-matrix", "save", "--cache", "dir:"+filepath.Join(dir, fmt.Sprint("save", n))))
	}
	for n := range 3 { // into one cache, which may have all by then
		interrupt(took/time.Duration(n+1), run("nix-matrix", "save", "--cache", "dir:"+filepath.Join(dir, "cache")))
	}
	must(run("nix-matrix", "save", "--cache", "dir:"+filepath.Join(dir, "cache")))
	if stopped == 0 {
		t.Error("no save was stopped in the middle")
	}

	for _, engine := range []string{"direct", "protocol", "import"} {
		restore := func() *exec.Cmd {
			return run("nix-matrix", "restore", "--engine", engine, "--cache", "dir:"+filepath.Join(dir, "cache"))
		}
		testbench.UseStore(t, filepath.Join(dir, engine))
		begun = time.Now()
		must(restore())
		took = time.Since(begun)
		stopped = 0
		for n := 0; n < 5 || stopped == 0 && n < most; n++ {
			testbench.UseStore(t, filepath.Join(dir, fmt.Sprint(engine, n)))
			must(run("nix-store", "--init")) // which Nix itself does not do in one piece
			interrupt(took, restore())
			must(run("nix-store", "--verify", "--check-contents"))
			must(restore())
			if n := strings.Count(must(run("sh", "-c", "nix-store --verify --check-contents && ls -d /nix/store/*-files-*")), "/nix/store/"); n != 12 {
				t.Errorf("there are %d paths", n)
			}
		}
		if stopped == 0 {
			t.Errorf("no restore by %s was stopped in the middle", engine)
		}
	}
}
