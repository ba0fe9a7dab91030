// Command bench measures what we claim about speed. It prints the rows as a table, and writes them to
// dist/bench.json and docs/performance.md. Arguments name what is to be measured,
// by default all that measures has.
//
// It wants root, Linux, the testbench's Nix on PATH, and runs in the memory of
// /dev/shm, since disks are noisy. Where a row compares two things, both are
// measured in turn, in one run, and the medians count.
//
// NIX_MATRIX_BENCH_BEFORE is the path of a program of a release that writes store packs of the
// first format, with its dist directory around it. Rows that compare with that format need it.
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

// A measure measures what is behind one or several rows.
type measure struct {
	name string
	rows func(*bench, context.Context) error
}

var measures = []measure{
	{"size", (*bench).size},
	{"startup", (*bench).startup},
	{"demo", (*bench).demo},
	{"again", (*bench).again},
	{"entry", (*bench).entry},
	{"unchanged", (*bench).unchanged},
	{"aborts", (*bench).aborts},
	{"throws", (*bench).throws},
	{"separate", (*bench).separate},
	{"shared", (*bench).shared},
	{"asked", (*bench).asked},
	{"handover", (*bench).handover},
	{"take", (*bench).take},
	{"missing", (*bench).missing},
	{"questions", (*bench).questions},
	{"plan", (*bench).plan},
	{"units", (*bench).units},
	{"simulated", (*bench).simulated},
	{"push", (*bench).push},
	{"overhead", (*bench).overhead},
	{"restore", (*bench).restores},
	{"sources", (*bench).sources},
	{"save", (*bench).saves},
	{"bump", (*bench).bumped},
	{"bumps", (*bench).tenBumps},
	{"ondemand", (*bench).onDemand},
	{"entries", (*bench).entries},
	{"once", (*bench).once},
	{"helpers", (*bench).helpers},
	{"alone", (*bench).alone},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case os.Getenv(inside) == "":
		return reenter(ctx, args)
	case len(args) > 2 && args[0] == meterArgument:
		return measured(ctx, args[1:])
	case len(args) > 0 && args[0] == pusherArgument:
		return pusher(ctx)
	case len(args) > 0 && args[0] == plannerArgument:
		return planner(ctx, len(args) > 1)
	}
	dir, err := os.MkdirTemp("/dev/shm", "nix-matrix-bench-")
	if err != nil {
		return err
	}
	defer removeAll(dir)
	b := &bench{dir: dir}
	defer b.leaveStore()
	if err := b.freeze(); err != nil {
		return err
	}
	for _, name := range args {
		if !slices.ContainsFunc(measures, func(m measure) bool { return m.name == name }) {
			return fmt.Errorf("nothing is called %q", name)
		}
	}
	var errs []error
	for _, m := range measures {
		if len(args) > 0 && !slices.Contains(args, m.name) || ctx.Err() != nil {
			continue
		}
		say("measuring %s", m.name)
		before, start := len(b.rows), time.Now()
		err := m.rows(b, ctx)
		// The page is written now, because the next one may take minutes and fail.
		if err = errors.Join(err, writePage(b.rows[before:])); err != nil {
			errs = append(errs, fmt.Errorf("measure %s: %w", m.name, err))
		}
		say("%s took %v", m.name, time.Since(start).Round(time.Second))
	}
	return errors.Join(append(errs, context.Cause(ctx), b.print())...)
}

// say tells a person what is done.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }

const inside = "NIX_MATRIX_BENCH_NAMESPACE"

// reenter runs this program with mounts of its own.
func reenter(ctx context.Context, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, args...) //nolint:gosec // its own arguments
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd.Run()
}

type bench struct {
	dir     string
	program string // nix-matrix, as a workflow runs it
	before  *bench // the same with a program of the first format, or nil
	rows    []row
	closure *closure // once it was made
}

// freeze keeps the program as it is now, whatever is built meanwhile.
func (b *bench) freeze() error {
	root := filepath.Join(b.dir, "nix-matrix")
	for _, dir := range []string{"dist", "scripts"} {
		if err := os.CopyFS(filepath.Join(root, dir), os.DirFS(dir)); err != nil {
			return fmt.Errorf("keep the program, which `make build` makes: %w", err)
		}
	}
	b.program = filepath.Join(root, "dist", "nix-matrix")
	if program := os.Getenv("NIX_MATRIX_BENCH_BEFORE"); program != "" {
		before := *b
		before.program = program
		b.before = &before
	}
	return nil
}

// demo is `make demo` in a fresh clone: the modules and Debian's packages are
// there, nothing is compiled.
func (b *bench) demo(ctx context.Context) error {
	if err := b.useStore("store"); err != nil {
		return err
	}
	clone := filepath.Join(b.dir, "clone")
	if _, err := b.run(ctx, ".", nil, "git", "clone", "-q", ".", clone); err != nil {
		return err
	}
	made, err := b.run(ctx, clone, []string{
		"GOCACHE=" + filepath.Join(b.dir, "go-cache"),
		"XDG_CACHE_HOME=" + filepath.Join(b.dir, "demo-cache"),
	}, "make", "demo")
	if err != nil {
		return err
	}
	b.rows = append(b.rows, row{
		Work: "make demo from a fresh clone, nothing compiled", Against: "–",
		Value: seconds(made.took), Goal: "≤ 60 s", Met: made.took <= time.Minute,
	})
	return nil
}

// again is the fleet a second time, with nothing changed.
func (b *bench) again(ctx context.Context) error {
	if err := b.useStore("store"); err != nil {
		return err
	}
	args := []string{"run", "./examples/fleet", "--cache", "dir:" + filepath.Join(b.dir, "cache"), "--push", "file://" + filepath.Join(b.dir, "binary-cache")}
	var all []time.Duration
	builds := 0
	for i := range turns(rounds + 1) {
		ran, err := b.run(ctx, ".", nil, b.program, args...)
		if err != nil {
			return err
		}
		if i > 0 { // the first one builds
			all = append(all, ran.took)
			builds += len(buildLine.FindAllString(ran.stderr, -1))
		}
	}
	took := median(all)
	b.rows = append(b.rows, row{
		Work: "nix-matrix run examples/fleet again, nothing changed", Against: "–",
		Value: fmt.Sprintf("%s, %d builds", seconds(took), builds), Goal: "< 2 s, 0 builds", Met: took < 2*time.Second && builds == 0,
	})
	return nil
}

var buildLine = regexp.MustCompile(`(?m): building$`)

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
