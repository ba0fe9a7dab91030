package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/push/attic"
	"github.com/org/nix-matrix/pkg/push/attic/attictest"
)

const (
	pushPaths  = 500
	pushBytes  = 1_000_000_000 // in all
	pushDelay  = 5 * time.Millisecond
	pushMemory = 128 << 20 // bytes
)

// push is the Attic client as pkg/push uses it, with all paths missing.
func (b *bench) push(ctx context.Context) error {
	paths, err := b.noise(ctx)
	if err != nil {
		return err
	}
	var together, single []time.Duration
	var peak int64
	err = inTurn(rounds, func(int) error {
		pushed, err := b.pushOnce(ctx, paths, 0)
		if err == nil {
			together = append(together, pushed.Took)
			peak = max(peak, pushed.Peak)
		}
		return err
	}, func(int) error {
		pushed, err := b.pushOnce(ctx, paths, 1)
		if err == nil {
			single = append(single, pushed.Took)
		}
		return err
	})
	if err != nil {
		return err
	}
	value, times := faster(together, single)
	const what = "push of 500 paths, 1 GB, to an Attic stand-in on this machine that answers after 5 ms"
	b.rows = append(b.rows, row{
		Work: what, Against: "the same paths one after another",
		Value: value, Goal: "≥ 3×", Met: times >= 3,
	}, row{
		Work: what + ": peak memory of the process", Against: "–",
		Value: fmt.Sprintf("%.0f MiB", float64(peak)/(1<<20)), Goal: "≤ 128 MiB", Met: peak <= pushMemory,
	})
	return nil
}

// noise makes /nix a store with the paths.
func (b *bench) noise(ctx context.Context) ([]string, error) {
	env, err := b.fresh()
	if err != nil {
		return nil, err
	}
	dir, err := b.randomFiles("noise", pushPaths, pushBytes/pushPaths)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	args := []string{"--add"}
	for i := range pushPaths {
		args = append(args, filepath.Join(dir, fmt.Sprint(i)))
	}
	added, err := b.run(ctx, dir, env, "nix-store", args...)
	if err != nil {
		return nil, err
	}
	return strings.Fields(added.stdout), nil
}

// A pushOrder is for a process of its own, whose memory is then that of pushing.
type pushOrder struct {
	Endpoint, Cache, Token string
	Jobs                   int // 0 is the client's default
	Paths                  []string
}

// A pushReport is its answer.
type pushReport struct {
	Took  time.Duration
	Peak  int64 // of resident memory, bytes
	Stats attic.Stats
}

// pusherArgument makes this program that process.
const pusherArgument = "pusher"

// pushOnce pushes to a server that has nothing yet.
func (b *bench) pushOnce(ctx context.Context, paths []string, jobs int) (*pushReport, error) {
	options := attictest.Options{Cache: "bench", Delay: pushDelay}
	server, err := attictest.New(options)
	if err != nil {
		return nil, err
	}
	defer server.Close()
	listening := httptest.NewServer(server)
	defer listening.Close()
	order, err := json.Marshal(pushOrder{listening.URL, options.Cache, server.Token(true, true), jobs, paths})
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, pusherArgument)
	cmd.Stdin = bytes.NewReader(order)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	var report pushReport
	if err := json.Unmarshal(out, &report); err != nil {
		return nil, err
	}
	if report.Stats.Uploaded != len(paths) || len(server.Uploads()) != len(paths) {
		return nil, fmt.Errorf("not all was pushed: %+v", report.Stats)
	}
	return &report, nil
}

// pusher takes a pushOrder from stdin, and writes a pushReport to stdout.
func pusher(ctx context.Context) error {
	var order pushOrder
	if err := json.NewDecoder(os.Stdin).Decode(&order); err != nil {
		return err
	}
	n, err := nix.Find(ctx, os.Stderr, nix.Config{})
	if err != nil {
		return err
	}
	var report pushReport
	start := time.Now()
	c, err := attic.Dial(ctx, attic.Options{Endpoint: order.Endpoint, Cache: order.Cache, Token: order.Token, Jobs: order.Jobs})
	if err != nil {
		return err
	}
	infos, err := n.Closure(ctx, order.Paths...)
	if err != nil {
		return err
	}
	closure := make([]attic.Path, 0, len(infos))
	for _, info := range infos {
		closure = append(closure, attic.Path{
			StorePath: info.Path, NarHash: info.NarHash, NarSize: info.NarSize, References: info.References,
			Deriver: info.Deriver, CA: info.CA, Signatures: info.Signatures,
		})
	}
	if report.Stats, err = c.Push(ctx, closure, n.NAR); err != nil {
		return err
	}
	report.Took = time.Since(start)
	if report.Peak, err = peakMemory(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

var highWater = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// peakMemory is the most memory that this process has had resident, in bytes.
func peakMemory() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	m := highWater.FindSubmatch(status)
	if m == nil {
		return 0, errors.New("the kernel does not say how much memory this process had")
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	return kib << 10, err
}
