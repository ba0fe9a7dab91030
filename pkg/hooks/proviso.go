package hooks

import (
	"bytes"
	"cmp"
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

// As much of what the command prints for a target is read and shown.
const (
	provisoReason = 300 // bytes
	provisoLines  = 50  // of what it says on stderr
)

// A Proviso is a script that decides for each target whether there is work for it.
type Proviso struct {
	Script  string        // empty for none
	Timeout time.Duration // of the decision about a target

	decisions map[string]*decision // by target
}

// A decision is the script's, about a target.
type decision struct {
	reason string // to leave it out; empty if it is to be built
	err    error
}

// AskProviso has the script decide which of the targets are built, once for each target of all
// calls. A target for which the script fails is built.
func (r *Runner) AskProviso(ctx context.Context, p *Proviso, targets []job.Target) {
	if strings.TrimSpace(p.Script) == "" {
		return
	}
	if p.decisions == nil {
		p.decisions = map[string]*decision{}
	}
	const atATime = 8
	var g errgroup.Group
	g.SetLimit(atATime)
	for i := range targets {
		t := &targets[i]
		if t.State != job.StateBuild || p.decisions[decisionKey(t)] != nil {
			continue
		}
		made := &decision{}
		p.decisions[decisionKey(t)] = made
		g.Go(func() error {
			r.Log.Doing("proviso of %s", t.Name)
			made.reason, made.err = r.proviso(ctx, p, t)
			if made.err != nil && ctx.Err() == nil {
				r.Log.Warn("proviso of "+t.Name, fmt.Errorf("it is built, since the command failed: %w", made.err))
			}
			return nil
		})
	}
	_ = g.Wait()
	for i := range targets {
		t := &targets[i]
		made := p.decisions[decisionKey(t)]
		if t.State == job.StateBuild && made != nil && made.err == nil && made.reason != "" {
			t.State, t.Reason = job.StateSkip, "proviso: "+made.reason
		}
	}
}

func decisionKey(t *job.Target) string { return t.Attr + "\n" + t.DrvPath }

// proviso returns the reason to leave a target out, or nothing.
func (r *Runner) proviso(ctx context.Context, p *Proviso, t *job.Target) (reason string, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	target, err := json.Marshal(t)
	if err != nil {
		return "", err
	}
	cmd, remove, err := r.bash(ctx, p.Script)
	if err != nil {
		return "", err
	}
	defer remove()
	out := &provisoAnswer{}
	log := r.newLog()
	log.most = provisoLines
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(target), out, log
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("it did not end within %v", p.Timeout)
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
		a.reason = cmp.Or(text.Clip(strings.TrimSpace(reason), provisoReason), "nothing to do")
	}
	a.line = a.line[:0]
}
