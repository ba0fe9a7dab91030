// Command bench measures what we claim about speed, and prints it as a table.
// The rows go to dist/bench.json as well.
//
// It wants root, Linux, the testbench's Nix on PATH, and runs in the memory of
// /dev/shm, since disks are noisy. Where a row compares two things, both are
// measured in turn, in one run, and the medians count.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

// A row is a claim and what became of it.
type row struct {
	Work    string `json:"work"`
	Against string `json:"against"`
	Value   string `json:"value"`
	Goal    string `json:"goal"`
	Met     bool   `json:"met"`
}

// rounds is how often each thing is measured.
const rounds = 5

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if os.Getenv(inside) == "" {
		return reenter(ctx)
	}
	dir, err := os.MkdirTemp("/dev/shm", "nix-matrix-bench-")
	if err != nil {
		return err
	}
	defer removeAll(dir)
	b := &bench{dir: dir}
	if err := b.useStore("store"); err != nil {
		return err
	}
	for _, measure := range []func(context.Context) error{b.demo, b.again} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return b.print()
}

const inside = "NIX_MATRIX_BENCH_NAMESPACE"

// reenter runs this program with mounts of its own.
func reenter(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd.Run()
}

type bench struct {
	dir  string
	rows []row
}

// useStore makes /nix a directory of ours.
func (b *bench) useStore(name string) error {
	store := filepath.Join(b.dir, name)
	return errors.Join(
		os.MkdirAll("/nix", 0o755),
		os.MkdirAll(store, 0o755),
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount(store, "/nix", "", syscall.MS_BIND, ""),
	)
}

// timed runs a program and says how long it took. What it printed is in the
// error, if there is one.
func (b *bench) timed(ctx context.Context, dir string, env []string, name string, args ...string) (time.Duration, string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(start)
	if err != nil {
		return 0, "", fmt.Errorf("%s %v: %w\n%s", name, args, err, out)
	}
	return took, string(out), nil
}

// demo is `make demo` in a fresh clone: the modules and Debian's packages are
// there, nothing is compiled.
func (b *bench) demo(ctx context.Context) error {
	clone := filepath.Join(b.dir, "clone")
	if _, _, err := b.timed(ctx, ".", nil, "git", "clone", "-q", ".", clone); err != nil {
		return err
	}
	took, _, err := b.timed(ctx, clone, []string{
		"GOCACHE=" + filepath.Join(b.dir, "go-cache"),
		"XDG_CACHE_HOME=" + filepath.Join(b.dir, "demo-cache"),
	}, "make", "demo")
	if err != nil {
		return err
	}
	b.rows = append(b.rows, row{
		Work: "make demo from a fresh clone, nothing compiled", Against: "–",
		Value: seconds(took), Goal: "≤ 60 s", Met: took <= time.Minute,
	})
	return nil
}

// again is the fleet a second time, with nothing changed.
func (b *bench) again(ctx context.Context) error {
	args := []string{"run", "./examples/fleet", "--cache", "dir:" + filepath.Join(b.dir, "cache"), "--push", "file://" + filepath.Join(b.dir, "binary-cache")}
	var all []time.Duration
	builds := 0
	for i := range rounds + 1 {
		took, out, err := b.timed(ctx, ".", nil, "scripts/nix-matrix", args...)
		if err != nil {
			return err
		}
		if i > 0 { // the first one builds
			all = append(all, took)
			builds += len(buildLine.FindAllString(out, -1))
		}
	}
	took := median(all)
	b.rows = append(b.rows, row{
		Work: "nix-matrix run examples/fleet again, nothing changed", Against: "–",
		Value: fmt.Sprintf("%s, %d builds", seconds(took), builds), Goal: "< 2 s, 0 builds", Met: took < 2*time.Second && builds == 0,
	})
	return nil
}

func (b *bench) print() error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "WORK\tAGAINST\tVALUE\tGOAL\tMET")
	for _, r := range b.rows {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%t\n", r.Work, r.Against, r.Value, r.Goal, r.Met)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(b.rows, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll("dist", 0o755); err != nil {
		return err
	}
	return os.WriteFile("dist/bench.json", append(data, '\n'), 0o600)
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

var buildLine = regexp.MustCompile(`(?m): building$`)

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// removeAll removes directories with stores in them, which are read-only.
func removeAll(dir string) {
	_ = exec.CommandContext(context.Background(), "chmod", "-R", "u+w", dir).Run() // root needs it not
	_ = os.RemoveAll(dir)
}
