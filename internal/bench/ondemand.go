package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// onDemand is Nix that asks for the store paths that it needs, of a closure that is in the cache.
func (b *bench) onDemand(ctx context.Context) error {
	c, s, env, err := b.beginSave(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	if _, _, err := b.save(ctx, s, env, c.all); err != nil {
		return err
	}
	if _, err := b.run(ctx, b.dir, env, "nix", "copy", "--to", "file://"+filepath.Join(s.dir, binaryCache)+"?compression=zstd&parallel-compression=true", c.all); err != nil {
		return err
	}
	if err := b.oneLeaf(ctx, c, s); err != nil {
		return err
	}
	return b.wholeOnDemand(ctx, c, s)
}

// A substituter is a running nix-matrix serve.
type substituter struct {
	cmd *exec.Cmd
	url string
}

func (b *bench) substituter(ctx context.Context, s *service, env []string) (*substituter, error) {
	job, err := b.job(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, b.program, "serve", "--json", "--cache", "actions")
	cmd.Dir, cmd.Env, cmd.Stderr = b.dir, append(append(os.Environ(), env...), job...), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var says struct{ URL string }
	if err := json.NewDecoder(out).Decode(&says); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return &substituter{cmd, says.URL}, nil
}

var peakLine = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// end ends the server, and returns its peak memory in bytes.
func (s *substituter) end() (peak int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if m := peakLine.FindSubmatch(status); m != nil {
		peak, err = strconv.ParseInt(string(bytes.TrimSpace(m[1])), 10, 64)
	}
	return peak << 10, errors.Join(err, s.cmd.Process.Signal(syscall.SIGTERM), s.cmd.Wait())
}

// leaf is a path of the closure, of some megabytes, that refers to no other.
func (c *closure) leaf() (*storePath, error) {
	for _, p := range c.paths {
		if p.bytes > 1<<20 && p.bytes < 8<<20 && len(p.refs) == 0 {
			return p, nil
		}
	}
	return nil, errors.New("the closure has no leaf")
}

// oneLeaf is a build that needs one path of the closure.
func (b *bench) oneLeaf(ctx context.Context, c *closure, s *service) error {
	leaf, err := c.leaf()
	if err != nil {
		return err
	}
	expression := fmt.Sprintf(`derivation { name = "needs"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${builtins.storePath "%s"} >$out" ]; }`, leaf.path)
	build := func(env []string, options ...string) error {
		_, err := b.run(ctx, b.dir, env, "nix-build", append([]string{"--no-out-link", "-E", expression}, options...)...)
		return err
	}
	s.rate.Store(slowLine)
	defer s.rate.Store(0)
	timed := func(all *[]time.Duration, do func(env []string) error) func(int) error {
		return func(int) error {
			env, err := b.fresh()
			if err != nil {
				return err
			}
			start := time.Now()
			err = do(append(env, c.conf))
			*all = append(*all, time.Since(start))
			return err
		}
	}
	var ours, theirs []time.Duration
	err = inTurn(rounds, timed(&ours, func(env []string) error {
		from, err := b.substituter(ctx, s, env)
		if err != nil {
			return err
		}
		err = build(env, "--option", "substituters", from.url)
		_, ended := from.end()
		return errors.Join(err, ended)
	}), timed(&theirs, func(env []string) error {
		if _, err := b.restore(ctx, s, env, protocolEngine, c.all); err != nil {
			return err
		}
		return build(env)
	}))
	if err != nil {
		return err
	}
	value, times := faster(ours, theirs)
	b.rows = append(b.rows, row{
		Work: fmt.Sprintf("nix-build that needs one path of %s, with nix-matrix serve, at 50 MB/s", megabytes(leaf.bytes)), Against: "restore of all " + megabytes(c.bytes) + " first",
		Value: value, Goal: "≥ 5×", Met: times >= 5,
	})
	return nil
}

// wholeOnDemand is all of the closure.
func (b *bench) wholeOnDemand(ctx context.Context, c *closure, s *service) error {
	var ours, theirs []time.Duration
	var most int64
	fetch := func(all *[]time.Duration, env []string, from string) error {
		start := time.Now()
		_, err := b.run(ctx, b.dir, env, "nix", "copy", "--option", "http-connections", "25", "--from", from, c.all)
		*all = append(*all, time.Since(start))
		return err
	}
	err := inTurn(rounds, func(int) error {
		env, err := b.fresh()
		if err != nil {
			return err
		}
		env = append(env, c.conf)
		from, err := b.substituter(ctx, s, env)
		if err != nil {
			return err
		}
		err = fetch(&ours, env, from.url)
		peak, ended := from.end()
		most = max(most, peak)
		return errors.Join(err, ended)
	}, func(int) error {
		env, err := b.fresh()
		if err != nil {
			return err
		}
		return fetch(&theirs, append(env, c.conf), "file://"+filepath.Join(s.dir, binaryCache))
	})
	if err != nil {
		return err
	}
	o, t := median(ours), median(theirs)
	share := o.Seconds() / t.Seconds()
	b.rows = append(b.rows, row{
		Work: fmt.Sprintf("nix copy of %s from nix-matrix serve, unthrottled", megabytes(c.bytes)), Against: "nix copy from a binary cache with zstd in a directory",
		Value: fmt.Sprintf("%s against %s, %.2f×, peak memory %s", seconds(o), seconds(t), share, mebibytes(most)),
		Goal:  fmt.Sprintf("≤ 1.5×, ≤ %s", mebibytes(serveMemory)), Met: share <= 1.5 && most <= serveMemory,
	})
	return nil
}

const serveMemory = 256 << 20 // bytes
