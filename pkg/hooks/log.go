package hooks

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/org/nix-matrix/pkg/nix"
	"github.com/org/nix-matrix/pkg/text"
)

// A scriptLog shows the output of a script without secrets, and keeps the last lines. A text that the
// script masks is a secret too.
type scriptLog struct {
	runner  *Runner
	secrets []string
	last    []string // lines
	part    []byte   // of a line that has not ended
	limit   int      // of the lines that are shown; 0 is none
	count   int      // of lines
}

// newLog returns the log of a script that gets the variables of the secret env.
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
	keptLines   = 25
	maxLine     = 4000     // bytes of a line that are shown
	maxLinePart = 64 << 10 // bytes of a line after which it is cut
)

func (l *scriptLog) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	for {
		line, rest, ended := bytes.Cut(l.part, []byte("\n"))
		if !ended && len(l.part) < maxLinePart {
			return len(p), nil
		}
		l.line(string(line))
		l.part = append(l.part[:0], rest...)
	}
}

func (l *scriptLog) line(line string) {
	if secret, ok := strings.CutPrefix(strings.TrimSpace(line), "::add-mask::"); ok && secret != "" {
		l.secrets = append(l.secrets, secret)
		l.runner.Mask(secret)
		return
	}
	for _, secret := range l.secrets {
		line = strings.ReplaceAll(line, secret, "***")
	}
	line = text.Clip(line, maxLine)
	switch l.count++; {
	case l.limit == 0 || l.count <= l.limit:
		_, _ = l.runner.Log.Write([]byte(line + "\n"))
	case l.count == l.limit+1:
		_, _ = l.runner.Log.Write([]byte("… the rest is left out\n"))
	}
	if l.last = append(l.last, line); len(l.last) > keptLines {
		l.last = l.last[1:]
	}
}

// explain adds the last line of a script to the error with which it ended, and advice.
func (l *scriptLog) explain(err error) error {
	if len(l.part) > 0 {
		l.line(string(l.part))
		l.part = nil
	}
	if len(l.last) == 0 {
		return err
	}
	err = fmt.Errorf("%w: %s", err, l.last[len(l.last)-1])
	if foreign := nix.ForeignProgram(l.last...); foreign != "" {
		err = fmt.Errorf("%w. %s", err, foreign)
	}
	return err
}
