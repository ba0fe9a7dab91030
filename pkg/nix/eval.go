package nix

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/org/nix-matrix/internal/child"
)

// An Evaluation applies a function to a value from the user's code.
type Evaluation struct {
	// Flake and Attr name a value of a flake; an empty Attr is all its outputs,
	// which needs EvaluatesWholeFlakes. Nix tries no prefix before Attr, except in versions
	// that always do. It is escaped as in a URL.
	Flake, Attr string
	// Expr is a Nix expression, used when Flake is empty and evaluated impurely.
	Expr string
	// Path has entries of the search path, NAME=PATH, for Expr.
	Path []string
	// Apply is a Nix function of the value. Its result must be small.
	Apply string
	// Printed receives the result as Nix prints it for people, where versions that can do so
	// print errors in place of list items that fail. If it is nil, the result is dropped, and
	// an item that fails is an error.
	Printed io.Writer
	// MemoryLimit is the most bytes of memory that the evaluator may use; 0 is no
	// limit. Programs that it starts don't count.
	MemoryLimit int64
	// Used is set to the bytes of memory that the evaluator uses, where the system tells. It
	// may be nil.
	Used *atomic.Int64
	// InitialHeap is how many bytes an evaluator allocates before it first collects garbage;
	// 0 leaves that to Nix. The user's variable GC_INITIAL_HEAP_SIZE overrides it.
	InitialHeap int64
}

var (
	// ErrMemory means that an evaluator needed more memory than it may use.
	ErrMemory = errors.New("the evaluator needs more memory than it may use")
	// ErrEnough is the cause to cancel an evaluation with if it is to end at once, because
	// the rest of its result is known already.
	ErrEnough = errors.New("the evaluation is no longer needed")
)

// memoryInterval is the time between two readings of an evaluator's memory.
const memoryInterval = 50 * time.Millisecond

// Eval runs an evaluator. Derivations that it instantiates are in the store afterwards. line is
// called with each line that the evaluator writes to stderr, as it is written; the lines for
// which it returns false make up the message of an error. Eval returns after the last line,
// however slow line is, and even if other processes have stderr open. A line of more than 1 MiB
// may lack some of its middle.
//
// An evaluator ignores signals while it does nothing but evaluate, so that when ctx ends, it is
// killed only after a moment, unless the cause is [ErrEnough].
func (n *Nix) Eval(ctx context.Context, e Evaluation, line func(string) bool) error {
	cmd := n.command(ctx, "nix", n.evaluation(e))
	unclaimed := &tail{limit: 16 << 10}
	cmd.Stdout = e.Printed
	cmd.Stderr = &lineWriter{line: func(text string) {
		if !line(text) {
			_, _ = unclaimed.Write([]byte(text[:min(len(text), 8<<10)] + "\n")) // never fails
		}
	}}
	if e.MemoryLimit > 0 {
		// Where memory can't be watched, the evaluator limits itself, though only after it has
		// collected garbage for a while.
		cmd.Env = append(cmd.Env, "GC_MAXIMUM_HEAP_SIZE="+strconv.FormatInt(e.MemoryLimit, 10))
	}
	if e.InitialHeap > 0 && os.Getenv("GC_INITIAL_HEAP_SIZE") == "" {
		cmd.Env = append(cmd.Env, "GC_INITIAL_HEAP_SIZE="+strconv.FormatInt(e.InitialHeap, 10))
	}
	politely := cmd.Cancel
	cmd.Cancel = func() error {
		if errors.Is(context.Cause(ctx), ErrEnough) {
			return cmd.Kill()
		}
		return politely()
	}
	err := cmd.Start()
	if err == nil {
		var exceeded atomic.Bool
		stop := watchMemory(cmd, e.MemoryLimit, e.Used, &exceeded)
		err = cmd.Wait()
		stop()
		if err != nil && ctx.Err() == nil && e.MemoryLimit > 0 && (exceeded.Load() || strings.Contains(unclaimed.String(), "error: out of memory")) {
			return &Error{
				Program: filepath.Base(cmd.Path),
				Message: "needs more than " + bytesText(e.MemoryLimit) + " to evaluate",
				Err:     ErrMemory,
			}
		}
	}
	return failure(cmd, err, unclaimed.String())
}

// evaluation returns the arguments of an evaluator.
func (n *Nix) evaluation(e Evaluation) *arguments {
	with := args("eval")
	if e.Printed == nil {
		with.add("--json")
	}
	if e.Flake == "" && e.Expr == "" {
		with.err = errors.New("cannot evaluate: neither a flake nor an expression is given")
	}
	if e.Flake == "" {
		for _, entry := range e.Path {
			with.add("-I").checked(fileName, entry)
		}
		return with.add("--impure", "--expr").checked(expression, "("+e.Apply+"\n) ("+e.Expr+"\n)")
	}
	// The evaluation cache is of no use for a function that is new each time,
	// and locks out other evaluators of the same flake.
	n.addLock(with, e.Flake).add("--no-eval-cache", "--no-write-lock-file", "--apply").checked(expression, "("+e.Apply+"\n)")
	switch {
	case n.EvaluatesWholeFlakes():
		e.Attr = "." + e.Attr
	case e.Attr == "":
		with.err = cmp.Or(with.err, errors.New("this version of Nix has no name for all outputs of a flake"))
	}
	return with.operands(flakeAttr, e.Flake+"#"+e.Attr)
}

// Signaled reports whether a signal ended the program.
func (e *Error) Signaled() bool {
	var exit *exec.ExitError
	if !errors.As(e.Err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// watchMemory stores how many bytes of memory a process uses, and kills it above limit. On
// systems other than Linux it does neither.
func watchMemory(cmd *child.Cmd, limit int64, current *atomic.Int64, exceeded *atomic.Bool) (stop func()) {
	if limit <= 0 && current == nil {
		return func() {}
	}
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		ticks := time.NewTicker(memoryInterval)
		defer ticks.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ticks.C:
			}
			used, ok := memoryOf(cmd.Process.Pid)
			if !ok {
				return
			}
			if current != nil {
				current.Store(used)
			}
			if limit > 0 && used > limit {
				exceeded.Store(true)
				_ = cmd.Kill() // fails if it has ended meanwhile
				return
			}
		}
	})
	return func() {
		close(ended)
		watch.Wait()
	}
}

// memoryOf returns the bytes of memory that a process uses, on Linux.
func memoryOf(pid int) (used int64, ok bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	fields := strings.Fields(string(data))
	if err != nil || len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err == nil
}

// bytesText returns a number of bytes for people: "3.5 GiB".
func bytesText(n int64) string {
	unit, size := "GiB", float64(n)/(1<<30)
	if size < 1 {
		unit, size = "MiB", float64(n)/(1<<20)
	}
	return strings.TrimSuffix(strconv.FormatFloat(size, 'f', 1, 64), ".0") + " " + unit
}
