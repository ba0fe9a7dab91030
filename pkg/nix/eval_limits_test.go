package nix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const slowly = `let fib = n: if n < 2 then n else fib (n - 1) + fib (n - 2); in builtins.trace "begun" (fib 60)`

// grows needs about 300 MB.
const grows = `builtins.deepSeq (builtins.genList (n: builtins.genList (x: x + n) 10000) 800)`

func nobody(string) bool { return false }

func TestEvalMemoryLimit(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		// An evaluator beyond the limit ends by that alone.
		e := Evaluation{Expr: grows + " (" + slowly + ")", Apply: "x: x", MemoryLimit: 150 << 20, InitialHeap: 50 << 20}
		err := n.Eval(t.Context(), e, nobody)
		var failed *Error
		if !errors.Is(err, ErrMemory) || !errors.As(err, &failed) || failed.Message != "needs more than 150 MiB to evaluate" || failed.Signaled() {
			t.Errorf("beyond the limit: %v", err)
		}
		e.Expr, e.MemoryLimit = grows+" 1", 4<<30
		if err := n.Eval(t.Context(), e, nobody); err != nil {
			t.Errorf("within the limit: %v", err)
		}
		// Where memory can't be watched, the evaluator reports the limit itself.
		e.MemoryLimit = 1 << 30
		e.Expr = `throw "error: out of memory"`
		if err := n.Eval(t.Context(), e, nobody); !errors.Is(err, ErrMemory) {
			t.Errorf("out of memory: %v", err)
		}
		e.MemoryLimit = 0
		if err := n.Eval(t.Context(), e, nobody); err == nil || errors.Is(err, ErrMemory) {
			t.Errorf("out of memory without a limit: %v", err)
		}
	})
}

// An evaluation that is no longer needed ends at once, any other after a time of grace. It would not end by
// itself.
func TestEvalEnds(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		for _, test := range []struct {
			cause error
			grace time.Duration
		}{{ErrEnough, 1000 * time.Hour}, {nil, 1}} {
			n := *n // eachNix shares n
			n.grace = test.grace
			ctx, cancel := context.WithCancelCause(t.Context())
			err := n.Eval(ctx, Evaluation{Expr: slowly, Apply: "x: x"}, func(line string) bool {
				if strings.Contains(line, "begun") {
					cancel(test.cause)
				}
				return false
			})
			var failed *Error
			if !errors.As(err, &failed) || !failed.Signaled() {
				t.Errorf("%v: %v", test.cause, err)
			}
		}
	})
}

// The whole output of an evaluator is read, even if the reader goes on only after the evaluator
// has ended, and if another process has its stderr open.
func TestEvalHearsAll(t *testing.T) {
	t.Setenv("NIX_CONFIG", os.Getenv("NIX_CONFIG")+"\nallow-unsafe-native-code-during-evaluation = true")
	eachNix(t, func(t *testing.T, n *Nix) {
		short := *n     // eachNix shares n
		short.grace = 1 // so that it waits for no other process
		n = &short
		for _, background := range []string{"true", "sleep 600", "yes"} {
			expr := `let pids = builtins.exec [ "/bin/sh" "-c" "` + background + ` >&2 & echo [ $! $PPID ]" ]; in
				builtins.foldl' (_: n: builtins.trace "word ${toString n}" n) 0 (builtins.trace "pids ${toString pids}" (builtins.genList (n: n) 2000))` // fits into a pipe
			var other, evaluator, heard int
			err := n.Eval(t.Context(), Evaluation{Expr: expr, Apply: "x: x"}, func(line string) bool {
				if _, pids, ok := strings.Cut(line, "pids "); ok {
					if _, err := fmt.Sscan(pids, &other, &evaluator); err != nil {
						t.Error(err)
					}
				}
				if strings.Contains(line, "word ") {
					for background == "true" && evaluator > 0 && syscall.Kill(evaluator, 0) == nil { // while yes runs, the pipe may be full, and the evaluator waits
						runtime.Gosched()
					}
					heard++
				}
				return true
			})
			if err != nil || heard != 2000 || other == 0 {
				t.Errorf("beside %q: %d of 2000 words, %v", background, heard, err)
			}
			if other > 0 {
				_ = syscall.Kill(other, syscall.SIGKILL) // it may have ended
			}
		}
	})
}

func TestEvalSearchPath(t *testing.T) {
	eachNix(t, func(t *testing.T, n *Nix) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x.nix"), []byte(`"found"`), 0o600); err != nil {
			t.Fatal(err)
		}
		var said []string
		e := Evaluation{Expr: "import <here/x.nix>", Path: []string{"here=" + dir, "other=/nowhere"}, Apply: `x: builtins.trace "it is ${x}" 1`}
		if err := n.Eval(t.Context(), e, func(line string) bool { said = append(said, line); return true }); err != nil {
			t.Error(err)
		}
		if !strings.Contains(strings.Join(said, "\n"), "it is found") {
			t.Errorf("it said %q", said)
		}
	})
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{7 << 29: "3.5 GiB", 4 << 30: "4 GiB", 512 << 20: "512 MiB", 1 << 30: "1 GiB", 1000 << 20: "1000 MiB", 10 << 30: "10 GiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}
