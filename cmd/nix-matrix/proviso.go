package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/nix-matrix/pkg/job"
	"github.com/org/nix-matrix/pkg/text"
)

// provisoTime is how long the user's command may take to decide about a target.
var provisoTime = time.Minute

// As much of what the command prints for a target is read and shown.
const (
	provisoReason = 300 // bytes
	provisoLines  = 50  // of what it says on stderr
)

// A decision is the command's, about a target.
type decision struct {
	reason string // to leave it out; empty if it is to be built
	err    error
}

// askProviso lets the user's command decide which targets there is work for, once for
// each. Where it fails, the target is built.
func (d *discovery) askProviso(ctx context.Context, at *site, targets []job.Target) {
	if strings.TrimSpace(d.proviso) == "" {
		return
	}
	if d.provisos == nil {
		d.provisos = map[string]*decision{}
	}
	const atATime = 8
	var g errgroup.Group
	g.SetLimit(atATime)
	for i := range targets {
		t := &targets[i]
		key := t.Attr + "\n" + t.DrvPath
		if t.State != job.StateBuild || d.provisos[key] != nil {
			continue
		}
		made := &decision{}
		d.provisos[key] = made
		g.Go(func() error {
			at.app.show.Doing("proviso of %s", t.Name)
			made.reason, made.err = proviso(ctx, at, d.proviso, t)
			if made.err != nil && ctx.Err() == nil {
				at.app.warn("proviso of "+t.Name, fmt.Errorf("it is built, since the command failed: %w", made.err))
			}
			return nil
		})
	}
	_ = g.Wait()
	for i := range targets {
		t := &targets[i]
		made := d.provisos[t.Attr+"\n"+t.DrvPath]
		if t.State == job.StateBuild && made != nil && made.err == nil && made.reason != "" {
			t.State, t.Reason = job.StateSkip, "proviso: "+made.reason
		}
	}
}

// proviso gives the reason to leave a target out, or nothing.
func proviso(ctx context.Context, at *site, script string, t *job.Target) (reason string, err error) {
	ctx, cancel := context.WithTimeout(ctx, provisoTime)
	defer cancel()
	target, err := json.Marshal(t)
	if err != nil {
		return "", err
	}
	cmd, remove, err := at.app.bash(ctx, script, at.env)
	if err != nil {
		return "", err
	}
	defer remove()
	out := &provisoAnswer{}
	log := at.app.newStepLog(at.env)
	log.most = provisoLines
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(target), out, log
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("it did not end within %v", provisoTime)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return "", log.explain(err)
	}
	out.end()
	return out.reason, nil
}

// A provisoAnswer is looked for in what the command prints: a line that begins with skip. Of a
// line, only the beginning is kept.
type provisoAnswer struct {
	line   []byte
	reason string
}

func (a *provisoAnswer) Write(p []byte) (int, error) {
	const longest = 4 << 10
	for rest := p; ; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		a.line = append(a.line, line[:min(len(line), longest-len(a.line))]...)
		if !ended {
			return len(p), nil
		}
		a.end()
		rest = after
	}
}

// end is that of a line.
func (a *provisoAnswer) end() {
	word, reason, _ := strings.Cut(strings.TrimSpace(text.Plain(string(a.line))), " ")
	if word == "skip" && a.reason == "" {
		a.reason = or(text.Clip(strings.TrimSpace(reason), provisoReason), "nothing to do")
	}
	a.line = a.line[:0]
}
