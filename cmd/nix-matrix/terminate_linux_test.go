package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/nix-matrix/internal/testbench"
	"github.com/org/nix-matrix/pkg/job"
)

// Whenever a worker is told to stop, it ends soon, its Result is
// there and valid, and what it says was built is in the binary cache.
func TestTerminated(t *testing.T) {
	t.Parallel()
	testbench.PrivateNix(t)
	dir := t.TempDir()
	testbench.UseStore(t, filepath.Join(dir, "store"))
	write(t, filepath.Join(dir, "chain.nix"), `
let
  step = n: input: derivation {
    name = "step-${toString n}";
    system = "x86_64-linux";
    builder = "/bin/sh";
    PATH = "/bin:/usr/bin";
    args = [ "-c" "sleep 0.1; echo ${builtins.getEnv "SEED"} ${input} > $out" ];
  };
  chain = n: if n == 0 then "" else "${step n (chain (n - 1))}";
in
{ chain = step 9 (chain 8); }
`)
	env := append(os.Environ(), "PATH="+testbench.NixPath(t, "2.34")+":"+os.Getenv("PATH"), "HOME="+dir, "NO_COLOR=1")
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "nix-matrix", append(args, "--cache", "dir:"+filepath.Join(dir, "cache"))...)
		cmd.Dir, cmd.Env = dir, env
		return cmd
	}
	random := testbench.Random(t)
	stopped := 0
	for i := range 30 {
		env = append(env, fmt.Sprintf("SEED=%d-%d", random.Uint64(), i)) // so that nothing is built already
		matrix, err := command("discover", "-f", "chain.nix").Output()
		if err != nil {
			t.Fatal(err)
		}
		entry, ok := bytes.CutSuffix(bytes.TrimPrefix(bytes.TrimSpace(matrix), []byte(`{"include":[`)), []byte(`]}`))
		if !ok {
			t.Fatalf("the matrix is %s", matrix)
		}
		file, destination := filepath.Join(dir, "result.json"), filepath.Join(dir, "pushed")
		_ = os.Remove(file)
		build := command("build", "--job", string(entry), "--result", file, "--push", "file://"+destination)
		var said strings.Builder
		build.Stderr = &said
		if err := build.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.IntN(1200)) * time.Millisecond) // the moment that is tested
		_ = build.Process.Signal(syscall.SIGTERM)
		err = build.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == -1 {
			continue // it was told before it had begun to listen, and has not begun anything
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%d: %v\n%s", i, err, said.String())
			continue
		}
		result, err := job.ParseResult(data)
		if err != nil {
			t.Errorf("%d: %v\n%s", i, err, data)
			continue
		}
		if result.Outcome == job.OutcomeCancelled {
			stopped++
		} else if result.Outcome != job.OutcomeBuilt {
			t.Errorf("%d: the outcome is %s: %s", i, result.Outcome, result.Error)
		}
		for _, b := range result.Builds {
			if out := lost(t, destination, b); out != "" {
				t.Errorf("%d: %s was built and is lost: %+v\n%s", i, out, result.Pushes, said.String())
			}
		}
	}
	if stopped == 0 {
		t.Error("none was stopped in the middle")
	}
}

// lost returns the output of a derivation that is in the store and not in the binary
// cache, or an empty text.
func lost(t *testing.T, destination string, b job.DrvBuild) string {
	t.Helper()
	drv, err := os.ReadFile(b.DrvPath)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(drv), `("out","`)
	out, _, _ := strings.Cut(rest, `"`)
	if exec.CommandContext(t.Context(), filepath.Join(testbench.NixPath(t, "2.34"), "nix-store"), "--check-validity", out).Run() != nil {
		return "" // it was stopped before it was whole
	}
	hash, _, _ := strings.Cut(filepath.Base(out), "-")
	if _, err := os.Stat(filepath.Join(destination, hash+".narinfo")); err != nil {
		return out
	}
	return ""
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
