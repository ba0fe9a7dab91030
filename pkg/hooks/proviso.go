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

// The limits of a script's output for a target.
const (
	maxReason     = 300 // bytes
	maxAnswerLine = 4 << 10
	maxErrorLines = 50 // on stderr
)

// A Proviso is a script that decides for each target whether there is work for it.
type Proviso struct {
	Script  string        // empty for none
	Timeout time.Duration // of the decision about a target

	decisions map[string]*decision // by target
}

// A decision is the answer of the script for a target.
type decision struct {
	reason string // to skip it; empty if it is to be built, as with an error
	err    error
}

// AskProviso runs the script for each target that is to be built, once in all calls, and skips the
// targets for which it says so. A target for which the script fails is built.
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
				r.Log.Warn("proviso of "+t.Name, fmt.Errorf("the target is built, because the script failed: %w", made.err))
			}
			return nil
		})
	}
	_ = g.Wait()
	for i := range targets {
		t := &targets[i]
		made := p.decisions[decisionKey(t)]
		if t.State == job.StateBuild && made != nil && made.reason != "" {
			t.State, t.Reason = job.StateSkip, "proviso: "+made.reason
		}
	}
}

func decisionKey(t *job.Target) string { return t.Attr + "\n" + t.DrvPath }

// proviso returns the reason to skip a target, or an empty text.
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
	log.limit = maxErrorLines
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

// A provisoAnswer looks for a line that begins with skip in the output of a script. It keeps only the
// beginning of a line.
type provisoAnswer struct {
	line   []byte
	reason string
}

func (a *provisoAnswer) Write(p []byte) (int, error) {
	for rest := p; ; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		a.line = append(a.line, line[:min(len(line), maxAnswerLine-len(a.line))]...)
		if !ended {
			return len(p), nil
		}
		a.end()
		rest = after
	}
}

// end reads the line that has ended.
func (a *provisoAnswer) end() {
	word, reason, _ := strings.Cut(strings.TrimSpace(text.Plain(string(a.line))), " ")
	if word == "skip" && a.reason == "" {
		a.reason = cmp.Or(text.Clip(strings.TrimSpace(reason), maxReason), "nothing to do")
	}
	a.line = a.line[:0]
}
