package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/org/nix-matrix/internal/child"
	"github.com/org/nix-matrix/internal/usage"
	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/reuse"
)

const (
	// serveIdle is how long a server in the background goes on without a request.
	serveIdle = "6h"
	// serveStart is how long it may take until the server is ready.
	serveStart = 3 * time.Minute
	// maxServed is the most bytes of what it prints.
	maxServed = 64 << 10
)

// onDemand starts a server for the later steps of the job, and has their Nix use it. It reports whether it did: if
// the Nix daemon does not trust this user, only a restore gets paths into the store.
func (u *userBuild) onDemand(ctx context.Context, user *reuse.UserBuild) (bool, error) {
	a := u.app
	if !a.action.Running() {
		return false, usage.Errorf("--on-demand is for a step of GitHub Actions, and serves for its later steps; run nix-matrix serve")
	}
	if u.root != "" {
		return false, usage.Errorf("cannot serve the store at %s on demand: leave --on-demand or --store-root out", u.root)
	}
	if err := user.Nix.Distrust(ctx); errors.Is(err, nix.ErrUntrusted) {
		a.log.Warn("All store paths are restored now", fmt.Errorf("cannot fetch store paths on demand: %w", err))
		return false, nil
	}
	says, err := u.background(ctx)
	if err == nil {
		err = a.action.SetEnv("NIX_CONFIG", strings.TrimSpace(a.getenv("NIX_CONFIG")+"\n"+says.NixConfig))
	}
	if err == nil {
		a.log.Printf("later steps fetch store paths on demand, from %s", says.URL)
		return true, a.action.SetOutput("substituter", says.URL)
	}
	if ctx.Err() != nil {
		return false, err
	}
	a.log.Warn("Store paths are not fetched on demand", err)
	return true, user.KeepBefore(ctx)
}

// background starts serve as a process that goes on after this step, and returns what it prints.
func (u *userBuild) background(ctx context.Context) (*served, error) {
	a := u.app
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := a.action.StateDir(a.id)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "serve.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	args := []string{"serve", "--json", "--idle", serveIdle, "--id", a.id, "--cache", a.cache, "--until", strconv.Itoa(runnerProcess())}
	process, err := child.Background(in, log, self, args...)
	_ = in.Close()
	if err != nil {
		return nil, fmt.Errorf("cannot start nix-matrix serve: %w", err)
	}
	_ = out.SetReadDeadline(time.Now().Add(serveStart))
	stop := context.AfterFunc(ctx, func() { _ = out.SetReadDeadline(time.Now()) })
	defer stop()
	var says served
	if err := json.NewDecoder(io.LimitReader(out, maxServed)).Decode(&says); err != nil {
		_ = process.Kill()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("nix-matrix serve did not start: %w%s", err, lastLine(log.Name()))
	}
	return &says, process.Release()
}

// lastLine returns the end of a log, for a message.
func lastLine(file string) string {
	data, err := os.ReadFile(file)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if last := lines[len(lines)-1]; err == nil && last != "" {
		return ": " + last
	}
	return ""
}

// runnerNames are the names of the processes that run a job.
var runnerNames = []string{"Runner.Worker", "act"}

// runnerProcess returns the process that runs the job, or 0 if it is not known. A process that it has started ends with
// the job in any case.
func runnerProcess() int {
	for pid := os.Getppid(); pid > 1; {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0
		}
		// PID (NAME) STATE PARENT …
		text := string(stat)
		start, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
		if start < 0 || end < start {
			return 0
		}
		if slices.Contains(runnerNames, text[start+1:end]) {
			return pid
		}
		fields := strings.Fields(text[end+1:])
		if len(fields) < 2 {
			return 0
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			return 0
		}
	}
	return 0
}
