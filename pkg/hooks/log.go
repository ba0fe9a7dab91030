package hooks

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// A scriptLog shows what a script says, and keeps the last of it, without secrets. A
// mask that the script asks for is one.
type scriptLog struct {
	runner  *Runner
	secrets []string
	lines   []string
	part    []byte
	most    int // lines to show; 0 is all
	said    int // lines
}

// newLog returns the log of a script, which has the variables of the secret env.
func (r *Runner) newLog() *scriptLog {
	l := &scriptLog{runner: r}
	for _, variable := range r.Env {
		if _, value, _ := strings.Cut(variable, "="); value != "" {
			l.secrets = append(l.secrets, value)
		}
	}
	return l
}

const (
	stepLines = 25   // that are kept
	stepLine  = 4000 // bytes of one
)

func (l *scriptLog) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	for {
		line, rest, ended := bytes.Cut(l.part, []byte("\n"))
		const longest = 64 << 10
		if !ended && len(l.part) < longest {
			return len(p), nil
		}
		l.line(string(line))
		l.part = append(l.part[:0], rest...)
	}
}

func (l *scriptLog) line(said string) {
	if secret, ok := strings.CutPrefix(strings.TrimSpace(said), "::add-mask::"); ok && secret != "" {
		l.secrets = append(l.secrets, secret)
		l.runner.Mask(secret)
		return
	}
	for _, secret := range l.secrets {
		said = strings.ReplaceAll(said, secret, "***")
	}
	said = text.Clip(said, stepLine)
	switch l.said++; {
	case l.most == 0 || l.said <= l.most:
		_, _ = l.runner.Log.Write([]byte(said + "\n"))
	case l.said == l.most+1:
		_, _ = l.runner.Log.Write([]byte("… the rest is left out\n"))
	}
	if l.lines = append(l.lines, said); len(l.lines) > stepLines {
		l.lines = l.lines[1:]
	}
}

// explain adds the last of what was said to how a script ended, and what to do about it.
func (l *scriptLog) explain(err error) error {
	if len(l.part) > 0 {
		l.line(string(l.part))
		l.part = nil
	}
	if len(l.lines) == 0 {
		return err
	}
	err = fmt.Errorf("%w: %s", err, l.lines[len(l.lines)-1])
	if foreign := nix.ForeignProgram(l.lines...); foreign != "" {
		err = fmt.Errorf("%w. %s", err, foreign)
	}
	return err
}
