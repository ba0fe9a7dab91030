package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// ran is a program that has succeeded.
type ran struct {
	took, cpu      time.Duration
	stdout, stderr string
}

// run runs a program. What it printed is in the error, if there is one.
func (b *bench) run(ctx context.Context, dir string, env []string, name string, args ...string) (*ran, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err != nil {
		return nil, fmt.Errorf("%s %v: %w\n%s%s", name, args, err, &stdout, &stderr)
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return &ran{took, cpu, stdout.String(), stderr.String()}, nil
}

// useStore makes /nix a directory of ours.
func (b *bench) useStore(name string) error {
	b.leaveStore()
	store := filepath.Join(b.dir, name)
	return errors.Join(
		os.MkdirAll("/nix", 0o755),
		os.MkdirAll(store, 0o755),
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount(store, "/nix", "", syscall.MS_BIND, ""),
	)
}

// leaveStore undoes useStore. Where no store is used, it does nothing.
func (b *bench) leaveStore() { _ = syscall.Unmount("/nix", syscall.MNT_DETACH) }

// fresh makes this a machine that a job has just got: with an empty store, and
// the environment of a user whose home is empty.
func (b *bench) fresh() (env []string, err error) {
	b.leaveStore()
	home := filepath.Join(b.dir, "home")
	return []string{"HOME=" + home, "XDG_CACHE_HOME=" + filepath.Join(home, ".cache")}, errors.Join(
		os.RemoveAll(home),
		os.Mkdir(home, 0o755),
		os.RemoveAll(filepath.Join(b.dir, "fresh")),
		b.useStore("fresh"),
	)
}

// turns returns the numbers below n, and says of each that it begins.
func turns(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			say("  %d of %d", i+1, n)
			if !yield(i) {
				return
			}
		}
	}
}

// inTurn measures things n times. Each begins in its turn, so that what else the
// machine does meets all.
func inTurn(n int, sides ...func(i int) error) error {
	for i := range turns(n) {
		for j := range sides {
			if err := sides[(i+j)%len(sides)](i); err != nil {
				return err
			}
		}
	}
	return nil
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// faster compares the medians of ours and theirs.
func faster(ours, theirs []time.Duration) (value string, times float64) {
	o, t := median(ours), median(theirs)
	times = t.Seconds() / o.Seconds()
	return fmt.Sprintf("%s against %s, %.1f×", seconds(o), seconds(t), times), times
}

// removeAll removes directories with stores in them, which are read-only.
func removeAll(dir string) {
	_ = exec.CommandContext(context.Background(), "chmod", "-R", "u+w", dir).Run() // root needs it not
	_ = os.RemoveAll(dir)
}
