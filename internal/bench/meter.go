package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// metered is what a command has used, with all processes that it started and
// waited for.
type metered struct {
	Took, CPU      time.Duration
	Peak           int64 // of the resident memory of the largest of them, bytes
	stdout, stderr string
}

// limit says how far from it that was: if it had waited for nothing, it would have
// taken the time of the processors.
func (m *metered) limit() string {
	least := m.CPU / time.Duration(runtime.NumCPU())
	return fmt.Sprintf("%s against %s, %.0f %%, peak memory %s",
		seconds(least), seconds(m.Took), 100*least.Seconds()/m.Took.Seconds(), mebibytes(m.Peak))
}

func mebibytes(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

// A series is what several runs of one thing have used.
type series []*metered

func (s series) took() []time.Duration {
	all := make([]time.Duration, len(s))
	for i, m := range s {
		all[i] = m.Took
	}
	return all
}

func (s series) cpu() []time.Duration {
	all := make([]time.Duration, len(s))
	for i, m := range s {
		all[i] = m.CPU
	}
	return all
}

// middle is the run that took the median time.
func (s series) middle() *metered {
	sorted := slices.SortedFunc(slices.Values(s), func(a, b *metered) int { return cmp.Compare(a.Took, b.Took) })
	return sorted[len(sorted)/2]
}

// peak is the most memory that one of them had resident, in bytes.
func (s series) peak() (peak int64) {
	for _, m := range s {
		peak = max(peak, m.Peak)
	}
	return peak
}

// meterArgument makes this program a small process that runs a command. To the
// kernel the memory of a process begins with that of its parent.
const meterArgument = "meter"

// meter runs a command that reads stdin.
func (b *bench) meter(ctx context.Context, stdin io.Reader, env []string, name string, args ...string) (*metered, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	report := filepath.Join(b.dir, "metered.json")
	cmd := exec.CommandContext(ctx, self, append([]string{meterArgument, report, name}, args...)...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %v: %w\n%s%s", name, args, err, &stdout, &stderr)
	}
	data, err := os.ReadFile(report)
	if err != nil {
		return nil, err
	}
	m := &metered{stdout: stdout.String(), stderr: stderr.String()}
	return m, json.Unmarshal(data, m)
}

// measured is that process. The arguments are the file to report to, and the command.
func measured(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, args[1], args[2:]...) //nolint:gosec // as meter was told
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return err
	}
	m := metered{Took: time.Since(start), CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	m.Peak = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(args[0], data, 0o600) //nolint:gosec // as meter was told
}
